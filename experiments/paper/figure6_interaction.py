"""Figure 6: what the two policies choose together, at hard places and at easy ones.

    python -m experiments.paper.figure6_interaction --out runs/embedded      about 4 minutes on 2 cores

Shares of cycles with few or many levels and nodes, among the cycles that had few tokens accepted
and among the others; before the alternation (iter0) and after it (ltd). The borders are the
paper's, relative to the most that the cycle has: half of the levels, a quarter of the largest size.
In the paper the alternation moves hard places from "shallow and narrow" to "shallow but wide".
"""

import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.paper.table7_8_iterations import iterations
from experiments.report import paper, study_plots
from experiments.report.study_plots import PLACES
from experiments.report.texts import percent
from experiments.studies import ground as grounds
from experiments.studies import interaction, study
from experiments.studies.ground import Ground
from experiments.studies.study import StudyFlags
from ltd_jax.policies import networks
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import CycleList


def rows(here: Ground, config: StudyFlags, console: Console) -> list[dict[str, Any]]:
    """Policies and accepted tokens, the shares of PLACES; the cycles of all seeds together."""
    learned = networks.learned(here.cycle, here.policy)
    trained = [grounds.learn(here, config, seed, console) for seed in range(config.seeds)]
    found = []
    for policies in ("iter0", "ltd"):
        params = [
            iterations(each)["iter0"] if policies == "iter0" else each.params for each in trained
        ]
        walks = [simulate.list_cycles(here.test, here.cycle, learned, each) for each in params]
        every = CycleList(*(np.concatenate(parts) for parts in zip(*walks, strict=True)))
        numbers = {"levels_entropy": simulate.choice_entropy(every.levels)}
        numbers["sizes_entropy"] = simulate.choice_entropy(every.size)
        found += [
            {"policies": policies, **row, **numbers}
            for row in interaction.shares(here.cycle, every)
        ]
    return found


def main() -> None:
    config, console, started = study.parse(StudyFlags), Console(), time.monotonic()
    here = study.stand(config, console)
    found = rows(here, config, console)
    papers = [each._asdict() for each in paper.FIGURE6]
    shown = Table(title="Shares of cycles")
    for heading in ("policies", "accepted", *(place.replace("_", " and ") for place in PLACES)):
        shown.add_column(heading, justify="right")
    panels: dict[str, list[dict[str, Any]]] = {}
    for source, rows_of in (("", found), ("paper, ", papers)):
        for row in rows_of:
            name = source + row["policies"]
            panels.setdefault(name, []).append(row)
            shown.add_row(name, row["accepted"], *(percent(row[place], 0) for place in PLACES))
    console.print(shown)
    picture = study_plots.interaction(panels)
    study.write(config, "figure6_interaction", here, found, papers, started, picture)


if __name__ == "__main__":
    command.run(main)
