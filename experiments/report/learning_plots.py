"""Picture of ways of learning beside each other: validation throughput over seconds of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.report import canvas, palette

COLOURS = {
    "alternate": palette.METHODS["eagle3"],
    "joint": palette.PARTS["draft"],
    "exact": palette.METHODS["ltd"],
}
LOWEST = 0.8  # random policies are far below, and nothing is to be seen there
LINES: dict[str, Any] = {"paper": "--", "average": "-", "accepted": ":", "time": "-."}


def progress(curves: Sequence[Mapping[str, Any]]) -> bytes:
    """A panel per latency table, a line per way of learning and reward, 1 = the best constant.

    Args:
      curves: latency, learning, reward, seconds [points], validation [points] (the best so far,
        mean over seeds, over the best constant).
    """
    tables = list(dict.fromkeys(curve["latency"] for curve in curves))
    figure = canvas.empty(0.8 + 2.6 * len(tables))
    panels = figure.subplots(len(tables), 1, sharex=True, squeeze=False)[:, 0]
    for axes, table in zip(panels, tables, strict=True):
        axes.axhline(1.0, color=palette.METHODS["best_constant"], linewidth=1.2, linestyle=":")
        for curve in curves:
            if curve["latency"] == table:
                style = {"color": COLOURS[curve["learning"]], "linestyle": LINES[curve["reward"]]}
                axes.plot(curve["seconds"], curve["validation"], linewidth=1.8, **style)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=LOWEST)
        last = axes is panels[-1]
        canvas.tidy(axes, x="seconds of training" if last else "", y="over best constant")
        canvas.subtitle(axes, table)
    ways = list(dict.fromkeys((curve["learning"], curve["reward"]) for curve in curves))
    canvas.legend(
        figure,
        [
            Line2D([], [], color=COLOURS[way], linestyle=LINES[reward], label=f"{way}, {reward}")
            for way, reward in ways
        ],
        below=True,
        columns=3,
    )
    canvas.headline(figure, "Validation throughput while learning")
    return canvas.encode(figure, "png")


def best_so_far(rates: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over seeds of the best validation up to every point: [points]."""
    return np.mean([np.maximum.accumulate(rate) for rate in rates], axis=0)
