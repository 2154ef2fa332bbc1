"""Table 9: how much time the policies themselves take.

    python -m experiments.paper.table9_overhead --out runs/embedded       about 4 minutes on 2 cores

Milliseconds of each policy while one test text is decoded, the text's seconds, and the shares. A
decision's time is measured inside the compiled cycle (`ltd profile`); how many there are comes
from the policies' own choices. In the paper the policies take 1.2 to 1.4 % of the time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from experiments.report import paper
from experiments.report.paper import Overhead
from experiments.report.words import percent
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.study import StudyFlags
from ltd_jax import flags
from ltd_jax.policies.networks import Learned
from ltd_jax.replay import simulate
from ltd_jax.workflow import Progress


def overhead(ground: Ground, policy: Learned) -> Overhead:
    """Means over the test texts of one training."""
    totals = simulate.run(ground.test, policy, charge_decisions=False)
    texts = len(ground.test.text_start)
    depth = float(totals.levels.sum() * ground.table.depth_seconds) / texts
    size = float(totals.cycles.sum() * ground.table.size_seconds) / texts
    total = float(totals.seconds.sum()) / texts + depth + size
    model = ground.origin["pair"][0]
    return Overhead(model, 1e3 * size, 1e3 * depth, total, size / total, depth / total)


def rows(ground: Ground, config: StudyFlags, progress: Progress) -> list[dict[str, Any]]:
    """One row: means over seeds, with the interval of the whole share."""
    of_seeds = [
        overhead(ground, grounds.learn(ground, config.stages, seed, progress=progress).policy)
        for seed in range(config.seeds)
    ]
    means = np.mean([one[1:] for one in of_seeds], axis=0).tolist()
    mean = Overhead(of_seeds[0].model, *means)
    share = scores.over_seeds([one.size_share + one.depth_share for one in of_seeds])
    return [mean._asdict() | dict(zip(("share", "share_low", "share_high"), share, strict=True))]


def show(ground: Ground, rows: Sequence[dict[str, Any]]) -> Table:
    """Ours beside the paper's."""
    table = Table(title="The policies' own time, per text", caption=ground.origin["device"])
    for heading in ("model", "size ms", "depth ms", "total s", "size", "depth"):
        table.add_column(heading, justify="right")
    ours = Overhead(*[rows[0][name] for name in Overhead._fields])
    for line in (ours, *paper.TABLE9):
        name = line.model if line is ours else f"paper, {line.model}"
        numbers = [f"{value:.2f}" for value in line[1:4]]
        table.add_row(name, *numbers, percent(line.size_share, 2), percent(line.depth_share, 2))
    return table


def main() -> None:
    config = study.parse(StudyFlags)
    papers = [line._asdict() for line in paper.TABLE9]
    study.run(config, "table9_overhead", rows, show, papers=papers)


if __name__ == "__main__":
    flags.run(main)
