"""All methods side by side: a table in the terminal, plots, and one HTML page that needs no other.

In: the rows of `pipeline.standings`. The paper's numbers stand beside ours where it has the method.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from experiments.report import canvas, page, palette
from experiments.report.paper import TASKS, PaperRow, PaperTable
from experiments.report.texts import NONE, percent, rate, times

Row = Mapping[str, Any]
MEAN = "mean"
OTHERS = "#94a3b8"  # methods that have no colour of their own
COLOURS = {"eagle3": "eagle3", "best constant": "best_constant"}
COLOURS |= dict.fromkeys(("ltd", "ltd of sampled texts"), "ltd")
PARTS = ("draft", "verify", "decide", "rest")


def colour(method: str) -> str:
    """A method's colour."""
    if method == "autoregressive":
        return palette.METHODS[method]
    return palette.METHODS[COLOURS[method]] if method in COLOURS else OTHERS


def ranked(rows: Sequence[Row], temperature: float) -> list[Row]:
    """The rows of the mean at a temperature, fastest first."""
    mean = [row for row in rows if row["task"] == MEAN and row["temperature"] == temperature]
    return sorted(mean, key=lambda row: -row["speedup"])


def terminal_table(
    title: str, rows: Sequence[Row], temperature: float, papers: Sequence[PaperTable]
) -> Group:
    """Two tables of a row per method, fastest first, each of which fits into 80 columns.

    The mean with its interval, committed tokens and what the best constant and the optimum leave;
    then the speedup by task, beside the paper's.
    """
    mine = [row for row in rows if row["temperature"] == temperature]
    tasks = list(dict.fromkeys(row["task"] for row in mine if row["task"] != MEAN))
    theirs = "On the right: the paper's {}, mean speedup and committed tokens."
    caption = theirs.format(papers[0].name) if papers else ""
    whole = _per_method(title, (MEAN, "95 %", "commit.", "/ best const.", "of optimum"))
    models = [paper.model for paper in papers]
    by_task = _per_method("speedup by task", (*tasks, *models), caption)
    for row in ranked(rows, temperature):
        whole.add_row(row["method"], *cells(row))
        speedups = {one["task"]: one["speedup"] for one in mine if one["method"] == row["method"]}
        beside = [paper_cell(paper, row["method"]) for paper in papers]
        by_task.add_row(row["method"], *(times(speedups[task]) for task in tasks), *beside)
    return Group(whole, by_task)


