"""Tables for the terminal, readable at 60 columns: of a report, a leaderboard, studies."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from experiments import output
from experiments.report import plots, words
from experiments.report.paper import PaperTable
from experiments.report.words import METHODS, NONE, Report, Row, rate, times
from ltd_jax.decoding.benchmark import MEAN, STATISTIC

SHORT_NAMES = {
    "autoregressive": "plain",
    "eagle3": "EAGLE-3",
    "best_constant": "best constant",
    "ltd": "LTD",
    "without_depth_policy": "no depth policy",
    "without_size_policy": "no size policy",
    "without_iterative_training": "no alternation",
}
SPEEDUP, INTERVAL, COMMITTED, OVER = "over\nplain", "95%", "per\ncycle", "over\nconst."


def summary(content: Report) -> list[list[str]]:
    """The results in few cells, headings first: a row per method, a column per task."""
    tasks = words.tasks_of(content)
    names = words.named_settings(content) | {"autoregressive": "plain decoding, tokens per second"}
    by_task = {task: {row["method"]: row for row in words.rows_of(content, task)} for task in tasks}
    rows = [["speedup (95% interval)", *map(words.task_name, tasks)]]
    for method in METHODS:
        found = [by_task[task].get(method) for task in tasks]
        cells = [NONE if row is None else _summary_cell(row) for row in found]
        rows.append([names[method], *cells])
    return rows


def _summary_cell(row: Row) -> str:
    if row["method"] == "autoregressive":
        return rate(row["tokens_per_second"])
    interval = words.interval(row["speedup_low"], row["speedup_high"])
    return times(row["speedup"]) + ("" if interval == NONE else f" ({interval})")


def report(content: Report) -> Group:
    """The results for the end of a command, a section per task; then what they mean."""
    headings = ("method", "tokens\n/s", SPEEDUP, INTERVAL, COMMITTED, "levels", "size")
    table = output.table("", headings)
    for task in words.tasks_of(content):
        table.add_row(Text(words.task_name(task), style="italic"))
        for row in words.rows_of(content, task):
            style = "bold" if row["method"] == "ltd" else None
            table.add_row(*_cells(row), style=style)
        table.add_section()
    verdict = (words.against_plain(content), words.against_constant(content))
    return Group(table, STATISTIC, "", *filter(None, verdict), words.lossless(content["lossless"]))


def _cells(row: Row) -> list[str]:
    """One method on one task; what does not apply to plain decoding is a dash."""
    plain = row["method"] == "autoregressive"
    return [
        SHORT_NAMES[row["method"]],
        rate(row["tokens_per_second"]),
        times(row["speedup"]),
        NONE if plain else words.interval(row["speedup_low"], row["speedup_high"]),
        f"{row['committed_per_cycle']:.2f}",
        NONE if plain else f"{row['levels_mean']:.1f}",
        NONE if plain else f"{row['size_mean']:.1f}",
    ]


def leaderboard(
    title: str, rows: Sequence[Row], temperature: float, papers: Sequence[PaperTable]
) -> Group:
    """All methods, fastest first: the mean, the speedup by task, and the paper's means beside ours.

    Args:
      rows: of all temperatures; method, task, temperature, speedup, low, high,
        over_best_constant, committed_per_cycle, share_of_optimum.
    """
    mine = [row for row in rows if row["temperature"] == temperature]
    tasks = list(dict.fromkeys(row["task"] for row in mine if row["task"] != MEAN))
    gap = (
        f"{STATISTIC} Per cycle = committed tokens; const. = the best constant; gap = share of the "
        "way from it to the optimum, by replay."
    )
    headings = ("method", SPEEDUP, INTERVAL, COMMITTED, OVER, "gap")
    whole = output.table(title, headings, caption=gap)
    by_task = output.table("speedup by task", ("method", *tasks))
    means = plots.ranked(rows, temperature)
    for row in means:
        whole.add_row(
            row["method"],
            times(row["speedup"]),
            words.interval(row["low"], row["high"]),
            f"{row['committed_per_cycle']:.2f}",
            words.ratio(row["over_best_constant"]),
            words.gap_share(row["share_of_optimum"], below="below"),
        )
        speedups = {one["task"]: one["speedup"] for one in mine if one["method"] == row["method"]}
        by_task.add_row(row["method"], *(times(speedups[task]) for task in tasks))
    ours = {row["method"]: (row["speedup"], row["committed_per_cycle"]) for row in means}
    return Group(whole, by_task, *_beside_paper(ours, papers, {}))


def study(title: str, rows: Sequence[Row], papers: Sequence[PaperTable]) -> Group:
    """Methods of a study: speedup by task, intervals over seeds, and the paper's means beside ours.

    Args:
      rows: method, seeds, tasks (speedup, committed by name), speedup, committed,
        over_best_constant; speedup and over with _low and _high.
      papers: tables whose rows have our rows' names where the method is the same.
    """
    tasks = list(rows[0]["tasks"])
    said = f"{title}: speedup over plain decoding, by replay"
    by_task = output.table(said, ("method", *tasks, words.task_name(MEAN)))
    headings = ("method", f"{INTERVAL}\nof mean", COMMITTED, OVER, INTERVAL)
    explained = (
        "Speedups are means of tasks, 95% = over seeds, per cycle = committed tokens, const. = "
        "the best constant, of all texts together."
    )
    means = output.table("", headings, caption=explained)
    for row in rows:
        name = SHORT_NAMES.get(row["method"], row["method"])
        speedups = [row["tasks"][task]["speedup"] for task in tasks]
        by_task.add_row(name, *map(times, speedups), times(row["speedup"]))
        means.add_row(
            name,
            seeds_interval(row, "speedup", 2),
            f"{row['committed']:.2f}",
            f"{row['over_best_constant']:.3f}",
            seeds_interval(row, "over", 3),
        )
    ours = {row["method"]: (row["speedup"], row["committed"]) for row in rows}
    return Group(by_task, means, *_beside_paper(ours, papers, SHORT_NAMES))


def seeds_interval(row: Row, name: str, digits: int) -> str:
    """Both ends of a row's interval; a dash where one seed gave the number."""
    ends = (row[f"{name}_low"], row[f"{name}_high"])
    return NONE if row["seeds"] == 1 else words.interval(*ends, digits)


