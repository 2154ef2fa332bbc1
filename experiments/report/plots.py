"""All pictures, on matplotlib's object interface: no global state, no display.

Every public function returns a figure; `encode` makes the file. A report's pictures (`PLOTS`) come
with a caption and with what is to be seen, in words for those who cannot see it.

Long because each picture is one function, and they share one look.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from experiments.report import words
from experiments.report.figures import Figures
from experiments.report.paper import PLACES
from experiments.report.words import METHOD_NAMES, METHODS, Report, Row
from ltd_jax.decoding.benchmark import MEAN

COLOURS = {
    "autoregressive": "#8a8a8a",
    "eagle3": "#56b4e9",
    "best_constant": "#0072b2",
    "ltd": "#d55e00",
    "optimum": "#009e73",
}  # told apart with any colour vision (Okabe-Ito)
PARTS = {"draft": "#c17d00", "verify": "#9467bd"}
OTHER = "#94a3b8"  # methods that have no colour of their own
ORANGES = LinearSegmentedColormap.from_list("oranges", ["#fde3c8", "#d55e00", "#5c2400"])
PLAIN_LINE: dict[str, Any] = {"color": COLOURS["autoregressive"], "linestyle": "--"}
TEXT, FAINT, GRID, PAGE = "#1f2328", "#5f6773", "#e5e7eb", "#ffffff"
DARK = {TEXT: "#e6e8ea", FAINT: "#9aa4af", GRID: "#30363d", PAGE: "#14171a"}  # base.html.jinja's
WIDTH = 6.0  # inches; with these font sizes still readable at the width of a phone
LARGE, MEDIUM, SMALL = 12, 10.5, 9.5
DPI = 180


def encode(figure: Figure, kind: str = "png", *, dark: bool = False) -> bytes:
    """The bytes of a file of the kind "png" or "svg", for a light or a dark page."""
    buffer, small = io.BytesIO(), io.BytesIO()
    with _darkened(figure) if dark else contextlib.nullcontext():
        figure.savefig(buffer, format=kind)
    if kind != "png":
        return buffer.getvalue()
    Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, kind)
    return small.getvalue()


@contextlib.contextmanager
def _darkened(figure: Figure) -> Iterator[None]:
    """The figure with a dark page's background, texts and lines; what shows data stays."""
    figure.canvas.draw()  # makes the ticks
    texts = figure.findobj(Text)
    boxes = [box for box in (text.get_bbox_patch() for text in texts) if box is not None]
    undo: list[Callable[[], None]] = []
    for artist in (*figure.findobj(), *boxes):
        for name in ("color", "facecolor", "edgecolor"):
            get, change = (getattr(artist, f"{verb}_{name}", None) for verb in ("get", "set"))
            if get is None or change is None:
                continue
            before = get()
            colours = to_rgba_array(before)
            known = DARK.get(to_hex(colours[0])) if len(colours) and colours[0, 3] else None
            if known and not (isinstance(artist, Text) and known == DARK[PAGE]):  # on a dark cell
                undo.append(functools.partial(change, before))
                change(known)
    try:
        yield
    finally:
        for restore in reversed(undo):
            restore()


# What is common to all pictures


def _figure(height: float, title: str, width: float = WIDTH) -> Figure:
    """A white figure of the given inches that lays itself out, its title wrapped to its width."""
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    lines = textwrap.fill(title, int(10 * width))
    figure.suptitle(lines, x=0.015, ha="left", fontsize=LARGE, weight="bold", color=TEXT)
    return figure


def _tidy(axes: Axes, *, x: str = "", y: str = "", grid: Literal["x", "y", ""] = "y") -> None:
    """Labels with units, no box, faint grid lines behind what is drawn."""
    axes.set_xlabel(x, fontsize=MEDIUM, color=TEXT)
    axes.set_ylabel(y, fontsize=MEDIUM, color=TEXT)
    axes.tick_params(labelsize=SMALL, length=0, colors=TEXT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=GRID, linewidth=0.8)
    else:
        axes.spines["bottom"].set_visible(False)


