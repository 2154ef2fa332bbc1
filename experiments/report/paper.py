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
PLACES = ("shallow_narrow", "deep_narrow", "shallow_wide", "deep_wide")


class Cell(NamedTuple):
    """One method on one task."""

    speedup: float
    committed: float  # tokens per cycle


class PaperRow(NamedTuple):
    """One method on all tasks."""

    cells: tuple[Cell, ...]  # in the order of TASKS
    mean: Cell


class PaperTable(NamedTuple):
    """Speedup and committed tokens by method, of one model."""

    name: str
    model: str
    rows: dict[str, PaperRow]


class PartTimes(NamedTuple):
    """Figure 2 (left): milliseconds of the parts of a cycle."""

    model: str
    draft: tuple[float, ...]  # of 1, 2, ... draft passes
    sizes: tuple[int, ...]  # drafted nodes verified
    verify: tuple[float, ...]


def _tables(number: int) -> tuple[PaperTable, ...]:
    """The tables of a number, one per model, in the paper's order."""
    found = [table for table in _JSON["tables"] if table["name"] == f"Table {number}"]
    return tuple(PaperTable(table["name"], table["model"], _rows(table["rows"])) for table in found)


def _rows(numbers: dict[str, Any]) -> dict[str, PaperRow]:
    cells = {name: [Cell(*pair) for pair in pairs] for name, pairs in numbers.items()}
    return {name: PaperRow(tuple(by_task), mean) for name, (*by_task, mean) in cells.items()}


def as_json(papers: Sequence[PaperTable]) -> list[dict[str, Any]]:
    """One object per table and method: table, model, method, and speedup and committed by task."""
    return [
        {"table": table.name, "model": table.model, "method": method}
        | {
            task: cell._asdict()
            for task, cell in zip((*TASKS, MEAN), (*row.cells, row.mean), strict=True)
        }
        for table in papers
        for method, row in table.rows.items()
    ]


TABLE1, TABLE5, TABLE11 = map(_tables, (1, 5, 11))
(TABLE2,), (TABLE4,), (TABLE6,), (TABLE7,), (TABLE8,) = map(_tables, (2, 4, 6, 7, 8))
TABLE9: list[dict[str, Any]] = _JSON["table9"]  # the policies' own time per question, its share
TABLE10: list[dict[str, Any]] = _JSON["table10"]  # by the size policy's layers, Llama-3.1-8B
_model, *_times = _JSON["figure2"].values()
FIGURE2 = PartTimes(_model, *map(tuple, _times))
# Shares of cycles before ("iter0") and after the alternation ("ltd"); few accepted = at most 6,
# shallow = at most 6 levels, narrow = at most 60 nodes.
FIGURE6: list[dict[str, Any]] = _JSON["figure6"]
