"""Train the two policies for a pair and this device: record, measure, search, learn.

    python -m experiments.train_policies --out runs/me --target DIR --draft DIR --questions DIR

    python -m experiments.train_policies --out runs/a100 --latency a100-vicuna-13b-paper

Uses what record_traces and profile_latency left in OUT, does what is missing, and writes
OUT/policies. Stopped at any point, the same command goes on. `--json` prints one object.
"""

import dataclasses
import json
from pathlib import Path

import tyro
from rich.console import Console

from experiments import command
from experiments.command import PairFlags
from ltd_jax import workflow
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_LEARNING, EMBEDDED_POLICY
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import QuestionFlags


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """Settings of all stages."""

    out: Path = Path("runs/embedded")
    latency: str | None = None  # a shipped latency table or a file; None = measure this device
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    cycle: CycleConfig = EMBEDDED_CYCLE
    policy: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = EMBEDDED_LEARNING
    measure: ProfileConfig = ProfileConfig()
    json: bool = False


def main() -> None:
    config = command.parse(lambda preset: Config(**command.stage_settings(preset)))
    command.writable(config.out)
    console = Console(stderr=config.json)
    pair = command.load_pair(config, config.cycle)
    trained = workflow.train_policies(pair, config, console, config.latency)
    found = {
        "policies": str(trained.policies.folder),
        "best_constant": trained.best._asdict(),
        "learning": trained.learning,
        "provenance": trained.policies.provenance,
    }
    if config.json:
        print(json.dumps(found))
    else:
        cost = trained.learning
        console.print(
            f"{cost['decisions']:,} decisions in {cost['seconds']:.0f} s; policies in "
            f"{trained.policies.folder}"
        )


if __name__ == "__main__":
    command.run(main)
