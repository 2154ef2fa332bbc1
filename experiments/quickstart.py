"""The whole way on the embedded pair: record, measure, search, train, decode, compare, report.

    python -m experiments.quickstart --out runs/quickstart        8 to 10 minutes on 2 CPU cores

Writes report.html (start there), report.json and the plots. Stopped at any point, the same command
goes on from there. `--smoke` runs everything in a tiny size, but for what other flags say; `--json`
prints the report.
"""

import dataclasses
import json
from pathlib import Path

import tyro
from rich.console import Console

from experiments import command, report
from experiments.command import PairFlags
from experiments.report import tables
from experiments.studies import results
from ltd_jax.config import CycleConfig, ExactConfig, LearningConfig, PolicyConfig
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_LEARNING, EMBEDDED_POLICY
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import QuestionFlags


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """Settings of all stages."""

    out: Path = Path("runs/quickstart")
    smoke: bool = False  # a few prompts, a few decisions: shows that everything runs
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    cycle: CycleConfig = EMBEDDED_CYCLE
    policy: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = EMBEDDED_LEARNING
    measure: ProfileConfig = ProfileConfig()
    json: bool = False


def smoke(config: Config) -> Config:
    """The same stages in a size that takes a minute or two."""
    short = {"total_steps": 2048, "environments": 32, "rollout": 1024, "minibatch": 256}
    learning = dataclasses.replace(
        config.learning,
        size=dataclasses.replace(config.learning.size, **short),
        depth=dataclasses.replace(config.learning.depth, **short),
        joint=dataclasses.replace(config.learning.joint, **short),
        exact=ExactConfig(updates=2, environments=16, cycles=4, steps=2, minibatch=32),
        alternations=1,
        validate_every=1,
    )
    return dataclasses.replace(
        config,
        asked=dataclasses.replace(config.asked, new_tokens=24, prompts=2),
        cycle=dataclasses.replace(config.cycle, max_levels=2, sizes=(0, 2), short_catch_ups=()),
        learning=learning,
        measure=ProfileConfig(cycles=1, visits=3, policy_visits=2),
    )


def main() -> None:
    config = command.parse(lambda preset: Config(**command.stage_settings(preset)), smoke)
    command.writable(config.out)
    console = Console(stderr=config.json)
    pair = command.load_pair(config, config.cycle)
    found = results.run(pair, config, console)
    page = report.write(found.report, found.figures, config.out)
    report.headline_picture(found.report, config.out / "headline.png")
    if config.json:
        print(json.dumps(found.report))
    console.print(tables.terminal_table(found.report))
    console.print(f"Report: {page}")


if __name__ == "__main__":
    command.run(main)