def _subtitle(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=MEDIUM, color=TEXT)


def _legend(figure: Figure, handles: Sequence[Artist], columns: int = 0) -> None:
    """Names below everything else, in rows of `columns`; 0 = in one row."""
    figure.legend(
        handles=list(handles),
        loc="outside lower left",
        ncols=columns or len(handles),
        frameon=False,
        fontsize=SMALL,
        labelcolor=TEXT,
        handlelength=1.6,
        columnspacing=1.4,
    )


def _label(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    """A text that stands `offset` points away from a place."""
    usual: dict[str, Any] = {"fontsize": SMALL, "color": TEXT, "va": "center"}
    axes.annotate(text, at, xytext=offset, textcoords="offset points", **usual | style)


def _rows(
    names: Sequence[str], title: str, x: str, *, above: float, each: float
) -> tuple[Figure, Axes]:
    """A figure of `each` inches per name and a row for each, the first one at the bottom."""
    figure = _figure(above + each * len(names), title)
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    _tidy(axes, x=x, grid="x")
    return figure, axes


def _write_cells(image: AxesImage, texts: np.ndarray, fontsize: float | None = None) -> None:
    """A text in every cell of a heat map but the masked ones, black or white: what is clearer."""
    for (row, column), value in np.ma.ndenumerate(np.ma.asarray(image.get_array())):
        cell = image.cmap(image.norm(value))
        colour = max("black", "white", key=functools.partial(contrast, cell))
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": fontsize}
        image.axes.text(column, row, texts[row, column], color=colour, **style)


def contrast(one: Any, other: Any) -> float:
    """The contrast ratio of two colours, 1 to 21, as WCAG defines it; texts need 4.5."""
    lights = []
    for colour in (one, other):
        rgb = np.asarray(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05)
    return max(lights) / min(lights)


def _texts(values: np.ndarray, write: Callable[[float], str]) -> np.ndarray:
    return np.vectorize(write, otypes=[object])(values)


# The pictures of a report


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A plot with its caption."""

    figure: Figure
    caption: str
    shows: str  # what is to be seen, in words

    @functools.cached_property
    def png(self) -> bytes:
        """The file's bytes."""
        return encode(self.figure)

    @functools.cached_property
    def dark_png(self) -> bytes:
        """The same for a dark page."""
        return encode(self.figure, dark=True)


def pictures(report: Report, figures: Figures) -> dict[str, Picture]:
    """All plots that there are parts for, by their names and in the page's order."""
    drawn = {name: draw(report, figures) for name, draw in PLOTS.items()}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def headline(report: Report, width: float = WIDTH) -> Figure:
    """Speedup over plain decoding by method and task, with 95% intervals."""
    tasks, names = words.tasks_of(report), words.named_settings(report)
    there = {row["method"] for row in report["methods"]}
    shown = [name for name in METHODS[1:] if name in there]
    figure = _figure(4.0, "Speedup over plain decoding", max(width, 0.9 * len(tasks)))
    axes = figure.subplots()
    bar = 0.8 / max(len(shown), 1)
    ticks = []
    for place, task in enumerate(tasks):
        rows = {row["method"]: row for row in words.rows_of(report, task)}
        plain = rows.get("autoregressive")
        base = f"\nplain: {words.rate(plain['tokens_per_second'])}" if plain else ""
        ticks.append(words.task_name(task) + base)
        for index, method in enumerate(name for name in shown if name in rows):
            row, x = rows[method], place + (index - (len(shown) - 1) / 2) * bar
            axes.bar(x, row["speedup"], 0.92 * bar, color=COLOURS[method])
            high = row["speedup_high"]
            if high is not None:
                axes.vlines(x, row["speedup_low"], high, color=TEXT, linewidth=1.2)
            if method == "ltd":
                top, text = max(row["speedup"], high or 0.0), words.times(row["speedup"])
                _label(axes, text, (x, top), (0, 3), ha="center", va="bottom", weight="bold")
    axes.axhline(1, linewidth=1.5, zorder=3, **PLAIN_LINE)
    _tidy(axes, y="times plain decoding")
    axes.set_xticks(range(len(tasks)), ticks)
    axes.margins(y=0.1)
    handles: list[Artist] = [Patch(color=COLOURS[name], label=names[name]) for name in shown]
    line = Line2D([], [], label="Plain decoding (tokens/s below)", **PLAIN_LINE)
    _legend(figure, [*handles, line], 2)
    return figure


def _headline(report: Report, figures: Figures) -> Picture:
    task = words.tasks_of(report)[-1]
    rows = [row for row in words.rows_of(report, task) if row["method"] != "autoregressive"]
    said = ", ".join(f"{METHOD_NAMES[row['method']]} {words.times(row['speedup'])}" for row in rows)
    return Picture(
        headline(report),
        "Speedup over plain decoding by method and task, with the numbers of the table: bars are "
        "speedups, whiskers their 95% intervals. LTD's bar has its number above it.",
        f"Speedup over plain decoding, {words.task_name(task)}: {said}.",
    )


def _heat(
    axes: Axes, values_DV: np.ndarray, sizes: Sequence[int], texts_DV: np.ndarray, cmap: Any
) -> None:
    """Levels upwards, sizes to the right, a text per cell; nan cells stay white."""
    values_DV = np.ma.masked_invalid(values_DV)
    image = axes.imshow(values_DV, cmap=cmap, aspect="auto", origin="lower")
    _tidy(axes, x="size (drafted nodes verified)", y="levels (draft passes)", grid="")
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_yticks(range(len(values_DV)), [str(row + 1) for row in range(len(values_DV))])
    _write_cells(image, texts_DV, SMALL - 1 if len(sizes) <= 14 else 6.5)


def _constants(
    report: Report,
    figures: Figures,
    values_DV: np.ndarray,
    title: str,
    caption: str,
    cmap: str,
    digits: int,
) -> Picture:
    """A heat map over all constant settings, the best one framed, and its extremes in words."""
    figure = _figure(1.3 + 0.33 * len(values_DV), title)
    axes = figure.subplots()
    write = lambda value: f"{value:,.{digits}f}"
    texts_DV = _texts(values_DV, write)
    _heat(axes, values_DV, figures.sizes, texts_DV, cmap)
    best = report["optimum"]["best_constant"]
    framed = ""
    if best["size"] in figures.sizes and 1 <= best["levels"] <= len(values_DV):
        row, column = best["levels"] - 1, figures.sizes.index(best["size"])
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, linewidth=2)
        frame.set_edgecolor("black")
        frame.set_path_effects([withStroke(linewidth=5, foreground="white")])  # on any cell
        axes.add_patch(frame)
        name = words.setting(best["levels"], best["size"])
        framed = f" The best constant setting ({name}) has {texts_DV[row, column]}."
    low, high = write(np.nanmin(values_DV)), write(np.nanmax(values_DV))
    return Picture(figure, caption, f"{title}: from {low} to {high}.{framed}")


