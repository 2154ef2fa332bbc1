"""Tables of the experiments on learning in the terminal, our numbers beside the paper's."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from experiments.report.paper import PaperTable
from experiments.report.texts import NONE, times

SHORT = {
    "without_depth_policy": "no depth policy",
    "without_size_policy": "no size policy",
    "without_iterative_training": "no alternation",
}  # names that fit a terminal of 80 columns


def table(title: str, rows: Sequence[Mapping[str, Any]], papers: Sequence[PaperTable]) -> Group:
    """Speedups by task; below them each method over the best constant, beside the paper.

    Args:
      rows: `pipeline.scores.Row`s.
      papers: tables whose rows have our rows' names where the method is the same.
    """
    return Group(_by_task(title, rows), _over_constant(rows, papers))


def _by_task(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    tasks = list(rows[0]["tasks"])
    shown = _empty(f"{title}: speedup over plain decoding, by replay", "Intervals: over seeds.")
    for heading in (*tasks, "mean", "95 %", "commit."):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        mean = [times(row["speedup"]), interval(row, "speedup", 2), f"{row['committed']:.2f}"]
        by_task = [times(row["tasks"][task]["speedup"]) for task in tasks]
        shown.add_row(SHORT.get(row["method"], row["method"]), *by_task, *mean)
    return shown


def _over_constant(rows: Sequence[Mapping[str, Any]], papers: Sequence[PaperTable]) -> Table:
    names = "; ".join(f"{paper.name}: {paper.model}" for paper in papers)
    caption = f"The paper's mean speedup and committed tokens on an A100, {names}."
    shown = _empty("", caption if papers else "")
    for heading in ("over best constant", "95 %", *(paper.name for paper in papers)):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        numbers = [f"{row['over_best_constant']:.3f}", interval(row, "over", 3)]
        theirs = [paper_cell(paper, row["method"]) for paper in papers]
        shown.add_row(SHORT.get(row["method"], row["method"]), *numbers, *theirs)
    return shown


def _empty(title: str, caption: str) -> Table:
    shown = Table(title=title, caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("method", no_wrap=True)
    return shown


def paper_cell(paper: PaperTable, method: str) -> str:
    """The paper's mean speedup and committed tokens of a method; a dash where it has none."""
    found = [row.mean for row in paper.rows if row.method == method]
    return f"{times(found[0].speedup)}, {found[0].committed:.2f}" if found else NONE


def interval(row: Mapping[str, Any], name: str, digits: int) -> str:
    """Both ends of a row's interval; a dash where one seed gave the number."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return NONE if row["seeds"] == 1 else f"{low:.{digits}f}–{high:.{digits}f}"


def paper_rows(papers: Sequence[PaperTable]) -> list[dict[str, Any]]:
    """The paper's tables as JSON."""
    return [
        {
            "table": paper.name,
            "model": paper.model,
            "method": row.method,
            "speedup": row.mean.speedup,
            "committed": row.mean.committed,
        }
        for paper in papers
        for row in paper.rows
    ]


def moves(cells: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """A row for everything made for a table, a column per table; `pipeline.retarget.Cell`s."""
    shown = Table(title="throughput over the best constant of the table run under")
    for heading in ("made for", *names, "seconds"):
        shown.add_column(heading, justify="right")
    for made in dict.fromkeys((each["made"], each["made_for"]) for each in cells):
        mine = {each["run_on"]: each for each in cells if (each["made"], each["made_for"]) == made}
        ratios = [f"{mine[name]['ratio']:.3f}" if name in mine else "" for name in names]
        seconds = next(iter(mine.values()))["seconds"]
        label = f"{made[0]}, not {made[1]}" if made[0] == "observing" else f"{made[0]}, {made[1]}"
        shown.add_row(label, *ratios, "" if seconds is None else f"{seconds:.0f}")
    return shown
