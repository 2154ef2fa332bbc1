"""Policies on other hardware: what moving them costs, and what training them again takes.

    python -m experiments.studies.retarget --out runs/embedded              about 5 minutes on 2 cores
    python -m experiments.studies.retarget --out runs/embedded --tables a100-vicuna-13b-paper mine.json

Policies are trained for this device's table ("here") and every other one, and run under all: a
matrix of throughput over the best constant of the table run under, retrained on the diagonal. Also
constants moved in the same way, and policies that see what things cost ("observing"): they learn on
synthetic tables in the range of all tables but one, and run under that one. Others found 0.69 to
0.74 where a policy moved to another GPU.

All numbers are of the test texts.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypedDict

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.report import plots, tables
from experiments.studies import cost_conditioned, domain_randomization, scores, study
from experiments.studies import ground as grounds
from experiments.studies.ground import Ground
from experiments.studies.study import StudyFlags
from ltd_jax import flags
from ltd_jax.config import LearningConfig
from ltd_jax.files import UserError
from ltd_jax.learning.loop import CurvePoint
from ltd_jax.presets import QUICK_LEARNING
from ltd_jax.replay import latency as latencies
from ltd_jax.workflow import Progress

HERE = "here"  # the name of the study's own table
SYNTHETIC = 64  # tables that a cost-conditioned policy learns on


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which tables."""

    tables: tuple[str, ...] = latencies.shipped_names()  # or files, beside this device's
    observing: bool = True  # also train policies that see what things cost
    learning: LearningConfig = QUICK_LEARNING


class Cell(TypedDict):
    """Something made for one table, under another one."""

    made: str  # "policies", "constant" or "observing"
    made_for: str  # a table's name; of "observing" the table that it did not see
    run_on: str
    ratio: float  # throughput over run_on's best constant, mean over seeds
    low: float
    high: float
    seconds: float | None  # of training, mean over seeds


def under_tables(ground: Ground, names: Sequence[str]) -> dict[str, Ground]:
    """The same texts under every table, by name; the ground's own comes first and only once."""
    by_table = {HERE: ground}
    for name in names:
        under = grounds.with_latency(ground, latencies.fit(latencies.find(name), ground.config))
        if under.origin["latency"] != ground.origin["latency"]:
            by_table[name] = under
    return by_table


def move_policies(by_table: Mapping[str, Ground], config: Config, progress: Progress) -> list[Cell]:
    """Policies of every table under every table; on the diagonal they are the retrained ones."""
    cells = []
    for name, ground in by_table.items():
        results = [
            grounds.train(ground, config.stages, seed, progress=progress)
            for seed in range(config.seeds)
        ]
        seconds = float(np.mean([training_seconds(result.curves) for result in results]))
        for other, target in by_table.items():
            rates = [
                scores.of_policy(target, result.policy).tokens_per_second for result in results
            ]
            cells.append(cell("policies", name, other, target, rates, seconds))
    return cells


def move_constants(by_table: Mapping[str, Ground]) -> list[Cell]:
    """The best constant setting of every table under every table."""
    cells = []
    for name, ground in by_table.items():
        for other, target in by_table.items():
            score = scores.of_constant(target, ground.best.levels, ground.best.size)
            cells.append(cell("constant", name, other, target, [score.tokens_per_second], None))
    return cells


def condition_on_costs(
    by_table: Mapping[str, Ground], config: Config, progress: Progress
) -> list[Cell]:
    """For every table a policy that learned from the others' range, and not from it."""
    cells = []
    for unseen, target in by_table.items():
        known = [ground.table for name, ground in by_table.items() if name != unseen]
        drawn = domain_randomization.draw_tables(known, target.config, SYNTHETIC, seed=0)
        fingerprints = [latencies.fingerprint(table) for table in known]
        cost = cost_conditioned.costs_of(target.table)
        rates, seconds = [], []
        for seed in range(config.seeds):
            learning = dataclasses.replace(config.learning, seed=seed)
            report = partial(progress, f"not {unseen}, seed {seed}")
            policy, curve = cost_conditioned.train(
                target.splits,
                drawn,
                target.widths,
                learning,
                folder=grounds.kept_at(target, config.stages, learning, "observing", *fingerprints),
                progress=lambda point, share, report=report: report(share),
            )
            folded = cost_conditioned.fold_costs(policy, cost)
            rates.append(scores.of_policy(target, folded).tokens_per_second)
            seconds.append(training_seconds(curve))
        mean = float(np.mean(seconds))
        cells.append(cell("observing", unseen, unseen, target, rates, mean))
    return cells


def training_seconds(curve: Sequence[CurvePoint]) -> float:
    """Seconds of all stages together."""
    last = {point.stage: point.seconds for point in curve}
    return sum(last.values())


def cell(
    made: str,
    made_for: str,
    run_on: str,
    target: Ground,
    rates: Sequence[float],
    seconds: float | None,
) -> Cell:
    """One cell from the tokens per second of all seeds under `target`, the ground of run_on."""
    best = scores.best_rate(target)
    ratio, low, high = scores.over_seeds([rate / best for rate in rates])
    return Cell(
        made=made,
        made_for=made_for,
        run_on=run_on,
        ratio=ratio,
        low=low,
        high=high,
        seconds=seconds,
    )


def draw(cells: Sequence[Cell], names: Sequence[str]) -> Figure:
    """The matrix of policies, and below it what cost-conditioned policies reach unseen."""
    ratio = {(cell["made"], cell["made_for"], cell["run_on"]): cell["ratio"] for cell in cells}
    rows = [[ratio["policies", name, other] for other in names] for name in names]
    labels = list(names)
    if any(cell["made"] == "observing" for cell in cells):
        rows.append([ratio["observing", name, name] for name in names])
        labels.append("observing, unseen")
    title = "Throughput over the best constant"
    return plots.matrix(np.asarray(rows), labels, names, title, "run under", "trained for")


def main() -> None:
    config, console, started = study.parse(Config), Console(), time.monotonic()
    if not config.tables:
        raise UserError("Moving policies needs another table; name one with `tables`.")
    with flags.progress_bars(console) as progress:
        ground = study.stand(config, progress)
        by_table = under_tables(ground, config.tables)
        cells = move_policies(by_table, config, progress) + move_constants(by_table)
        if config.observing:
            cells += condition_on_costs(by_table, config, progress)
    names = list(by_table)
    console.print(tables.moves(cells, names))
    study.write(config, "retarget", ground, cells, started=started, picture=draw(cells, names))


if __name__ == "__main__":
    flags.run(main)