def _throughput(report: Report, figures: Figures) -> Picture | None:
    if figures.tokens_per_second is None:
        return None
    rate_DV = np.asarray(figures.tokens_per_second, float)
    title = "Tokens per second of every constant setting, by replay"
    caption = (
        "Tokens per second with every constant setting, by replay of the test texts, as the mean "
        "of tasks. The frame marks the setting that was best on the validation texts."
    )
    return _constants(report, figures, rate_DV, title, caption, "Greens", 0)


def _committed(report: Report, figures: Figures) -> Picture | None:
    if figures.committed is None:
        return None
    values_DV, title = np.asarray(figures.committed, float), "Committed tokens per cycle"
    caption = (
        "Mean tokens that a cycle commits with every constant setting, by replay of the test "
        "texts, as the mean of tasks. The frame marks the best constant setting."
    )
    return _constants(report, figures, values_DV, title, caption, "Blues", 2)


def _cycle_time(report: Report, figures: Figures) -> Picture | None:
    if figures.cycle_seconds is None:
        return None
    values_DV, title = 1e3 * np.asarray(figures.cycle_seconds, float), "Milliseconds per cycle"
    caption = (
        "Time of a whole cycle with every constant setting, from the latency table. The frame "
        "marks the best constant setting."
    )
    digits = 1 if np.nanmax(values_DV) < 100 else 0
    return _constants(report, figures, values_DV, title, caption, "Purples", digits)


