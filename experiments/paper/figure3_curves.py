"""Figure 3: reward and validation throughput while the policies learn.

    python -m experiments.paper.figure3_curves --out runs/embedded        about 4 minutes on 2 cores

Every phase of the paper's order: the mean reward per decision, and the throughput of the greedy
policy on the validation texts relative to the best constant setting. In the paper the reward goes
on rising while the validation falls after a while; so the best checkpoint is kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from experiments.report import plots
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.study import StudyFlags
from ltd_jax import flags
from ltd_jax.learning.loop import CurvePoint
from ltd_jax.workflow import Progress


def rows(ground: Ground, config: StudyFlags, progress: Progress) -> list[dict[str, Any]]:
    """A row per stage and update: means and 95 % intervals over seeds."""
    curves = [
        grounds.learn(ground, config.stages, seed, progress=progress).curves
        for seed in range(config.seeds)
    ]
    return [row(ground, points) for points in zip(*curves, strict=True)]


def row(ground: Ground, points: tuple[CurvePoint, ...]) -> dict[str, Any]:
    """All seeds at the same update of the same stage; no reward before the first update."""
    best = ground.best.tokens_per_second
    rewards = [point.reward for point in points if point.reward is not None]
    return {
        "stage": points[0].stage,
        "decisions": points[0].decisions,
        "seconds": float(np.mean([point.seconds for point in points])),
        **interval("reward", rewards),
        **interval("validation", [point.validation / best for point in points]),
    }


def interval(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Mean and interval over seeds by their names; None where there are no values."""
    ends = (name, f"{name}_low", f"{name}_high")
    numbers = scores.over_seeds(values) if values else (None, None, None)
    return dict(zip(ends, numbers, strict=True))


def show(ground: Ground, rows: Sequence[dict[str, Any]]) -> Table:
    """The validation of every stage."""
    table = Table(title="Validation over the best constant")
    for heading in ("stage", "at its start", "best", "at its end"):
        table.add_column(heading, justify="right")
    for stage in dict.fromkeys(row["stage"] for row in rows):
        ratio = [row["validation"] for row in rows if row["stage"] == stage]
        table.add_row(stage, *(f"{value:.3f}" for value in (ratio[0], max(ratio), ratio[-1])))
    return table


def main() -> None:
    config = study.parse(StudyFlags)
    study.run(config, "figure3_curves", rows, show, draw=plots.training_curves)


if __name__ == "__main__":
    flags.run(main)
