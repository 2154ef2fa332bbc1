"""Record the trace of a split's prompts: full draft trees at every position of their greedy texts.

    python -m experiments.record_traces --out runs/embedded --split train

Writes OUT/traces/SPLIT.npz with its provenance. Stopped, the same command goes on. The quickstart
with the same --out uses what is found there. `--json` prints one object.
"""

import dataclasses
import json
from pathlib import Path

import tyro
from rich.console import Console

from experiments import command
from experiments.command import PairFlags
from ltd_jax import workflow
from ltd_jax.config import CycleConfig
from ltd_jax.presets import EMBEDDED_CYCLE
from ltd_jax.workflow import QuestionFlags, Split


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to record."""

    out: Path = Path("runs/embedded")
    split: Split = "train"
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    cycle: CycleConfig = EMBEDDED_CYCLE
    json: bool = False


def main() -> None:
    config = command.parse(lambda preset: Config(cycle=preset.cycle))
    command.writable(config.out)
    console = Console(stderr=config.json)
    pair = command.load_pair(config, config.cycle)
    trace = workflow.load_or_record(pair, config.split, config, console)
    found = {
        "trace": str(workflow.trace_path(config, config.split)),
        "texts": len(trace.first),
        "positions": len(trace.remaining),
        "provenance": trace.provenance,
    }
    if config.json:
        print(json.dumps(found))
    else:
        console.print("{positions} positions of {texts} texts in {trace}.".format(**found))


if __name__ == "__main__":
    command.run(main)
