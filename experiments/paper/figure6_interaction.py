"""Figure 6: what the two policies choose together, at hard places and at easy ones.

    python -m experiments.paper.figure6_interaction --out runs/embedded   about 4 minutes on 2 cores

Shares of cycles with few or many levels and nodes, among the cycles that had few tokens accepted
and among the others; before the alternation (iter0) and after it (ltd). The borders are the
paper's, relative to the most that the cycle has: half of the levels, a quarter of the largest size
(6 of 12 levels, 60 of 240 nodes). In the paper the alternation moves hard places from "shallow and
narrow" to "shallow but wide".
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from experiments import output
from experiments.paper.table7_8_iterations import iterations
from experiments.report import paper, plots
from experiments.report.paper import PLACES
from experiments.report.words import percent
from experiments.studies import study
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.config import CycleConfig
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import CycleList


def rows(study: Study[StudyFlags]) -> list[Row]:
    """Policies and accepted tokens, the shares of PLACES; the cycles of all seeds together."""
    results, lines = study.learn(), []
    learned = {
        "iter0": [iterations(result)["iter0"] for result in results],
        "ltd": [result.policy for result in results],
    }
    for name, policies in learned.items():
        lists = [simulate.list_cycles(study.ground.test, policy) for policy in policies]
        cycles = CycleList(*(np.concatenate(parts) for parts in zip(*lists, strict=True)))
        entropies = {
            "levels_entropy": simulate.choice_entropy(cycles.levels),
            "sizes_entropy": simulate.choice_entropy(cycles.size_index),
        }
        for row in shares(study.ground.config, cycles):
            lines.append({"policies": name, **row, **entropies})
    return lines


def shares(config: CycleConfig, cycles: CycleList) -> list[Row]:
    """Among the cycles with few and with many accepted tokens; all 0 where there are none."""
    half = config.max_levels // 2
    is_deep, is_many = cycles.levels > half, cycles.accepted > half
    is_wide = np.asarray(config.sizes)[cycles.size_index] > config.sizes[-1] // 4
    place = 2 * is_wide.astype(int) + is_deep  # in the order of PLACES
    lines = []
    for name, mask in (("few", ~is_many), ("many", is_many)):
        count = np.bincount(place[mask], minlength=len(PLACES))
        share = (count / max(count.sum(), 1)).tolist()
        line = {"accepted": name, "cycles": int(mask.sum())}
        lines.append(line | dict(zip(PLACES, share, strict=True)))
    return lines


def panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Our rows and the paper's by their policies."""
    by_policies: dict[str, list[Row]] = {}
    for source, lines in (("", rows), ("paper, ", paper.FIGURE6)):
        for line in lines:
            by_policies.setdefault(source + line["policies"], []).append(line)
    return by_policies


def show(rows: Sequence[Row]) -> Table:
    """All shares."""
    places = [place.replace("_", " and ") for place in PLACES]
    lines = [
        (name, line["accepted"], *(percent(line[place], 0) for place in PLACES))
        for name, panel in panels(rows).items()
        for line in panel
    ]
    return output.table("Shares of cycles", ("policies", "accepted", *places), lines)


def draw(rows: Sequence[Row]) -> Figure:
    """The four fields, ours and the paper's."""
    return plots.interaction(panels(rows))


def main() -> None:
    config = study.parse(StudyFlags)
    study.run("figure6_interaction", config, rows, show, papers=paper.FIGURE6, draw=draw)


if __name__ == "__main__":
    flags.run(main)
