"""Record the trace of a split's prompts: full draft trees at every position of their greedy texts.

    python -m experiments.record_traces --out runs/embedded --split train

Writes OUT/traces/SPLIT.npz with its provenance. Stopped, the same command goes on. The quickstart
with the same --out uses what is found there.
"""

import dataclasses
from pathlib import Path

import tyro
from rich.console import Console

from experiments import command
from experiments.command import PairFlags
from ltd_jax.config import CycleConfig
from ltd_jax.pipeline import stages
from ltd_jax.pipeline.questions import QuestionFlags, Split
from ltd_jax.presets import EMBEDDED_CYCLE


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to record."""

    out: Path = Path("runs/embedded")
    split: Split = "train"
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    cycle: CycleConfig = EMBEDDED_CYCLE


def main() -> None:
    config = tyro.cli(Config)
    command.writable(config.out)
    console = Console()
    trace = stages.trace_of(command.load_pair(config, config.cycle), config.split, config, console)
    texts, positions = len(trace.first), len(trace.remaining)
    console.print(f"{positions} positions of {texts} texts in {config.out}/traces.")


if __name__ == "__main__":
    command.run(main)
