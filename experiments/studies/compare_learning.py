"""Ways of learning beside each other: the paper's order, both policies jointly, exact gradients.

    python -m experiments.studies.compare_learning --json FILE        about 15 minutes on 2 cores

Each with the paper's reward and with the average reward, under every shipped latency table, all on
the test texts of one recording: throughput over the best constant, share of the way to the
clairvoyant optimum, decisions, seconds, and how much the choices vary (0 = a constant). Writes
FILE, and beside it a plot of validation throughput over seconds of training. Checkpoints and the
constant to beat are chosen on the validation texts. Stopped, the same command goes on with the next
row.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.report import plots
from experiments.studies import ground as grounds
from experiments.studies import scores, seeds, study
from experiments.studies.ground import Ground
from experiments.studies.seeds import TrainedSeeds
from experiments.studies.study import StudyFlags
from ltd_jax import flags
from ltd_jax.config import Algorithm, LearningConfig, Reward
from ltd_jax.files import UserError
from ltd_jax.policies.networks import Learned
from ltd_jax.presets import COMPARED_LEARNING
from ltd_jax.replay import latency as latencies
from ltd_jax.replay import optimum, simulate
from ltd_jax.workflow import Progress


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

    @property
    def folder(self) -> Path:
        return self.json.parent


class Row(TypedDict):
    """One way of learning under one latency table; the interval is Student's t over seeds, 95 %."""

    latency: str
    learning: str
    reward: str
    seeds: int
    over_best_constant: float
    low: float
    high: float
    share_of_gap: float  # of the way from the best constant to the clairvoyant optimum
    share_low: float
    share_high: float
    decisions: int
    seconds: float
    compile_seconds: float
    levels_entropy: float  # nats of how often each number of levels is chosen, mean over seeds
    sizes_entropy: float


def compare(config: Config, progress: Progress) -> tuple[Ground, list[Row], list[dict[str, Any]]]:
    """A row and a curve for every table, reward and way; those of a stopped command are kept."""
    if not config.tables:
        raise UserError("`tables` names no latency table; leave it out for all shipped ones.")
    ground = study.stand(dataclasses.replace(config, latency=config.tables[0]), progress)
    store = study.open_store(config, config.json.stem, ground)
    rows, curves = [], []
    for name in config.tables:
        table = latencies.fit(latencies.find(name), ground.config)
        under = grounds.with_latency(ground, table)
        for reward in config.rewards:
            for way in config.ways:
                learning = dataclasses.replace(config.learning, algorithm=way, reward=reward)
                make = functools.partial(learn, under, name, learning, config.seeds, progress)
                entry = f"{name} {latencies.fingerprint(table)} {reward} {way}"
                row, curve = store.value(entry, make)
                rows.append(row)
                curves.append(curve)
    return ground, rows, curves


def learn(
    ground: Ground, name: str, learning: LearningConfig, seed_count: int, progress: Progress
) -> tuple[Row, dict[str, Any]]:
    """The row of one way of learning under the table of that name, and the plot's line."""
    trained = seeds.train(ground, learning, seed_count, progress)
    curve = {"latency": name, "learning": learning.algorithm, "reward": learning.reward}
    rate = plots.best_so_far([one.rate for one in trained.curves])
    curve |= {
        "seconds": trained.curves[0].seconds.tolist(),
        "validation": (rate / ground.best.tokens_per_second).tolist(),
    }
    return row_of(ground, name, learning, trained), curve


def row_of(ground: Ground, name: str, learning: LearningConfig, trained: TrainedSeeds) -> Row:
    """The numbers of one way of learning under the table of that name."""
    by_seed = [score(ground, policy) for policy in trained.policies]
    ratio, low, high = scores.over_seeds([one.ratio for one in by_seed])
    share, share_low, share_high = scores.over_seeds([one.share for one in by_seed])
    return Row(
        latency=name,
        learning=learning.algorithm,
        reward=learning.reward,
        seeds=len(by_seed),
        over_best_constant=ratio,
        low=low,
        high=high,
        share_of_gap=share,
        share_low=share_low,
        share_high=share_high,
        decisions=round(trained.decisions),
        seconds=trained.seconds,
        compile_seconds=trained.compile_seconds,
        levels_entropy=float(np.mean([one.levels_entropy for one in by_seed])),
        sizes_entropy=float(np.mean([one.sizes_entropy for one in by_seed])),
    )


@dataclasses.dataclass(frozen=True)
class Score:
    """One seed's policies on the test texts."""

    ratio: float  # over the best constant
    share: float  # of the way from there to the clairvoyant optimum
    levels_entropy: float
    sizes_entropy: float


def score(ground: Ground, policy: Learned) -> Score:
    """Policies on the test texts."""
    rate = scores.of_policy(ground, policy).tokens_per_second
    constant, most = scores.best_rate(ground), optimum.clairvoyant(ground.test).tokens_per_second
    cycles = simulate.list_cycles(ground.test, policy)
    return Score(
        ratio=rate / constant,
        share=optimum.share_gained(rate, constant, most),
        levels_entropy=simulate.choice_entropy(cycles.levels),
        sizes_entropy=simulate.choice_entropy(cycles.size_index),
    )


def show(rows: Sequence[Row]) -> Table:
    """All rows."""
    table = Table(title="learning on replayed cycles, test texts")
    heads = ("over constant", "95 %", "of the gap", "seconds", "H levels", "H sizes")
    for heading in ("latency", "learning", "reward", *heads):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["latency"],
            row["learning"],
            row["reward"],
            f"{row['over_best_constant']:.3f}",
            f"{row['low']:.3f}–{row['high']:.3f}",
            f"{100 * row['share_of_gap']:.0f} %",
            f"{row['seconds']:.1f}",
            f"{row['levels_entropy']:.2f}",
            f"{row['sizes_entropy']:.2f}",
        )
    return table


def main() -> None:
    config, console, started = study.parse(Config), Console(), time.monotonic()
    with flags.progress_bars(console) as progress:
        ground, rows, curves = compare(config, progress)
    console.print(show(rows))
    picture = plots.learning_progress(curves)
    study.write(config, config.json.stem, ground, rows, started=started, picture=picture)


if __name__ == "__main__":
    flags.run(main)
