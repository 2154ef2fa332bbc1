"""Plots over levels and size: committed tokens, time of a cycle, what LTD chooses."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.report import canvas, palette
from experiments.report.figures import Figures
from experiments.report.schema import Report, Setting

SHOWN_SHARE = 0.005  # of all cycles; rarer choices get a colour but no number


def committed(report: Report, figures: Figures) -> Figure | None:
    """Mean tokens per cycle of every constant setting, the best one framed."""
    if figures.committed is None:
        return None
    title = "Committed tokens per cycle"
    best = report["optimum"]["best_constant"]
    return _settings(figures.committed, figures.sizes, best, title, "Blues", 2)


def cycle_time(report: Report, figures: Figures) -> Figure | None:
    """Milliseconds per cycle of every constant setting, the best one framed."""
    if figures.cycle_seconds is None:
        return None
    milliseconds_DV = 1e3 * np.asarray(figures.cycle_seconds, float)
    digits = 1 if np.nanmax(milliseconds_DV) < 100 else 0
    title = "Time of a cycle (milliseconds)"
    best = report["optimum"]["best_constant"]
    return _settings(milliseconds_DV, figures.sizes, best, title, "Purples", digits)


def choices(report: Report, figures: Figures) -> Figure | None:
    """How often LTD takes every setting, at easy and at hard places; None without cycles."""
    places = {"easy places": figures.choices_easy, "hard places": figures.choices_hard}
    counted = {name: each for name, each in places.items() if each is not None and np.sum(each) > 0}
    if not counted:
        return None
    shares = [np.asarray(each, float) / np.sum(each) for each in counted.values()]
    figure = canvas.empty(0.7 + (0.75 + 0.29 * len(shares[0])) * len(shares))
    panels = figure.subplots(len(shares), 1, sharex=True, squeeze=False)[:, 0]
    span = (0.0, max(share_DV.max() for share_DV in shares))
    for axes, name, share_DV in zip(panels, counted, shares, strict=True):
        texts = np.where(share_DV >= SHOWN_SHARE, _texts(100 * share_DV, 0), "")
        _heat(axes, share_DV, figures.sizes, texts, "Oranges", span)
        canvas.subtitle(axes, f"{name} ({int(np.sum(counted[name])):,} cycles)")
        if axes is not panels[-1]:
            axes.set_xlabel("")
    canvas.headline(figure, "What LTD chooses (percent of cycles)")
    return figure


def _settings(
    values_DV: np.ndarray,
    sizes: tuple[int, ...],
    best: Setting,
    title: str,
    colours: str,
    digits: int,
) -> Figure:
    figure = canvas.empty(1.2 + 0.36 * len(values_DV))
    axes = figure.subplots()
    span = (float(np.nanmin(values_DV)), float(np.nanmax(values_DV)))
    _heat(axes, values_DV, sizes, _texts(values_DV, digits), colours, span)
    if best["size"] in sizes and 1 <= best["levels"] <= len(values_DV):
        corner = (sizes.index(best["size"]) - 0.5, best["levels"] - 1.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, linewidth=2.5, edgecolor=palette.TEXT))
    canvas.headline(figure, title)
    return figure


def _heat(
    axes: Axes,
    values_DV: np.ndarray,
    sizes: tuple[int, ...],
    texts: np.ndarray,
    colours: str,
    span: tuple[float, float],
) -> None:
    """Levels upwards, sizes to the right, one text per cell; nan stays white."""
    values_DV = np.ma.masked_invalid(np.asarray(values_DV, float))
    image = axes.imshow(
        values_DV, cmap=colours, vmin=span[0], vmax=span[1], aspect="auto", origin="lower"
    )
    canvas.tidy(axes, x="size (drafted nodes verified)", y="levels (draft passes)")
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_yticks(range(len(values_DV)), [str(row + 1) for row in range(len(values_DV))])
    fontsize = canvas.SMALL if len(sizes) <= 14 else 7
    for (row, column), value in np.ma.ndenumerate(values_DV):
        if not texts[row, column]:
            continue
        dark = _luminance(*matplotlib.colormaps[colours](image.norm(value))[:3]) < 0.5
        axes.text(
            column,
            row,
            texts[row, column],
            ha="center",
            va="center",
            fontsize=fontsize,
            color="white" if dark else palette.TEXT,
        )


def _texts(values: np.ndarray, digits: int) -> np.ndarray:
    return np.vectorize(lambda value: f"{value:.{digits}f}", otypes=[object])(values)


def _luminance(red: float, green: float, blue: float) -> float:
    return 0.299 * red + 0.587 * green + 0.114 * blue