def _part_times(report: Report, figures: Figures) -> Picture | None:
    draft, verify = figures.draft_seconds, figures.verify_seconds
    parts: list[tuple[str, str, Sequence[int], np.ndarray]] = []
    if draft is not None:
        parts.append(("draft", "levels (draft passes)", range(1, len(draft) + 1), draft))
    if verify is not None:
        parts.append(("verify", "size (drafted nodes verified)", figures.sizes, verify))
    if not parts:
        return None
    figure = _figure(3.2, "Time of the two parts of a cycle")
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    said = []
    for axes, (part, x, places, seconds) in zip(panels, parts, strict=True):
        milliseconds = 1e3 * np.asarray(seconds)
        axes.plot(places, milliseconds, "o-", color=PARTS[part], linewidth=2, markersize=5)
        _tidy(axes, x=x, y="milliseconds" if axes is panels[0] else "")
        _subtitle(axes, part)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        said.append(f"{part} {milliseconds[0]:.2f} to {milliseconds[-1]:.2f}")
        if figures.plain_seconds is not None:
            axes.axhline(
                1e3 * figures.plain_seconds, label="a step of plain decoding", **PLAIN_LINE
            )
    if figures.plain_seconds is not None:
        _legend(figure, panels[0].get_legend_handles_labels()[0])
    panels[0].set_ylim(bottom=0)
    return Picture(
        figure,
        "Time of the draft passes by levels and of the target's pass by size, from the latency "
        "table, each compiled and timed alone.",
        f"Milliseconds, from the least to the most: {'; '.join(said)}.",
    )


def _stage_name(stage: str) -> str:
    """A stage of the paper's order, such as "depth-alone" or "iter1-size", as a person reads it."""
    order, _, policy = stage.partition("-")
    if policy == "alone":
        return f"{order} policy alone"
    number = order.removeprefix("iter")
    return f"iteration {number}: {policy} policy" if number.isdigit() else stage


def _learning(report: Report, figures: Figures) -> Picture | None:
    grouped = itertools.groupby(figures.curves, key=lambda point: point.stage)
    stages = [(name, list(points)) for name, points in grouped]
    if not stages:
        return None
    columns = min(2, len(stages))
    lines = -(-len(stages) // columns)
    figure = _figure(1.4 + 1.9 * lines, "Validation throughput while learning")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, points) in zip(panels, stages, strict=False):
        _learning_stage(axes, points, figures)
        _subtitle(axes, f"{_stage_name(name)} ({points[-1].seconds:,.0f} s)")
    for axes in panels[len(stages) :]:
        axes.set_visible(False)
    for axes in panels[: len(stages) : columns]:
        axes.set_ylabel("tokens per second", fontsize=MEDIUM)
    for axes in panels[max(len(stages) - columns, 0) : len(stages)]:
        axes.set_xlabel("decisions (thousands)", fontsize=MEDIUM)
    _legend(figure, panels[0].get_legend_handles_labels()[0], 2)
    first, last = stages[0][1][0], stages[-1][1]
    best = max(point.validation for point in last)
    constant = figures.validation_constant
    against = "" if constant is None else f", where the best constant has {words.rate(constant)}"
    return Picture(
        figure,
        "Tokens per second by replay of the validation texts, all of them together, while "
        "learning, with the seconds that each stage took. The star marks what is kept. A stage "
        "that names one policy trains only that one; the other choice is fixed meanwhile.",
        f"From {words.rate(first.validation)} to {words.rate(best)} tokens per second{against}.",
    )


