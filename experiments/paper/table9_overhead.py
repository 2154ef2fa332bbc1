"""Table 9: how much time the policies themselves take.

    python -m experiments.paper.table9_overhead --out runs/embedded       about 4 minutes on 2 cores

Milliseconds of each policy while one test text is decoded, the text's seconds, and the shares. A
decision's time is measured inside the compiled cycle (`ltd profile`); how many there are comes
from the policies' own choices. In the paper the policies take 1.2 to 1.4 % of the time.
"""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from experiments import output
from experiments.report import paper
from experiments.report.words import percent
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.policies.networks import Learned
from ltd_jax.replay import simulate


def overhead(ground: Ground, policy: Learned) -> dict[str, float]:
    """Means over the test texts of one training, with the names of the paper's rows."""
    totals = simulate.run(ground.test, policy, charge_decisions=False)
    depth = float(totals.levels.mean() * ground.table.depth_seconds)
    size = float(totals.cycles.mean() * ground.table.size_seconds)
    total = float(totals.seconds.mean()) + depth + size
    return {
        "size_milliseconds": 1e3 * size,
        "depth_milliseconds": 1e3 * depth,
        "total_seconds": total,
        "size_share": size / total,
        "depth_share": depth / total,
    }


def rows(study: Study[StudyFlags]) -> list[Row]:
    """One row: means over seeds, with the interval of the whole share."""
    by_seed = [overhead(study.ground, result.policy) for result in study.learn()]
    means = {name: float(np.mean([one[name] for one in by_seed])) for name in by_seed[0]}
    shares = [one["size_share"] + one["depth_share"] for one in by_seed]
    model = study.ground.origin["pair"][0]
    return [{"model": model} | means | scores.interval("share", shares)]


def show(rows: Sequence[Row]) -> Table:
    """Ours beside the paper's."""
    lines = [(row["model"], row) for row in rows]
    lines += [(f"paper, {row['model']}", row) for row in paper.TABLE9]
    return output.table(
        "The policies' own time, per text",
        ("model", "size ms", "depth ms", "total s", "size", "depth"),
        [
            (
                name,
                f"{line['size_milliseconds']:.2f}",
                f"{line['depth_milliseconds']:.2f}",
                f"{line['total_seconds']:.2f}",
                percent(line["size_share"], 2),
                percent(line["depth_share"], 2),
            )
            for name, line in lines
        ],
    )


def main() -> None:
    study.run("table9_overhead", study.parse(StudyFlags), rows, show, papers=paper.TABLE9)


if __name__ == "__main__":
    flags.run(main)
