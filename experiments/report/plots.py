"""The plots of a report. In: a checked report and `Figures`. Out: PNG pictures with captions."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.report import canvas, heatmaps, palette
from experiments.report.figures import Figures
from experiments.report.schema import METHODS, MethodRow, Report
from experiments.report.tables import rows_of, tasks_of
from experiments.report.texts import METHOD_NAMES, percent, rate, task_name, times
from ltd_jax.learning.loop import Point


class Picture(NamedTuple):
    """A plot as a file."""

    name: str  # of the PNG, without ending
    caption: str
    png: bytes


class Plot(NamedTuple):
    """How a picture is made; `draw` returns None where its parts are missing."""

    name: str
    caption: str
    draw: Callable[[Report, Figures], Figure | None]


def pictures(report: Report, figures: Figures) -> list[Picture]:
    """All plots that there are parts for, in the page's order."""
    drawn = [(plot, plot.draw(report, figures)) for plot in PLOTS]
    return [
        Picture(plot.name, plot.caption, canvas.encode(figure, "png"))
        for plot, figure in drawn
        if figure is not None
    ]


def throughput(report: Report, width: float = canvas.WIDTH) -> Figure:
    """Tokens per second by method and task; whiskers = 95 % interval of the speedup.

    Args:
      width: of the figure, inches.
    """
    figure = canvas.empty(4.0, width)
    axes = figure.subplots()
    tasks = tasks_of(report)
    bar = 0.84 / len(METHODS)
    for place, task in enumerate(tasks):
        for row in rows_of(report, task):
            offset = (METHODS.index(row["method"]) - (len(METHODS) - 1) / 2) * bar
            _bar(axes, place + offset, 0.92 * bar, row)
    canvas.tidy(axes, x="", y="tokens per second")
    axes.set_xticks(range(len(tasks)), [task_name(task) for task in tasks])
    axes.tick_params(axis="x", labelsize=canvas.MEDIUM)
    axes.margins(y=0.1)
    used = {row["method"] for row in report["methods"]}
    shown = [method for method in METHODS if method in used]
    canvas.legend(
        figure, [Patch(color=palette.METHODS[each], label=METHOD_NAMES[each]) for each in shown]
    )
    return figure


def _bar(axes: Axes, x: float, width: float, row: MethodRow) -> None:
    height, method = row["tokens_per_second"], row["method"]
    axes.bar(x, height, width, color=palette.METHODS[method])
    if method == "autoregressive":
        return
    low, high = (height * row[end] / row["speedup"] for end in ("speedup_low", "speedup_high"))
    axes.vlines(x, low, high, color=palette.TEXT, linewidth=1.2)
    if method == "ltd":
        axes.annotate(
            times(row["speedup"]),
            (x, max(height, high)),
            xytext=(4, 3),
            textcoords="offset points",
            ha="center",
            fontsize=canvas.SMALL,
            weight="bold",
            color=palette.METHODS["ltd"],
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )


def _part_times(report: Report, figures: Figures) -> Figure | None:
    draft, verify = figures.draft_seconds, figures.verify_seconds
    parts: list[tuple[str, str, Sequence[int], np.ndarray]] = []
    if draft is not None:
        parts.append(("draft", "levels (draft passes)", range(1, len(draft) + 1), draft))
    if verify is not None:
        parts.append(("verify", "size (drafted nodes verified)", figures.sizes, verify))
    if not parts:
        return None
    figure = canvas.empty(3.2)
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (part, x, places, seconds) in zip(panels, parts, strict=True):
        milliseconds = 1e3 * np.asarray(seconds)
        axes.plot(places, milliseconds, "o-", color=palette.PARTS[part], linewidth=2, markersize=5)
        canvas.tidy(axes, x=x, y="milliseconds" if axes is panels[0] else "")
        canvas.subtitle(axes, part)
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylim(bottom=0)
    canvas.headline(figure, "Time of the two parts of a cycle")
    return figure