def _learning_stage(axes: Axes, points: Sequence[Any], figures: Figures) -> None:
    places = [point.decisions / 1e3 for point in points]
    values = [point.validation for point in points]
    marks: dict[str, Any] = {"marker": "o" if len(points) < 30 else None, "markersize": 3.5}
    label = "learned policies, greedy"
    axes.plot(places, values, color=COLOURS["ltd"], linewidth=2, label=label, **marks)
    best, label = int(np.argmax(values)), "best, which is kept"
    star: dict[str, Any] = {"markersize": 12, "color": COLOURS["ltd"], "markeredgecolor": "white"}
    axes.plot(places[best], values[best], "*", label=label, **star)
    for name, level, linestyle in (
        ("best_constant", figures.validation_constant, "--"),
        ("optimum", figures.validation_optimum, ":"),
    ):
        if level is not None:
            label = name.replace("_", " ")
            axes.axhline(level, color=COLOURS[name], linewidth=2, linestyle=linestyle, label=label)
    _tidy(axes)


def _choices(report: Report, figures: Figures) -> Picture | None:
    places = figures.choices_by_place
    if not places:
        return None
    shares = [cycles / cycles.sum() for cycles in places.values()]
    height = 0.9 + (0.85 + 0.29 * len(shares[0])) * len(shares)
    figure = _figure(height, "What LTD chooses (percent of cycles, empty = never)")
    panels = figure.subplots(len(shares), 1, squeeze=False)[:, 0]
    said = []
    for axes, (name, cycles), share_DV in zip(panels, places.items(), shares, strict=True):
        texts = _texts(share_DV, lambda share: "<1" if share < 0.005 else f"{100 * share:.0f}")
        _heat(axes, np.where(share_DV > 0, share_DV, np.nan), figures.sizes, texts, ORANGES)
        _subtitle(axes, f"{name} ({int(cycles.sum()):,} cycles)")
        if axes is not panels[-1]:
            axes.set_xlabel("")
        row, column = (int(index) for index in np.unravel_index(share_DV.argmax(), share_DV.shape))
        often = words.setting(row + 1, figures.sizes[column])
        said.append(f"most often {often} at {name} ({words.percent(share_DV.max(), 0)})")
    return Picture(
        figure,
        "What LTD chooses. A place in the text is easy where the longest accepted path is longer "
        "than at the median place, else hard. A policy that adapts has more than one dark cell.",
        f"LTD chooses {'; '.join(said)}.",
    )


def _optimum(report: Report, figures: Figures) -> Picture:
    numbers = report["optimum"]
    constant = numbers["best_constant"]["tokens_per_second"]
    bound, share = numbers["dynamic_programme_tokens_per_second"], numbers["share_gained_by_ltd"]
    ltd = constant + share * (bound - constant)
    predicted = {
        row["controller"]: row["predicted_tokens_per_second"] for row in report["replay_vs_live"]
    }
    rates = {"optimum": bound, "ltd": ltd, "best_constant": constant}
    rates |= {name: predicted[name] for name in ("eagle3", "autoregressive") if name in predicted}
    names = [(METHOD_NAMES | {"optimum": "Optimum"})[method] for method in rates]
    title = (
        f"LTD is {words.gap_share(share)}"
        if share < -0.005
        else f"LTD closes {words.gap_share(share)} of the gap from best constant to optimum"
    )
    figure, axes = _rows(names, title, "tokens per second, by replay", above=1.3, each=0.42)
    for place, (method, rate) in enumerate(rates.items()):
        axes.barh(place, rate, 0.7, color=COLOURS[method])
        _label(axes, words.rate(rate), (rate, place), (5, 0), fontsize=MEDIUM)
    axes.margins(x=0.12)
    said = ", ".join(
        f"{name} {words.rate(rate)}" for name, rate in zip(names, rates.values(), strict=True)
    )
    return Picture(
        figure,
        "What there is to gain, by replay of the test texts, as the mean of tasks. The optimum "
        "knows the text and takes the fastest choice in every cycle, so no policy can pass it.",
        f"{title}. Tokens per second by replay: {said}.",
    )


