"""The paper's numbers (arXiv 2603.01639v1, one NVIDIA A100), read from paper.json.

Speedups are over plain decoding, `committed` is the paper's tau. Figure 2 (left) and Figure 6 are
read off pictures by eye, about 3% and one percentage point off at worst. Methods have this
library's names: the paper's "grid search" is the best constant. Its C2T removes no node as far as
can be seen (its committed tokens are EAGLE-3's), so its numbers stand beside `c2t-as-run`. In
Table 11 EAGLE-3's constants are those of the Griffin draft.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_JSON: dict[str, Any] = json.loads(Path(__file__).with_name("paper.json").read_text("utf-8"))

*TASKS, MEAN = _JSON["tasks"]


class Cell(NamedTuple):
    """One method on one task."""

    speedup: float
    committed: float  # tokens per cycle


class PaperRow(NamedTuple):
    """One method on all tasks."""

    method: str
    cells: tuple[Cell, ...]  # in the order of TASKS
    mean: Cell


class PaperTable(NamedTuple):
    """Speedup and committed tokens by method, of one model."""

    name: str
    subject: str
    model: str
    rows: tuple[PaperRow, ...]

    def row(self, method: str) -> PaperRow:
        """One method's row; StopIteration where the paper has none."""
        return next(row for row in self.rows if row.method == method)


class Overhead(NamedTuple):
    """Table 9: the policies' own time while one question is decoded, and their share of it."""

    model: str
    size_milliseconds: float
    depth_milliseconds: float
    total_seconds: float
    size_share: float
    depth_share: float


class Width(NamedTuple):
    """Table 10: speedup by the size policy's hidden layers, Llama-3.1-8B."""

    hidden: str
    speedups: tuple[float, ...]  # in the order of TASKS
    mean: float


class PartTimes(NamedTuple):
    """Figure 2 (left): milliseconds of the parts of a cycle."""

    model: str
    draft: tuple[float, ...]  # of 1, 2, ... draft passes
    sizes: tuple[int, ...]  # drafted nodes verified
    verify: tuple[float, ...]


class Choices(NamedTuple):
    """Figure 6: shares of cycles; shallow = at most 6 levels, narrow = at most 60 nodes."""

    policies: str  # "iter0" (before the alternation) or "ltd"
    accepted: str  # "few" (at most 6) or "many"
    shallow_narrow: float
    deep_narrow: float
    shallow_wide: float
    deep_wide: float


PLACES = ("shallow_narrow", "deep_narrow", "shallow_wide", "deep_wide")


def tables(name: str) -> tuple[PaperTable, ...]:
    """The tables of a name such as "Table 1", one per model, in the paper's order."""
    return tuple(_table(table) for table in _JSON["tables"] if table["name"] == name)


def _table(table: dict[str, Any]) -> PaperTable:
    rows = []
    for method, numbers in table["rows"].items():
        *by_task, mean = (Cell(*pair) for pair in numbers)
        rows.append(PaperRow(method, tuple(by_task), mean))
    return PaperTable(table["name"], table["subject"], table["model"], tuple(rows))


def as_json(papers: Sequence[PaperTable]) -> list[dict[str, Any]]:
    """One object per table and method: table, model, method, and speedup and committed by task."""
    return [
        {"table": table.name, "model": table.model, "method": row.method}
        | {
            task: cell._asdict()
            for task, cell in zip((*TASKS, MEAN), (*row.cells, row.mean), strict=True)
        }
        for table in papers
        for row in table.rows
    ]


def _tuples(numbers: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(one) if isinstance(one, list) else one for key, one in numbers.items()}


TABLE1, TABLE5, TABLE11 = (tables(f"Table {number}") for number in (1, 5, 11))
TABLE2, TABLE4, TABLE6, TABLE7, TABLE8 = (
    tables(f"Table {number}")[0] for number in (2, 4, 6, 7, 8)
)
TABLE9 = tuple(Overhead(**row) for row in _JSON["table9"])
TABLE10 = tuple(Width(**_tuples(row)) for row in _JSON["table10"])
FIGURE2 = PartTimes(**_tuples(_JSON["figure2"]))
FIGURE6 = tuple(Choices(**row) for row in _JSON["figure6"])
