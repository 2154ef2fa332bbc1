"""Figure 3: reward and validation throughput while the policies learn.

    python -m experiments.paper.figure3_curves --out runs/embedded        about 4 minutes on 2 cores

Every phase of the paper's order: the mean reward per decision, and the throughput of the greedy
policy on the validation texts relative to the best constant setting. In the paper the reward goes
on rising while the validation falls after a while; so the best checkpoint is kept.
"""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from experiments import output
from experiments.report import plots
from experiments.studies import scores, study
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.learning.loop import CurvePoint


def rows(study: Study[StudyFlags]) -> list[Row]:
    """A row per stage and update: means and 95 % intervals over seeds."""
    curves = [result.curves for result in study.learn()]
    best = study.ground.best.tokens_per_second
    return [row(points, best) for points in zip(*curves, strict=True)]


def row(points: Sequence[CurvePoint], best: float) -> Row:
    """All seeds at the same update of the same stage; no reward before the first update."""
    rewards = [point.reward for point in points if point.reward is not None]
    none = dict.fromkeys(("reward", "reward_low", "reward_high"))
    return {
        "stage": points[0].stage,
        "decisions": points[0].decisions,
        "seconds": float(np.mean([point.seconds for point in points])),
        **(scores.interval("reward", rewards) if rewards else none),
        **scores.interval("validation", [point.validation / best for point in points]),
    }


def show(rows: Sequence[Row]) -> Table:
    """The validation of every stage."""
    stages: dict[str, list[float]] = {}
    for row in rows:
        stages.setdefault(row["stage"], []).append(row["validation"])
    lines = [
        (name, *(f"{ratio:.3f}" for ratio in (ratios[0], max(ratios), ratios[-1])))
        for name, ratios in stages.items()
    ]
    headings = ("stage", "at its start", "best", "at its end")
    return output.table("Validation over the best constant", headings, lines)


def main() -> None:
    config = study.parse(StudyFlags)
    study.run("figure3_curves", config, rows, show, draw=plots.training_curves)


if __name__ == "__main__":
    flags.run(main)