# By the names of their files, without ending; a plot is None without its parts.
PLOTS: dict[str, Callable[[Report, Figures], Picture | None]] = {
    "headline": _headline,
    "throughput": _throughput,
    "committed": _committed,
    "cycle_time": _cycle_time,
    "part_times": _part_times,
    "learning": _learning,
    "choices": _choices,
    "optimum": _optimum,
}


# The pictures of the paper's figures and of the studies


def part_costs(rows: Sequence[Row], paper: Sequence[Row], model: str) -> Figure:
    """Figure 2 (left): costs relative to one pass and to the smallest tree, ours and the paper's.

    Args:
      rows: part ("draft" or "verify"), at (levels or size), milliseconds.
      paper: the same of the paper's `model`.
    """
    figure = _figure(3.3, "Time of the parts of a cycle (Figure 2)")
    panels = figure.subplots(1, 2)
    titles = {"draft": "levels (draft passes)", "verify": "size, share of the largest"}
    handles: dict[str, Artist] = {}
    for axes, (part, x) in zip(panels, titles.items(), strict=True):
        for source, marks, name in ((rows, "o-", "here"), (paper, "s--", f"paper, {model}")):
            mine = [row for row in source if row["part"] == part and row["at"] > 0]
            at = np.asarray([row["at"] for row in mine], float)
            cost = np.asarray([row["milliseconds"] for row in mine])
            ours = source is rows
            label, colour = (f"{name}, {part}", PARTS[part]) if ours else (name, FAINT)
            at = at / at.max() if part == "verify" else at
            style = {"color": colour, "markersize": 4, "label": label}
            (handles[label],) = axes.plot(at, cost / cost[0], marks, **style)
        _tidy(axes, x=x, y="time, first = 1" if part == "draft" else "")
        _subtitle(axes, part)
    _legend(figure, list(handles.values()))
    return figure


def acceptance(committed_DV: np.ndarray, sizes: Sequence[int]) -> Figure:
    """Figure 5: committed tokens per cycle by levels, one line per size, named at its end."""
    figure = _figure(4.0, "Committed tokens per cycle (Figure 5)")
    axes = figure.subplots()
    shown = [index for index, size in enumerate(sizes) if size > 0]
    levels = range(1, len(committed_DV) + 1)
    shades = matplotlib.colormaps["viridis"](np.linspace(0.85, 0.0, len(shown)))
    ends = _spread([float(committed_DV[-1, index]) for index in shown], committed_DV)
    for index, shade, end in zip(shown, shades, ends, strict=True):
        line = committed_DV[:, index]
        axes.plot(levels, line, "o-", color=shade, markersize=4)
        place, text = (levels[-1] + 0.03 * len(levels), end), f"size {sizes[index]}"
        axes.text(*place, text, color=shade, fontsize=SMALL, va="center", weight="bold")
    _tidy(axes, x="levels (draft passes)", y="tokens per cycle")
    axes.set_xlim(right=levels[-1] + 0.16 * len(levels))
    axes.set_xticks(list(levels))
    return figure


def _spread(heights: Sequence[float], drawn: np.ndarray) -> list[float]:
    """Heights of labels from low to high, moved up so that none covers the one below it."""
    least = 0.05 * float(np.ptp(drawn))
    places = list(heights)
    order = np.argsort(heights, kind="stable")
    for before, after in itertools.pairwise(order):
        places[after] = max(places[after], places[before] + least)
    return places


def domains(rows: Sequence[Row]) -> Figure:
    """Figure 7: LTD over EAGLE-3 by domain, sorted; hollow = a single text, which says little.

    Args:
      rows: domain, texts (their number), ltd_over_eagle3; low and high where there is an interval.
    """
    mine = sorted(rows, key=lambda row: row["ltd_over_eagle3"])
    names = [f"{row['domain']} ({row['texts']})" for row in mine]
    title, x = "LTD over EAGLE-3 by domain (Figure 7)", "tokens per second over EAGLE-3's constants"
    figure, axes = _rows(names, title, x, above=1.6, each=0.2)
    axes.set_ylim(-0.8, len(mine) - 0.2)
    for place, row in enumerate(mine):
        ratio, single = row["ltd_over_eagle3"], row["texts"] == 1
        colour = COLOURS["ltd" if ratio >= 1 else "eagle3"]
        axes.plot([1, ratio], [place, place], color=colour, linewidth=1, alpha=0.5)
        if row.get("low") is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=TEXT, linewidth=1.2)
        fill = "white" if single else colour
        axes.plot(ratio, place, "o", color=colour, markerfacecolor=fill, markersize=6)
    axes.axvline(1, color=TEXT, linewidth=1)
    marker: dict[str, Any] = {"marker": "o", "linestyle": "", "color": COLOURS["ltd"]}
    hollow = Line2D([], [], markerfacecolor="white", label="a single text", **marker)
    _legend(figure, [Line2D([], [], label="several texts (number in brackets)", **marker), hollow])
    return figure


