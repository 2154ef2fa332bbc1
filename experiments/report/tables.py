"""Rows of a report as short texts: for the page, for the terminal, beside the paper's numbers."""

from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.report.schema import METHODS, MethodRow, Report
from experiments.report.sentences import mean_row
from experiments.report.texts import METHOD_NAMES, NONE, percent, rate, task_name, times


class Cells(NamedTuple):
    """One method on one task, as texts."""

    method: str
    tokens_per_second: str
    speedup: str
    interval: str
    committed: str
    levels: str
    size: str
    draft: str
    verify: str
    policy: str
    rest: str


class Comparison(NamedTuple):
    """One quantity here and in the paper."""

    quantity: str
    here: str
    paper: str


def tasks_of(report: Report) -> list[str]:
    """The tasks that have rows, in the report's order, the mean last."""
    found = dict.fromkeys(row["task"] for row in report["methods"])
    return sorted(found, key=lambda task: task == "mean")


def rows_of(report: Report, task: str) -> list[MethodRow]:
    """The task's rows in the schema's order of methods."""
    rows = [row for row in report["methods"] if row["task"] == task]
    return sorted(rows, key=lambda row: METHODS.index(row["method"]))


def cells(row: MethodRow) -> Cells:
    """One row as texts; what does not apply to plain decoding is a dash."""
    plain = row["method"] == "autoregressive"
    return Cells(
        method=METHOD_NAMES[row["method"]],
        tokens_per_second=rate(row["tokens_per_second"]),
        speedup=times(row["speedup"]),
        interval=NONE if plain else f"{row['speedup_low']:.2f}–{row['speedup_high']:.2f}",
        committed=f"{row['committed_per_cycle']:.2f}",
        levels=NONE if plain else f"{row['levels_mean']:.2f}",
        size=NONE if plain else f"{row['size_mean']:.2f}",
        draft=percent(row["draft_share"]),
        verify=percent(row["verify_share"]),
        policy=percent(row["policy_share"]),
        rest=percent(rest_share(row)),
    )


def rest_share(row: MethodRow) -> float:
    """Share of the cycle outside draft, verify and policy.

    Below 0 where the parts, timed alone, take longer than the whole.
    """
    return 1 - row["draft_share"] - row["verify_share"] - row["policy_share"]


def terminal_table(report: Report) -> Table:
    """The result table for the end of a command, one section per task, 80 columns wide."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", collapse_padding=True, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for heading in ("tokens/s", "speedup", "95 %", "commit.", "levels", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task in tasks_of(report):
        for index, row in enumerate(rows_of(report, task)):
            style = "bold" if row["method"] == "ltd" else None
            texts = cells(row)[:7]
            table.add_row(task if index == 0 else "", *texts, style=style)
        table.add_section()
    return table


def without_repetition(report: Report) -> list[tuple[str, str, str, str]]:
    """Task and method, share left out, committed tokens, speedup; ordered by task."""
    order = dict.fromkeys(row["task"] for row in report["without_repetition"])
    tasks = sorted(order, key=lambda task: task == "mean")
    rows = sorted(report["without_repetition"], key=lambda row: tasks.index(row["task"]))
    return [
        (
            f"{task_name(row['task'])}: {METHOD_NAMES[row['method']]}",
            percent(row["repetition_share"]),
            f"{row['committed_per_cycle']:.2f}",
            times(row["speedup"]),
        )
        for row in rows
    ]


def beside_paper(report: Report) -> list[Comparison]:
    """Means of tasks beside the paper's (Tables 1 and 9: five models of 8 to 32 B on an A100)."""
    ratio = report["ltd_over_best_constant"]["ratio"]
    ltd, constant, eagle3 = (
        mean_row(report, method) for method in ("ltd", "best_constant", "eagle3")
    )
    committed = NONE if ltd is None else f"{ltd['committed_per_cycle']:.2f}"
    policies = NONE if ltd is None else percent(ltd["policy_share"])
    return [
        Comparison("LTD over plain decoding", _speedup(ltd), "2.37x–4.32x"),
        Comparison("Best constant over plain decoding", _speedup(constant), "1.81x–4.22x"),
        Comparison("EAGLE-3 default over plain decoding", _speedup(eagle3), "3.68x–4.11x"),
        Comparison("LTD over best constant", times(ratio), "1.02x–1.09x, once 1.36x"),
        Comparison("Committed tokens per cycle, LTD", committed, "3.13–7.00"),
        Comparison("Policies' share of the time", policies, "1.2 %–1.4 %"),
    ]


def _speedup(row: MethodRow | None) -> str:
    return NONE if row is None else times(row["speedup"])