def _beside_paper(
    ours: Mapping[str, tuple[float, float]], papers: Sequence[PaperTable], names: Mapping[str, str]
) -> list[Table]:
    """A table of the methods that the paper has, as `names` calls them; none without the paper."""
    if not papers:
        return []
    numbers = ", ".join(dict.fromkeys(paper.name for paper in papers))
    caption = f"The paper's {numbers}, on an A100."
    models = [textwrap.fill(paper.model, 16) for paper in papers]
    headings = ("method", "here", *models)
    table = output.table("over plain, committed per cycle", headings, caption=caption)
    for method, (speedup, committed) in ours.items():
        theirs = [paper_cell(paper, method) for paper in papers]
        if any(cell != NONE for cell in theirs):
            here = f"{times(speedup)}, {committed:.2f}"
            table.add_row(names.get(method, method), here, *theirs)
    return [table]


def paper_cell(paper: PaperTable, method: str) -> str:
    """The paper's mean speedup and committed tokens of a method; a dash where it has none."""
    if method not in paper.rows:
        return NONE
    mean = paper.rows[method].mean
    return f"{times(mean.speedup)}, {mean.committed:.2f}"


def moves(cells: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """Policies moved between latency tables: a row for everything made, a column per table.

    Args:
      cells: made, made_for, run_on, ratio, seconds.
      names: of the latency tables.
    """
    title, explained = "throughput over the best constant", "of the latency table run under"
    devices = {name: words.latency_name(name).split(",")[0] for name in names}
    headings = ("made for", *devices.values(), "seconds")
    table = output.table(title, headings, caption=explained)
    for made, made_for in dict.fromkeys((cell["made"], cell["made_for"]) for cell in cells):
        mine = [cell for cell in cells if (cell["made"], cell["made_for"]) == (made, made_for)]
        ratio = {cell["run_on"]: f"{cell['ratio']:.3f}" for cell in mine}
        seconds = mine[0]["seconds"]
        label = f"{made}{', not' if made == 'observing' else ','} {devices[made_for]}"
        took = "" if seconds is None else f"{seconds:.0f}"
        table.add_row(label, *(ratio.get(name, "") for name in names), took)
    return table