def training_curves(rows: Sequence[Row]) -> Figure:
    """Figure 3: validation throughput and reward over decisions, a column of panels per stage.

    Args:
      rows: in order; stage, decisions, validation (over the best constant) and reward, both with
        _low and _high; reward None where there was none yet.
    """
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    width = max(WIDTH, 2.2 * len(stages))
    figure = _figure(4.6, "Learning, stage by stage (Figure 3)", width)
    panels = figure.subplots(2, len(stages), sharex="col", sharey="row", squeeze=False)
    for column, stage in enumerate(stages):
        mine = [row for row in rows if row["stage"] == stage]
        above, below = panels[:, column]
        _band(above, mine, "validation", COLOURS["ltd"])
        above.axhline(1.0, color=COLOURS["best_constant"], linestyle="--", linewidth=1.5)
        rewarded = [row for row in mine if row["reward"] is not None]
        _band(below, rewarded, "reward", COLOURS["optimum"])
        first = column == 0
        _tidy(above, y="throughput over\nbest constant" if first else "")
        _tidy(below, x="decisions (thousands)", y="reward" if first else "")
        below.xaxis.set_major_locator(MaxNLocator(4))
        _subtitle(above, _stage_name(stage))
    return figure


def _band(axes: Axes, rows: Sequence[Row], name: str, colour: str) -> None:
    """The mean over seeds as a line, its interval as a band."""
    places = [row["decisions"] / 1e3 for row in rows]
    low, high = ([row[f"{name}_{end}"] for row in rows] for end in ("low", "high"))
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(places, [row[name] for row in rows], color=colour, linewidth=2)


def interaction(panels: Mapping[str, Sequence[Row]]) -> Figure:
    """Figure 6: shares of cycles in four fields of levels and size.

    Args:
      panels: by title, two rows (few accepted, many accepted) with the shares of PLACES.
    """
    figure = _figure(1.0 + 2.1 * len(panels), "What the policies choose together (Figure 6)")
    grid = figure.subplots(len(panels), 2, squeeze=False)
    for place, (name, rows) in enumerate(panels.items()):
        for axes, row in zip(grid[place], rows, strict=True):
            share_22 = np.asarray([row[place] for place in PLACES]).reshape(2, 2)
            style: dict[str, Any] = {"cmap": ORANGES, "vmin": 0, "vmax": 1}
            image = axes.imshow(share_22, origin="lower", aspect="auto", **style)
            _write_cells(image, _texts(share_22, lambda share: words.percent(share, 0)))
            last, left = place == len(panels) - 1, axes is grid[place, 0]
            _tidy(axes, x="levels" if last else "", y="size" if left else "", grid="")
            axes.set_xticks([0, 1], ["shallow", "deep"])
            axes.set_yticks([0, 1], ["narrow", "wide"])
            _subtitle(axes, f"{name}: {row['accepted']} accepted")
    return figure


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, x: str, y: str
) -> Figure:
    """Ratios around 1 as a heat map with a scale: below 1 red, above 1 blue."""
    columns = [textwrap.fill(words.latency_name(name), 13) for name in columns]
    rows = [textwrap.fill(words.latency_name(name), 18) for name in rows]
    figure = _figure(1.6 + 0.55 * len(rows), title, max(WIDTH, 2.2 + 1.2 * len(columns)))
    axes = figure.subplots()
    reach = max(float(np.abs(values - 1).max()), 0.05)
    image = axes.imshow(values, cmap="RdBu", vmin=1 - reach, vmax=1 + reach, aspect="auto")
    _write_cells(image, _texts(values, "{:.3f}".format))
    _tidy(axes, x=x, y=y, grid="")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, colors=TEXT, length=0)
    return figure