def _per_method(title: str, headings: Sequence[str], caption: str = "") -> Table:
    shown = Table(title=title, caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("method", no_wrap=True)
    for heading in headings:
        shown.add_column(heading, justify="right", overflow="fold")
    return shown


def cells(row: Row) -> list[str]:
    """A mean row's own numbers."""
    share = row["share_of_optimum"]
    return [
        times(row["speedup"]),
        f"{row['low']:.2f}–{row['high']:.2f}",
        f"{row['committed_per_cycle']:.2f}",
        f"{row['over_best_constant']:.3f}",
        NONE if share is None else percent(share, 0),
    ]


def paper_cell(paper: PaperTable, method: str) -> str:
    """The paper's mean speedup and committed tokens of a method; a dash where it has none."""
    found = [row.mean for row in paper.rows if row.method == method]
    return f"{times(found[0].speedup)}, {found[0].committed:.2f}" if found else NONE


def paper_row(paper: PaperTable, row: PaperRow) -> dict[str, Any]:
    """One of the paper's rows as JSON."""
    names = (*TASKS, MEAN)
    cells = zip(names, (*row.cells, row.mean), strict=True)
    return {"table": paper.name, "model": paper.model, "method": row.method} | {
        task: {"speedup": cell.speedup, "committed": cell.committed} for task, cell in cells
    }


def bars(rows: Sequence[Row], temperature: float) -> Figure:
    """Mean speedup of every method over plain decoding, whiskers = 95 % interval."""
    mine = ranked(rows, temperature)[::-1]
    figure = canvas.empty(1.0 + 0.26 * len(mine))
    axes = figure.subplots()
    for place, row in enumerate(mine):
        axes.barh(place, row["speedup"], 0.72, color=colour(row["method"]))
        axes.hlines(place, row["low"], row["high"], color=palette.TEXT, linewidth=1.2)
    axes.set_yticks(range(len(mine)), [row["method"] for row in mine])
    canvas.tidy(axes, x="times plain decoding, mean of tasks", y="", grid="x")
    canvas.headline(figure, f"All methods at temperature {temperature:g}")
    return figure


def time_bars(split: Sequence[Row]) -> Figure:
    """How each method's time splits."""
    mine = list(split)[::-1]
    figure = canvas.empty(1.2 + 0.26 * len(mine))
    axes = figure.subplots()
    colours = dict(zip(PARTS, palette.PARTS.values(), strict=True))
    for place, row in enumerate(mine):
        start = 0.0
        for part in PARTS:
            width = max(row[part], 0.0)
            label = part if place == 0 else None
            axes.barh(place, width, 0.72, left=start, color=colours[part], label=label)
            start += width
    axes.set_yticks(range(len(mine)), [row["method"] for row in mine])
    canvas.tidy(axes, x="share of the measured time", y="", grid="x")
    axes.legend(ncols=4, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def html(document: Mapping[str, Any], papers: Mapping[float, Sequence[PaperTable]]) -> str:
    """The page of a leaderboard document; pictures are inside it."""
    rows, environment = document["rows"], document["environment"]
    title = "Every method, one decoder"
    body = [
        f"<h1>{title}</h1>",
        f'<p class="faint">{escape(environment["device"])}, {escape(environment["dtype"])}, '
        f"{escape(environment['date'])}; <code>{escape(environment['command'])}</code></p>",
        "<p>All methods are controllers of one compiled cycle and differ in nothing but their "
        "decisions; each one's own time is in its tokens per second. Methods took turns on every "
        "prompt. A name alone is the published setting, tuned is the best of 25 by replay on "
        "other prompts.</p>",
    ]
    for temperature in sorted({row["temperature"] for row in rows}):
        body.append(f"<h2>Temperature {temperature:g}</h2>")
        body.append(_checked(document["lossless"][f"{temperature:g}"]))
        body.append(_standings(rows, temperature, papers.get(temperature, ())))
        body.append(_picture(bars(rows, temperature), f"Speedups at temperature {temperature:g}"))
        body.append(_picture(time_bars(document["time"][f"{temperature:g}"]), "Where time goes"))
        body.append("<h3>Settings</h3>" + _settings(document["entries"][f"{temperature:g}"]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{page.STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _checked(found: Row) -> str:
    sound = found["tokens_compared"] > 0 and found["mismatches"] == 0
    words = (
        f"{found['tokens_compared']:,} tokens compared with plain decoding, "
        f"{found['mismatches']} mismatches, {found['near_ties']} near ties."
    )
    return f'<p class="{"lossless" if sound else "wrong"}">{words}</p>'


def _standings(rows: Sequence[Row], temperature: float, papers: Sequence[PaperTable]) -> str:
    headings = ["Method", "Tokens/s", "Speedup", "95 %", "Committed", "Over best constant"]
    headings += ["Of the optimum", *(f"Paper, {paper.model}" for paper in papers)]
    lines = []
    for row in ranked(rows, temperature):
        dot = f'<i class="dot" style="background:{colour(row["method"])}"></i>'
        texts = [rate(row["tokens_per_second"]), *cells(row)]
        texts += [paper_cell(paper, row["method"]) for paper in papers]
        lines.append([dot + escape(row["method"]), *map(escape, texts)])
    return _table(headings, lines)


def _settings(entries: Sequence[Row]) -> str:
    lines = [
        [
            escape(entry["method"]),
            escape(setting_text(entry["setting"]) or NONE),
            f"{entry['microseconds_per_pass']:.1f}",
            f"{entry['microseconds_per_cycle']:.1f}",
            escape(entry["source"]),
        ]
        for entry in entries
    ]
    return _table(["Method", "Setting", "µs per pass", "µs per cycle", "Source"], lines)


def setting_text(setting: Mapping[str, Sequence[float]]) -> str:
    """A setting as it is given on the command line."""
    return ",".join(
        f"{key}={'/'.join(f'{value:g}' for value in values)}" for key, values in setting.items()
    )


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    row = lambda texts, tag: f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"
    body = "\n".join(row(line, "td") for line in lines)
    return (
        f'<div class="scroll"><table class="plain"><thead>{row(headings, "th")}</thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _picture(figure: Figure, caption: str) -> str:
    source = base64.b64encode(canvas.encode(figure, "png")).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
