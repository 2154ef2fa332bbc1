"""Table 9: how much time the policies themselves take.

    python -m experiments.paper.table9_overhead --out runs/embedded          about 4 minutes on 2 cores

Milliseconds of each policy while one test text is decoded, the text's seconds, and the shares. A
decision's time is measured inside the compiled cycle (profile_latency); how many there are comes
from the policies' own choices. In the paper the policies take 1.2 to 1.4 % of the time.
"""

import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.report import paper
from experiments.report.paper import Overhead
from experiments.report.texts import percent
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.study import StudyFlags
from ltd_jax.policies import networks
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import simulate


def overhead(here: Ground, params: LearnedParams) -> Overhead:
    """Means over the test texts of one training."""
    learned = networks.learned(here.cycle, here.policy)
    found = simulate.list_cycles(here.test, here.cycle, learned, params)
    texts = len(here.test.first)
    depth = float(np.sum(found.levels) * here.table.depth_seconds) / texts
    size = len(found.levels) * here.table.size_seconds / texts
    cycles = float(simulate.totals_of(here.test, here.cycle, found).seconds.sum()) / texts
    total = cycles + depth + size
    model = here.origin["pair"][0]
    return Overhead(model, 1e3 * size, 1e3 * depth, total, size / total, depth / total)


def rows(here: Ground, config: StudyFlags, console: Console) -> list[dict[str, Any]]:
    """One row: means over seeds, with the interval of the whole share."""
    found = [
        overhead(here, grounds.learn(here, config, seed, console).params)
        for seed in range(config.seeds)
    ]
    means = Overhead(found[0].model, *np.mean([each[1:] for each in found], axis=0).tolist())
    share = scores.over_seeds([each.size_share + each.depth_share for each in found])
    return [means._asdict() | dict(zip(("share", "share_low", "share_high"), share, strict=True))]


def main() -> None:
    config, console, started = study.parse(StudyFlags), Console(), time.monotonic()
    here = study.stand(config, console)
    found = rows(here, config, console)
    shown = Table(title="The policies' own time, per text", caption=here.origin["device"])
    for heading in ("model", "size ms", "depth ms", "total s", "size", "depth"):
        shown.add_column(heading, justify="right")
    ours = Overhead(*[found[0][name] for name in Overhead._fields])
    for each in (ours, *paper.TABLE9):
        name = each.model if each is ours else f"paper, {each.model}"
        numbers = [f"{value:.2f}" for value in each[1:4]]
        shown.add_row(name, *numbers, percent(each.size_share, 2), percent(each.depth_share, 2))
    console.print(shown)
    papers = [each._asdict() for each in paper.TABLE9]
    study.write(config, "table9_overhead", here, found, papers, started)


if __name__ == "__main__":
    command.run(main)
