"""Policies on other hardware: what moving them costs, and what training them again takes.

    python -m experiments.retarget --out runs/embedded                 about 5 minutes on 2 cores
    python -m experiments.retarget --out runs/embedded --tables a100-vicuna-13b-paper mine.json

Policies are trained for this device's table ("here") and for every other one, and run under all of
them: a matrix of throughput over the best constant of the table they run under, retrained on the
diagonal. Also the constants moved in the same way, and an observing policy: it sees what things
cost, learns on synthetic tables in the range of all tables but one, and runs under that one.
Others found 0.69 to 0.74 where a policy moved to another GPU.
"""

import dataclasses
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import command, study
from experiments.study import StudyFlags
from ltd_jax.config import LearningConfig
from ltd_jax.pipeline import retarget
from ltd_jax.pipeline.retarget import Cell
from ltd_jax.presets import RETARGET_LEARNING
from ltd_jax.replay import shipped
from ltd_jax.report import study_plots


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which tables."""

    tables: tuple[str, ...] = shipped.names()  # shipped names or files, beside this device's
    observing: bool = True  # also train policies that see what things cost
    learning: LearningConfig = RETARGET_LEARNING


def terminal_table(cells: list[Cell], names: list[str]) -> Table:
    """A row for everything made, a column per table."""
    shown = Table(title="throughput over the best constant of the table run under")
    for heading in ("made for", *names, "seconds"):
        shown.add_column(heading, justify="right")
    for made in dict.fromkeys((each["made"], each["made_for"]) for each in cells):
        mine = {each["run_on"]: each for each in cells if (each["made"], each["made_for"]) == made}
        ratios = [f"{mine[name]['ratio']:.3f}" if name in mine else "" for name in names]
        seconds = next(iter(mine.values()))["seconds"]
        label = f"{made[0]}, not {made[1]}" if made[0] == "observing" else f"{made[0]}, {made[1]}"
        shown.add_row(label, *ratios, "" if seconds is None else f"{seconds:.0f}")
    return shown


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
    every = retarget.grounds(study.stand(config, console), config.tables)
    names = list(every)
    cells = retarget.moved(every, config, config.seeds, console) + retarget.constants(every)
    if config.observing:
        cells += retarget.observed(every, config, config.seeds, console)
    console.print(terminal_table(cells, names))
    here = every[retarget.HERE]
    study.write(config, "retarget", here, cells, [], started, picture(cells, names))


if __name__ == "__main__":
    command.run(main)
