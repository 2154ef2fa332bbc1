"""The look that all plots share, on matplotlib's object interface: no global figure, no display."""

import io
from collections.abc import Sequence
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from experiments.report import palette

WIDTH = 6.6  # inches; with these font sizes still readable at the width of a phone
DPI = 180
PAD = 0.09  # inches around everything
LARGE, MEDIUM, SMALL = 13, 11, 9


def empty(height: float, width: float = WIDTH) -> Figure:
    """A white figure of the given inches that lays itself out."""
    layout = ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD)
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)


def headline(figure: Figure, text: str) -> None:
    """A title at the left edge."""
    figure.suptitle(text, x=0.015, ha="left", fontsize=LARGE, weight="bold", color=palette.TEXT)


def subtitle(axes: Axes, text: str) -> None:
    """A panel's name at its left edge."""
    axes.set_title(text, loc="left", fontsize=MEDIUM, color=palette.TEXT)


def legend(
    figure: Figure, handles: Sequence[Artist], *, below: bool = False, columns: int = 0
) -> None:
    """Names in rows of `columns`, 0 = in one row, above everything else or below it.

    Above, a headline would be in their way.
    """
    figure.legend(
        handles=list(handles),
        loc="outside lower left" if below else "outside upper left",
        ncols=columns or len(handles),
        frameon=False,
        fontsize=MEDIUM,
        handlelength=1.2,
        columnspacing=1.4,
    )


def tidy(axes: Axes, *, x: str, y: str, grid: Literal["x", "y"] = "y") -> None:
    """Labels with units, no box, faint grid lines behind what is drawn."""
    axes.set_xlabel(x, fontsize=MEDIUM, color=palette.TEXT)
    axes.set_ylabel(y, fontsize=MEDIUM, color=palette.TEXT)
    axes.tick_params(labelsize=SMALL + 1, length=0, colors=palette.TEXT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(palette.FAINT)
    axes.set_axisbelow(True)
    axes.grid(True, axis=grid, color=palette.GRID, linewidth=0.8)


def encode(figure: Figure, kind: str) -> bytes:
    """The bytes of a file of the kind "png" or "svg"."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()
