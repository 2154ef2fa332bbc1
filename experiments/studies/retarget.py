"""Policies on other hardware: what moving them costs, and what training them again takes.

    python -m experiments.studies.retarget --out runs/embedded                 about 5 minutes on 2 cores
    python -m experiments.studies.retarget --out runs/embedded --tables a100-vicuna-13b-paper mine.json

Policies are trained for this device's table ("here") and every other one, and run under all: a
matrix of throughput over the best constant of the table run under, retrained on the diagonal. Also
constants moved in the same way, and observing policies: they see what things cost, learn on
synthetic tables in the range of all tables but one, and run under that one. Others found 0.69 to
0.74 where a policy moved to another GPU.
"""

import dataclasses
import time

import numpy as np
from rich.console import Console

from experiments import command
from experiments.report import beside, study_plots
from experiments.studies import retargeting, study
from experiments.studies.retargeting import Cell
from experiments.studies.study import StudyFlags
from ltd_jax.config import LearningConfig
from ltd_jax.files import UserError
from ltd_jax.presets import QUICK_LEARNING
from ltd_jax.replay import latency


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which tables."""

    tables: tuple[str, ...] = (
        latency.shipped_names()
    )  # shipped names or files, beside this device's
    observing: bool = True  # also train policies that see what things cost
    learning: LearningConfig = QUICK_LEARNING


def picture(cells: list[Cell], names: list[str]) -> bytes:
    """The matrix of policies, and below it what observing policies reach unseen."""
    ratio = {(each["made"], each["made_for"], each["run_on"]): each["ratio"] for each in cells}
    rows = [[ratio["policies", name, other] for other in names] for name in names]
    labels = list(names)
    if any(each["made"] == "observing" for each in cells):
        rows.append([ratio["observing", name, name] for name in names])
        labels.append("observing, unseen")
    title = "Throughput over the best constant"
    return study_plots.matrix(np.asarray(rows), labels, names, title, "run under", "trained for")


def main() -> None:
    config, started = study.parse(Config), time.monotonic()
    console = Console()
    if not config.tables:
        raise UserError("Moving policies needs another table; name one with --tables.")
    every = retargeting.grounds(study.stand(config, console), config.tables)
    names = list(every)
    cells = retargeting.moved(every, config, config.seeds, console) + retargeting.constants(every)
    if config.observing:
        cells += retargeting.observed(every, config, config.seeds, console)
    console.print(beside.moves(cells, names))
    here = every[retargeting.HERE]
    study.write(config, "retarget", here, cells, [], started, picture(cells, names))


if __name__ == "__main__":
    command.run(main)
