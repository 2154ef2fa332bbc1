"""Ways of learning beside each other: the paper's order, both policies jointly, exact gradients.

    python -m experiments.studies.compare_learning --json FILE        about 15 minutes on 2 cores

Each with the paper's reward and with the renewal reward, under every shipped latency table, all on
the test texts of one recording: throughput over the best constant, share of the way to the
clairvoyant optimum, decisions, seconds, and how much the choices vary (0 = a constant). Writes
FILE, and beside it a plot of validation throughput over seconds of training. Stopped, the same
command goes on with the next row.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.report import learning_plots
from experiments.studies import comparing, retargeting, study
from experiments.studies.comparing import Row, Trained
from experiments.studies.ground import Ground
from experiments.studies.study import StudyFlags
from ltd_jax.config import Algorithm, LearningConfig, Reward
from ltd_jax.files import UserError
from ltd_jax.presets import COMPARED_LEARNING
from ltd_jax.replay import latency as latencies


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """What is compared."""

    json: Path = Path("compare_learning.json")
    results: tyro.conf.Suppress[Path | None] = None  # --json says where
    latency: tyro.conf.Suppress[str | None] = None  # --tables says which
    tables: tuple[str, ...] = latencies.shipped_names()  # shipped latency tables or files
    ways: tuple[Algorithm, ...] = ("alternate", "joint", "exact")
    rewards: tuple[Reward, ...] = ("paper", "average")
    learning: LearningConfig = COMPARED_LEARNING


def curve(here: Ground, found: Row, trained: Trained) -> dict[str, Any]:
    """The plot's line of one row."""
    rate = learning_plots.best_so_far([each.rate for each in trained.curves])
    return {
        **{name: found[name] for name in ("latency", "learning", "reward")},
        "seconds": trained.curves[0].seconds.tolist(),
        "validation": (rate / here.best.tokens_per_second).tolist(),
    }


def rows(config: Config, console: Console) -> tuple[Ground, list[Row], list[dict[str, Any]]]:
    """A row and a curve for every table, reward and way; those of a stopped command are kept."""
    if not config.tables:
        raise UserError("--tables names no latency table; leave it out for all shipped ones.")
    here = study.stand(dataclasses.replace(config, latency=config.tables[0]), console)
    kept = study.kept(config, config.json.stem, here)
    found, curves = [], []
    for name in config.tables:
        table = latencies.fit(latencies.find(name), here.cycle)
        under = retargeting.under(here, table)
        for reward in config.rewards:
            for way in config.ways:
                learning = dataclasses.replace(config.learning, learning=way, reward=reward)
                make = functools.partial(both, under, name, learning, config.seeds, console)
                row, line = kept.value(
                    f"{name} {latencies.fingerprint(table)} {reward} {way}", make
                )
                found.append(row)
                curves.append(line)
    return here, found, curves


def both(
    under: Ground, name: str, learning: LearningConfig, seeds: int, console: Console
) -> tuple[Row, dict[str, Any]]:
    """The row and the curve of one way under one table."""
    trained = comparing.train(under, learning, seeds, console)
    row = comparing.row(under, name, learning, trained)
    return row, curve(under, row, trained)


def terminal_table(found: list[Row]) -> Table:
    """All rows."""
    shown = Table(title="learning on replayed cycles, test texts")
    heads = ("over constant", "95 %", "of the gap", "seconds", "H levels", "H sizes")
    for heading in ("latency", "learning", "reward", *heads):
        shown.add_column(heading, justify="right")
    for row in found:
        shown.add_row(
            *(row["latency"], row["learning"], row["reward"], f"{row['over_best_constant']:.3f}"),
            *(f"{row['low']:.3f}–{row['high']:.3f}", f"{100 * row['share_of_gap']:.0f} %"),
            *(f"{row['seconds']:.1f}", f"{row['levels_entropy']:.2f}"),
            f"{row['sizes_entropy']:.2f}",
        )
    return shown


def main() -> None:
    config, console, started = study.parse(Config), Console(), time.monotonic()
    config = dataclasses.replace(config, results=config.json.parent)
    here, found, curves = rows(config, console)
    console.print(terminal_table(found))
    picture = learning_plots.progress(curves)
    study.write(config, config.json.stem, here, found, [], started, picture)


if __name__ == "__main__":
    command.run(main)