WAYS = {"alternate": "paper's order", "joint": "joint PPO", "exact": "exact gradients"}
WAY_COLOURS = {"alternate": "#56b4e9", "joint": "#e69f00", "exact": "#d55e00"}
REWARD_LINES: dict[str, Any] = {"paper": "--", "average": "-", "accepted": ":", "time": "-."}
LOWEST = 0.8  # random policies are far below, and nothing is to be seen there


def learning_progress(curves: Sequence[Row]) -> Figure:
    """Ways of learning beside each other: a panel per latency table, 1 = the best constant.

    Args:
      curves: latency, learning, reward, seconds [points], validation [points] (the best so far,
        mean over seeds, over the best constant).
    """
    tables = list(dict.fromkeys(curve["latency"] for curve in curves))
    figure = _figure(1.2 + 2.2 * len(tables), "Validation throughput while learning")
    panels = figure.subplots(len(tables), 1, sharex=True, squeeze=False)[:, 0]
    handles: dict[str, Artist] = {}
    for axes, table in zip(panels, tables, strict=True):
        axes.axhline(1.0, color=COLOURS["best_constant"], linewidth=1.2, linestyle=":")
        for curve in (curve for curve in curves if curve["latency"] == table):
            way, reward = str(curve["learning"]), str(curve["reward"])
            name = f"{WAYS[way]}, {reward} reward"
            style = {"color": WAY_COLOURS[way], "linestyle": REWARD_LINES[reward], "label": name}
            (line,) = axes.plot(curve["seconds"], curve["validation"], linewidth=1.8, **style)
            handles.setdefault(name, line)
        axes.set_xscale("log")
        _tidy(axes, x="seconds of training" if axes is panels[-1] else "", y="over best constant")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", length=4)
        axes.set_ylim(bottom=LOWEST)
        _subtitle(axes, words.latency_name(table))
    _legend(figure, list(handles.values()), 2)
    return figure


def best_so_far(rates: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over seeds of the best validation up to every point: [points]."""
    return np.mean([np.maximum.accumulate(rate) for rate in rates], axis=0)


def ranked(rows: Sequence[Row], temperature: float) -> list[Row]:
    """The leaderboard's rows of the mean at a temperature, fastest first."""
    mean = [row for row in rows if row["task"] == MEAN and row["temperature"] == temperature]
    return sorted(mean, key=lambda row: -row["speedup"])


def method_colour(method: str) -> str:
    """The colour of a method of the leaderboard; grey for most."""
    known = {"best constant": "best_constant", "ltd of sampled texts": "ltd"}
    return COLOURS.get(known.get(method, method), OTHER)


def leaderboard(rows: Sequence[Row], temperature: float) -> Figure:
    """Mean speedup of every method over plain decoding with its 95% interval, fastest on top."""
    mine = ranked(rows, temperature)[::-1]
    names, title = [row["method"] for row in mine], f"All methods at temperature {temperature:g}"
    x = "times plain decoding, mean of tasks"
    figure, axes = _rows(names, title, x, above=1.3, each=0.26)
    axes.set_ylim(-0.7, len(mine) - 0.3)
    for place, row in enumerate(mine):
        axes.barh(place, row["speedup"], 0.72, color=method_colour(row["method"]))
        if row["high"] is not None:
            axes.hlines(place, row["low"], row["high"], color=TEXT, linewidth=1.2)
        right = max(row["speedup"], row["high"] or 0.0)
        background = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        _label(axes, words.times(row["speedup"]), (right, place), (4, 0), bbox=background)
    axes.axvline(1, zorder=0, linewidth=1.2, **PLAIN_LINE)
    axes.margins(x=0.08)
    return figure
