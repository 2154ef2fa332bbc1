"""Policies on other hardware: what moving them costs, and what training them again takes.

    python -m experiments.studies.retarget --out runs/embedded            about 5 minutes on 2 cores
    python -m experiments.studies.retarget --tables a100-vicuna-13b-paper mine.json

Policies are trained for this device's table ("here") and every other one, and run under all: a
matrix of throughput over the best constant of the table run under, retrained on the diagonal. Also
constants moved in the same way, and policies that see what things cost ("observing"): they learn on
synthetic tables in the range of all tables but one, and run under that one. Others found 0.69 to
0.74 where a policy moved to another GPU. All numbers are of the test texts.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from experiments.report import plots, tables
from experiments.studies import cost_conditioned, domain_randomization, scores, seeds, study
from experiments.studies import ground as grounds
from experiments.studies.ground import Ground
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.config import LearningConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import Policy
from ltd_jax.presets import QUICK_LEARNING
from ltd_jax.replay import latency as latencies

NAME = "retarget"
HERE = "here"  # the name of the study's own table
SYNTHETIC = 64  # tables that a cost-conditioned policy learns on


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which tables."""

    tables: tuple[str, ...] = latencies.shipped_names()  # or files, beside this device's
    observing: bool = True  # also train policies that see what things cost
    learning: LearningConfig = QUICK_LEARNING


def cell(
    made: str,
    made_for: str,
    run_on: str,
    target: Ground,
    policies: Sequence[Policy],
    seconds: float | None,
) -> Row:
    """All seeds' policies under one table: ratio over its best constant, with low and high.

    Args:
      made: "policies", "constant" or "observing".
      made_for: a table's name; of "observing" the table that it did not see.
      run_on: the name of `target`'s table.
      seconds: of training, mean over seeds.
    """
    best = scores.best_rate(target)
    ratios = [scores.of_policy(target, policy).tokens_per_second / best for policy in policies]
    names = {"made": made, "made_for": made_for, "run_on": run_on}
    return names | scores.interval("ratio", ratios, "") | {"seconds": seconds}


def move_policies(study: Study[Config], by_table: Mapping[str, Ground], made_for: str) -> list[Row]:
    """Policies of one table under every table; under their own they are the retrained ones."""
    config, ground = study.config, by_table[made_for]
    trained = seeds.train(ground, config.learning, config.seeds, study.progress)
    return [
        cell("policies", made_for, run_on, target, trained.policies, trained.seconds)
        for run_on, target in by_table.items()
    ]


def move_constant(study: Study[Config], by_table: Mapping[str, Ground], made_for: str) -> list[Row]:
    """The best constant setting of one table under every table."""
    policies = [by_table[made_for].best.policy]
    return [
        cell("constant", made_for, run_on, target, policies, None)
        for run_on, target in by_table.items()
    ]


def condition_on_costs(
    study: Study[Config], by_table: Mapping[str, Ground], unseen: str
) -> list[Row]:
    """Policies that see costs under one table; they learned from the others' range, not from it."""
    config, target = study.config, by_table[unseen]
    known = [ground.table for name, ground in by_table.items() if name != unseen]
    drawn = domain_randomization.draw_tables(known, target.config, SYNTHETIC, seed=0)
    trained = cost_conditioned.train(
        target.splits, drawn, target.widths, config.learning, config.seeds
    )
    cost = cost_conditioned.costs_of(target.table)
    policies = [cost_conditioned.fold_costs(policy, cost) for policy in trained.policies]
    return [cell("observing", unseen, unseen, target, policies, trained.seconds)]


KINDS = {"policies": move_policies, "constant": move_constant, "observing": condition_on_costs}


def rows(study: Study[Config]) -> list[Row]:
    """All cells; those that a stopped command left are not made again."""
    by_table = {HERE: study.ground, **grounds.under_tables(study.ground, study.config.tables)}
    store, cells = study.open_store(NAME), list[Row]()
    fingerprints = [ground.origin["latency"] for ground in by_table.values()]
    for kind, make in KINDS.items():
        if kind == "observing" and not study.config.observing:
            continue
        for place, name in enumerate(by_table, 1):
            entry = f"{kind} {name} {fingerprints}"
            cells += store.value(entry, partial(make, study, by_table, name))
            study.progress(kind, place / len(by_table))
    return cells


def show(cells: Sequence[Row]) -> Table:
    """All cells."""
    return tables.moves(cells, table_names(cells))


def table_names(cells: Sequence[Row]) -> list[str]:
    """The tables that policies ran on, in order."""
    return list(dict.fromkeys(cell["run_on"] for cell in cells))


def draw(cells: Sequence[Row]) -> Figure:
    """The matrix of policies, and below it what cost-conditioned policies reach unseen."""
    names = table_names(cells)
    ratio = {(cell["made"], cell["made_for"], cell["run_on"]): cell["ratio"] for cell in cells}
    matrix = [[ratio["policies", name, other] for other in names] for name in names]
    labels = list(names)
    if any(cell["made"] == "observing" for cell in cells):
        matrix.append([ratio["observing", name, name] for name in names])
        labels.append("observing, unseen")
    title = "Throughput over the best constant"
    return plots.matrix(np.asarray(matrix), labels, names, title, "run under", "trained for")


def main() -> None:
    config = study.parse(Config)
    if not config.tables:
        raise UserError("Moving policies needs another table; name one with `tables`.")
    study.run(NAME, config, rows, show, draw=draw)


if __name__ == "__main__":
    flags.run(main)
