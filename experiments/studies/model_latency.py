"""Compute a latency table from a data sheet: for hardware that is not at hand.

    python -m experiments.studies.model_latency --target DIR --draft DIR --device h100 --out h100.json

Only the two config.json are read. What is written says "modelled" in its provenance; measure with
profile_latency where the device is at hand.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from experiments import command
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.files import ASSETS
from ltd_jax.models.hf import inspect
from ltd_jax.presets import PAPER_CYCLE
from ltd_jax.replay import latency, roofline


@dataclasses.dataclass(frozen=True)
class Config:
    """Which pair on which device."""

    out: Path
    device: Literal["a100", "h100", "h200", "tpu-v5p", "tpu-v6e"] = "h100"
    target: Path = ASSETS / "target"
    draft: Path = ASSETS / "draft"
    cycle: CycleConfig = PAPER_CYCLE
    policy: PolicyConfig = PolicyConfig()


def main() -> None:
    config = tyro.cli(Config)
    pair, _ = inspect.read_pair_config(config.target, config.draft, config.cycle, None, None)
    device = roofline.ACCELERATORS[config.device]
    table = roofline.table(
        device, pair.target, pair.draft, config.cycle, config.policy, config.target.name
    )
    latency.save(table, config.out)
    print(f"{table.provenance['device']}: {config.out}, {latency.fingerprint(table)}")


if __name__ == "__main__":
    command.run(main)
