"""Pictures of the experiments on learning: curves, what policies choose, matrices of hardware."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.report import canvas, palette
from experiments.report.texts import percent

PLACES = ("shallow_narrow", "deep_narrow", "shallow_wide", "deep_wide")


def curves(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Figure 3: reward and validation throughput over decisions, a column of panels per stage.

    Args:
      rows: in order; stage, decisions, validation (over the best constant), low, high, reward.
    """
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    figure = canvas.empty(4.2, max(canvas.WIDTH, 2.4 * len(stages)))
    panels = figure.subplots(2, len(stages), sharex="col", sharey="row", squeeze=False)
    for column, stage in enumerate(stages):
        mine = [row for row in rows if row["stage"] == stage]
        above, below = panels[:, column]
        _band(above, mine, "validation", palette.METHODS["ltd"])
        above.axhline(1.0, color=palette.METHODS["best_constant"], linestyle="--", linewidth=1.5)
        _band(below, [row for row in mine if row["reward"] is not None], "reward", palette.OPTIMUM)
        canvas.tidy(above, x="", y="validation / best constant" if column == 0 else "")
        canvas.tidy(below, x="decisions (thousands)", y="reward" if column == 0 else "")
        canvas.subtitle(above, stage)
    canvas.headline(figure, "Reward and validation throughput while learning (Figure 3)")
    return canvas.encode(figure, "png")


def _band(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, colour: str) -> None:
    """The mean over seeds as a line, its interval as a band."""
    places = [row["decisions"] / 1e3 for row in rows]
    low, high = ([row[f"{name}_{end}"] for row in rows] for end in ("low", "high"))
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(places, [row[name] for row in rows], color=colour, linewidth=2)


def interaction(panels: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Figure 6: shares of cycles in four fields of levels and size.

    Args:
      panels: by title, two rows (few accepted, many accepted) with the shares of PLACES.
    """
    figure = canvas.empty(1.0 + 2.4 * len(panels), 6.4)
    grid = figure.subplots(len(panels), 2, squeeze=False)
    for line, (title, rows) in zip(grid, panels.items(), strict=True):
        for axes, row in zip(line, rows, strict=True):
            _fields(axes, np.asarray([row[place] for place in PLACES]).reshape(2, 2))
            canvas.subtitle(axes, f"{title}, {row['accepted']} accepted")
    canvas.headline(figure, "What the policies choose together (Figure 6)")
    return canvas.encode(figure, "png")


def _fields(axes: Axes, share_22: np.ndarray) -> None:
    """Narrow below, wide above; shallow left, deep right."""
    axes.imshow(share_22, cmap="Oranges", vmin=0, vmax=1, origin="lower", aspect="auto")
    for (row, column), share in np.ndenumerate(share_22):
        colour = "white" if share > 0.6 else palette.TEXT
        axes.text(column, row, percent(share, 0), ha="center", va="center", color=colour)
    canvas.tidy(axes, x="", y="")
    axes.grid(False)
    axes.set_xticks([0, 1], ["shallow", "deep"])
    axes.set_yticks([0, 1], ["narrow", "wide"])


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, x: str, y: str
) -> bytes:
    """Ratios around 1 as a heat map: below 1 red, above 1 blue."""
    figure = canvas.empty(1.6 + 0.5 * len(rows), max(canvas.WIDTH, 2.6 + 1.1 * len(columns)))
    axes = figure.subplots()
    reach = max(float(np.abs(values - 1).max()), 0.05)
    axes.imshow(values, cmap="RdBu", vmin=1 - reach, vmax=1 + reach, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if abs(value - 1) > 0.7 * reach else palette.TEXT
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour)
    canvas.tidy(axes, x=x, y=y)
    axes.grid(False)
    axes.set_xticks(range(len(columns)), columns, rotation=20, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    canvas.headline(figure, title)
    return canvas.encode(figure, "png")