def _curves(report: Report, figures: Figures) -> Figure | None:
    stages = [
        (name, list(points))
        for name, points in itertools.groupby(figures.curves, key=lambda point: point.stage)
    ]
    if not stages:
        return None
    columns = min(2, len(stages))
    lines = -(-len(stages) // columns)
    figure = canvas.empty(1.0 + 1.9 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, points) in zip(panels, stages, strict=False):
        _curve(axes, name, points, figures)
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    for axes in panels[: len(stages) : columns]:
        axes.set_ylabel("tokens per second", fontsize=canvas.MEDIUM)
    for axes in panels[max(len(stages) - columns, 0) : len(stages)]:
        axes.set_xlabel("decisions (thousands)", fontsize=canvas.MEDIUM)
    canvas.legend(figure, panels[0].lines)
    return figure


def _curve(axes: Axes, name: str, points: list[Point], figures: Figures) -> None:
    axes.plot(
        [point.decisions / 1e3 for point in points],
        [point.validation for point in points],
        color=palette.METHODS["ltd"],
        linewidth=2,
        marker="o" if len(points) < 30 else None,
        markersize=3.5,
        label="learned policy, greedy",
    )
    if figures.validation_constant is not None:
        colour = palette.METHODS["best_constant"]
        level = figures.validation_constant
        axes.axhline(level, color=colour, linewidth=2, linestyle="--", label="best constant")
    if figures.validation_optimum is not None:
        level = figures.validation_optimum
        axes.axhline(level, color=palette.OPTIMUM, linewidth=2, linestyle=":", label="optimum")
    canvas.tidy(axes, x="", y="")
    canvas.subtitle(axes, f"{name} ({points[-1].seconds:,.0f} s)")


def _optimum(report: Report, figures: Figures) -> Figure:
    constant = report["optimum"]["best_constant"]["tokens_per_second"]
    bound = report["optimum"]["dynamic_programme_tokens_per_second"]
    share = report["optimum"]["share_gained_by_ltd"]
    bars = [
        ("Optimum", bound, palette.OPTIMUM),
        ("LTD", constant + share * (bound - constant), palette.METHODS["ltd"]),
        ("Best constant", constant, palette.METHODS["best_constant"]),
    ]
    figure = canvas.empty(2.6)
    axes = figure.subplots()
    for place, (_, value, colour) in enumerate(bars):
        axes.barh(place, value, 0.7, color=colour)
        axes.annotate(
            rate(value),
            (value, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=canvas.MEDIUM,
            color=palette.TEXT,
        )
    canvas.tidy(axes, x="tokens per second in the replay", y="", grid="x")
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    axes.tick_params(axis="y", labelsize=canvas.MEDIUM)
    axes.margins(x=0.12)
    canvas.headline(figure, f"Share of the optimum's gain that LTD reaches: {percent(share, 0)}")
    return figure


PLOTS = (
    Plot(
        "throughput",
        "Tokens per second by method and task. Whiskers: 95 % interval of the speedup over plain "
        "decoding; the number above LTD's bar is that speedup.",
        lambda report, figures: throughput(report),
    ),
    Plot(
        "committed",
        "Mean tokens that a cycle commits with every constant setting, on test texts. The frame "
        "marks the best constant setting.",
        heatmaps.committed,
    ),
    Plot(
        "cycle_time",
        "Time of a whole cycle with every constant setting. The frame marks the best constant "
        "setting.",
        heatmaps.cycle_time,
    ),
    Plot(
        "part_times",
        "Time of the draft passes by levels and of the target's pass by size.",
        _part_times,
    ),
    Plot(
        "learning",
        "Throughput on the validation texts, stage by stage, with the time that each stage took. "
        "While one policy learns alone, the other choice is fixed.",
        _curves,
    ),
    Plot(
        "choices",
        "What LTD chooses. Easy places are those where the most that any setting gets accepted is "
        "above the median. A policy that adapts has more than one dark cell.",
        heatmaps.choices,
    ),
    Plot(
        "optimum",
        "What there is to gain: the optimum knows the text and takes the fastest choice in every "
        "cycle, so that no policy can pass it.",
        _optimum,
    ),
)
