"""Figure 3: reward and validation throughput while the policies learn.

    python -m experiments.paper.figure3_curves --out runs/embedded           about 4 minutes on 2 cores

Every stage of the paper's schedule: the mean reward per decision, and the throughput of the greedy
policy on the validation texts relative to the best constant setting. In the paper the reward goes
on rising while the validation falls after a while; so the best checkpoint is kept.
"""

import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.report import study_plots
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.study import StudyFlags
from ltd_jax.learning.loop import Point


def rows(here: Ground, config: StudyFlags, console: Console) -> list[dict[str, Any]]:
    """A row per stage and update: means and 95 % intervals over seeds."""
    trained = [grounds.learn(here, config, seed, console) for seed in range(config.seeds)]
    lined_up = zip(*[learned.curves for learned in trained], strict=True)
    return [row_of(here, points) for points in lined_up]


def row_of(here: Ground, points: tuple[Point, ...]) -> dict[str, Any]:
    """All seeds at the same update of the same stage."""
    best = here.best.tokens_per_second
    numbers: dict[str, Any] = {"stage": points[0].stage, "decisions": points[0].decisions}
    numbers["seconds"] = float(np.mean([point.seconds for point in points]))
    found = {"validation": [point.validation / best for point in points]}
    rewards = [point.reward for point in points if point.reward is not None]
    numbers |= dict.fromkeys(("reward", "reward_low", "reward_high"))
    if rewards:
        found["reward"] = rewards
    for name, values in found.items():
        ends = (name, f"{name}_low", f"{name}_high")
        numbers |= dict(zip(ends, scores.over_seeds(values), strict=True))
    return numbers


def main() -> None:
    config, console, started = study.parse(StudyFlags), Console(), time.monotonic()
    here = study.stand(config, console)
    found = rows(here, config, console)
    shown = Table(title="Validation over the best constant")
    for heading in ("stage", "at its start", "best", "at its end"):
        shown.add_column(heading, justify="right")
    for stage in dict.fromkeys(row["stage"] for row in found):
        ratio = [row["validation"] for row in found if row["stage"] == stage]
        shown.add_row(stage, *(f"{value:.3f}" for value in (ratio[0], max(ratio), ratio[-1])))
    console.print(shown)
    picture = study_plots.curves(found)
    study.write(config, "figure3_curves", here, found, [], started, picture)


if __name__ == "__main__":
    command.run(main)
