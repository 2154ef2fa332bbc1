"""Line plots of the experiments: costs of a cycle's parts, acceptance by levels and size."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import canvas, palette

Row = Mapping[str, Any]


def part_costs(rows: Sequence[Row], paper: Sequence[Row], model: str) -> bytes:
    """Figure 2 (left): relative to one pass and to the smallest tree, ours and the paper's."""
    figure = canvas.empty(3.4)
    panels = figure.subplots(1, 2)
    for axes, part, x in zip(
        panels,
        ("draft", "verify"),
        ("levels (draft passes)", "size, share of the largest"),
        strict=True,
    ):
        for lists, style, name in ((rows, "o-", "here"), (paper, "s--", f"paper, {model}")):
            mine = [row for row in lists if row["part"] == part and row["at"] > 0]
            at = np.asarray([row["at"] for row in mine], float)
            if part == "verify":
                at /= at.max()
            cost = np.asarray([row["milliseconds"] for row in mine])
            shade = palette.PARTS[part] if style == "o-" else palette.FAINT
            axes.plot(at, cost / cost[0], style, color=shade, label=name, markersize=4)
        canvas.tidy(axes, x=x, y="time, first = 1")
        canvas.subtitle(axes, part)
        axes.legend(frameon=False, fontsize=canvas.SMALL)
    return canvas.encode(figure, "png")


def acceptance(committed_DV: np.ndarray, sizes: Sequence[int]) -> bytes:
    """Figure 5: committed tokens per cycle by levels, one line per size."""
    figure = canvas.empty(3.8)
    axes = figure.subplots()
    shown = [index for index, size in enumerate(sizes) if size > 0]
    for place, index in enumerate(shown):
        alpha = 0.25 + 0.75 * (place + 1) / len(shown)
        levels = range(1, len(committed_DV) + 1)
        name = f"size {sizes[index]}"
        axes.plot(levels, committed_DV[:, index], "o-", color="#0072b2", alpha=alpha, label=name)
    canvas.tidy(axes, x="levels (draft passes)", y="committed tokens per cycle")
    axes.legend(frameon=False, fontsize=canvas.SMALL, ncols=2)
    return canvas.encode(figure, "png")


def domains(rows: Sequence[Row]) -> bytes:
    """Figure 7: LTD over EAGLE-3 by domain, sorted."""
    mine = sorted(rows, key=lambda row: row["ltd_over_eagle3"])
    figure = canvas.empty(1.0 + 0.22 * len(mine))
    axes = figure.subplots()
    for place, row in enumerate(mine):
        better = row["ltd_over_eagle3"] >= 1
        shade = palette.METHODS["ltd"] if better else palette.METHODS["eagle3"]
        axes.barh(place, row["ltd_over_eagle3"] - 1, 0.72, left=1, color=shade)
    axes.axvline(1, color=palette.TEXT, linewidth=1)
    axes.set_yticks(range(len(mine)), [f"{row['domain']} ({row['texts']})" for row in mine])
    canvas.tidy(axes, x="tokens per second of LTD over EAGLE-3's constants", y="", grid="x")
    return canvas.encode(figure, "png")
