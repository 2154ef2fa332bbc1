"""Train the classifiers of Disco, SpecDec++ and C2T, and calibrate the draft, from recorded trees.

    python -m experiments.train_classifiers --out runs/embedded     about 2 minutes on 2 CPU cores

Records the train and validation splits with the draft's outputs (OUT/traces/*-hidden.npz) where
they are not there yet, and writes OUT/classifiers: right for this pair, on any device. Prints how
well each tells yes from no on the validation split, where 0.5 is chance.
"""

import dataclasses
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.command import PairFlags
from ltd_jax import workflow
from ltd_jax.baselines.classifiers import SavedHeads
from ltd_jax.config import CycleConfig
from ltd_jax.presets import EMBEDDED_CYCLE
from ltd_jax.workflow import QuestionFlags


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to record and where to."""

    out: Path = Path("runs/embedded")
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags(prompts=12)
    cycle: CycleConfig = EMBEDDED_CYCLE
    training_seed: int = 0


def terminal_table(trained: SavedHeads) -> Table:
    """A row per classifier."""
    before, after = (trained.provenance["calibration_error"][key] for key in ("before", "after"))
    powers = ", ".join(f"{power:.2f}" for power in trained.parts.power)
    shown = Table(
        title="classifiers on the validation split",
        caption=f"calibration error of the draft {before:.3f}, with powers {powers} {after:.3f}",
    )
    for heading in ("classifier", "AUC", "balanced accuracy", "examples", "share of yes"):
        shown.add_column(heading, justify="left" if heading == "classifier" else "right")
    for name, row in trained.provenance["quality"].items():
        shown.add_row(
            name,
            f"{row['auc']:.3f}",
            f"{row['balanced_accuracy']:.3f}",
            f"{row['examples']:,}",
            f"{100 * row['positives']:.1f} %",
        )
    return shown


def main() -> None:
    config = command.parse(lambda preset: Config(cycle=preset.cycle))
    command.writable(config.out)
    console = Console()
    pair = command.load_pair(config, config.cycle)
    trained = workflow.train_classifiers(
        pair, config, config.out / "classifiers", config.training_seed, console
    )
    console.print(terminal_table(trained))


if __name__ == "__main__":
    command.run(main)
