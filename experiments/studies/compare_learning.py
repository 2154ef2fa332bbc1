"""Ways of learning beside each other: the paper's order, both policies jointly, exact gradients.

    python -m experiments.studies.compare_learning --json FILE           about 15 minutes on 2 cores

Each with the paper's reward and with the average reward, under every shipped latency table, all on
the test texts of one recording: throughput over the best constant, share of the way to the
clairvoyant optimum, decisions, seconds, and how much the choices vary (0 = a constant). Writes
FILE, and beside it a plot of validation throughput over seconds of training. Checkpoints and the
constant to beat are chosen on the validation texts. Stopped, the same command goes on with the next
row.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.table import Table

from experiments import output
from experiments.report import plots
from experiments.studies import ground as grounds
from experiments.studies import scores, seeds, study
from experiments.studies.ground import Ground
from experiments.studies.study import CURVE, Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.config import Algorithm, LearningConfig, Reward
from ltd_jax.files import UserError
from ltd_jax.presets import QUICK_LEARNING
from ltd_jax.replay import latency as latencies
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.latency import LatencyTable


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Tables, ways of learning and rewards to compare."""

    json: Path = Path("compare_learning.json")
    results: tyro.conf.Suppress[Path | None] = None  # --json says where
    latency: tyro.conf.Suppress[str | None] = None  # --tables says which
    tables: tuple[str, ...] = latencies.shipped_names()  # shipped latency tables or files
    ways: tuple[Algorithm, ...] = ("alternate", "joint", "exact")
    rewards: tuple[Reward, ...] = ("paper", "average")
    learning: LearningConfig = QUICK_LEARNING

    @property
    def folder(self) -> Path:
        """Where the other files go."""
        return self.json.parent


def compare(study: Study[Config]) -> list[Row]:
    """A row for every table, reward and way; those of a stopped command are kept."""
    config, store, rows = study.config, study.open_store(study.config.json.stem), list[Row]()
    for name in config.tables:
        ground = grounds.with_latency(study.ground, LatencyTable.find(name))
        for reward in config.rewards:
            for way in config.ways:
                learning = dataclasses.replace(config.learning, algorithm=way, reward=reward)
                make = partial(learn, study, ground, name, learning)
                rows.append(store.value(f"{way} {reward} {name} {ground.origin['latency']}", make))
    return rows


def learn(study: Study[Config], ground: Ground, name: str, learning: LearningConfig) -> Row:
    """One way of learning under the table of that name: all seeds' policies on the test texts.

    latency, learning, reward and seeds; over_best_constant with low and high; share_of_gap, of the
    way from there to the clairvoyant optimum, with share_low and share_high; decisions, seconds and
    compile_seconds of one seed; levels_entropy and sizes_entropy, nats of how often each is chosen,
    means over seeds; and the plot's line.
    """
    trained = seeds.train(ground, learning, study.config.seeds, study.progress)
    constant, most = scores.best_rate(ground), optimum.clairvoyant(ground.test).tokens_per_second
    rates = [scores.of_policy(ground, one).tokens_per_second for one in trained.policies]
    gained = [optimum.share_gained(rate, constant, most) for rate in rates]
    cycles = [simulate.list_cycles(ground.test, one) for one in trained.policies]
    entropy = lambda choices: float(np.mean([simulate.choice_entropy(one) for one in choices]))
    validation = plots.best_so_far(list(trained.rates)) / ground.best.tokens_per_second
    return {
        "latency": name,
        "learning": learning.algorithm,
        "reward": learning.reward,
        "seeds": len(rates),
        **scores.interval("over_best_constant", [rate / constant for rate in rates], ""),
        **scores.interval("share_of_gap", gained, "share_"),
        "decisions": round(trained.decisions),
        "seconds": trained.seconds,
        "compile_seconds": trained.compile_seconds,
        "levels_entropy": entropy(one.levels for one in cycles),
        "sizes_entropy": entropy(one.size_index for one in cycles),
        CURVE: {"seconds": trained.times.tolist(), "validation": validation.tolist()},
    }


def show(rows: Sequence[Row]) -> Table:
    """All rows."""
    heads = ("over constant", "95 %", "of the gap", "seconds", "H levels", "H sizes")
    lines = [
        (
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
        for row in rows
    ]
    title = "learning on replayed cycles, test texts"
    return output.table(title, ("latency", "learning", "reward", *heads), lines)


def draw(rows: Sequence[Row]) -> Figure:
    """Validation throughput over seconds of training."""
    return plots.learning_progress([row | row[CURVE] for row in rows])


def main() -> None:
    config = study.parse(Config)
    if not config.tables:
        raise UserError("`tables` names no latency table; leave it out for all shipped ones.")
    config = dataclasses.replace(config, latency=config.tables[0])
    study.run(config.json.stem, config, compare, show, draw=draw)


if __name__ == "__main__":
    flags.run(main)
