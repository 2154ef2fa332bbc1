"""Write trained policies as Stable-Baselines3's zips, which its `PPO.load` reads.

    python -m experiments.export_sb3 --policies runs/me/policies --out runs/me/sb3

Writes OUT/depth.zip and OUT/size.zip. They read this package's observations (cycle/observe.py), not
the published code's, and hold a critic that says 0, for decoding needs none.
"""

import dataclasses
from pathlib import Path

import tyro

from experiments import command
from ltd_jax.policies import saved, sb3_export, sb3_file


@dataclasses.dataclass(frozen=True)
class Config:
    """Which policies."""

    policies: Path = Path("runs/embedded/policies")
    out: Path = Path("runs/embedded/sb3")


def main() -> None:
    config = tyro.cli(Config)
    command.writable(config.out)
    found = saved.load(config.policies)
    for name, actor in (("depth", found.params.depth), ("size", found.params.size)):
        policy, path = sb3_file.of_networks(actor, None), config.out / f"{name}.zip"
        sb3_export.write(policy, path)
        print(f"{path}: {policy.observation_width} numbers, {policy.action_count} choices")


if __name__ == "__main__":
    command.run(main)
