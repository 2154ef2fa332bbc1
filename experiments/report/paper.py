"""The paper's numbers (arXiv 2603.01639v1, one NVIDIA A100), as experiments print them beside ours.

Speedups are over plain decoding, `committed` is the paper's tau. Figure 2 (left) and Figure 6 are
read off pictures by eye, about 3 % and one percentage point off at worst.
"""

from typing import NamedTuple

TASKS = ("mt_bench", "gsm8k", "alpaca", "qa")


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
    """Speedup and committed tokens by method."""

    name: str
    subject: str  # of the ablation
    model: str
    rows: tuple[PaperRow, ...]

    def row(self, method: str) -> PaperRow:
        """One method's row."""
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
    """Figure 6: share of cycles; shallow = at most 6 levels, narrow = at most 60 nodes."""

    policies: str  # "iter0" or "ltd"
    accepted: str  # "few" (at most 6) or "many"
    shallow_narrow: float
    deep_narrow: float
    shallow_wide: float
    deep_wide: float


def _row(method: str, *cells: tuple[float, float]) -> PaperRow:
    *tasks, mean = (Cell(*cell) for cell in cells)
    return PaperRow(method, tuple(tasks), mean)


TABLE2 = PaperTable(
    "Table 2",
    "reward of the size policy, which learns alone",
    "Vicuna-13B",
    (
        _row("accepted", (3.77, 7.7), (3.81, 7.2), (3.71, 7.05), (3.06, 5.61), (3.59, 6.89)),
        _row("time", (3.89, 6.49), (3.54, 5.8), (3.48, 5.79), (2.87, 4.54), (3.45, 5.66)),
        _row("paper", (4.4, 7.68), (4.43, 7.1), (4.23, 7.0), (3.47, 5.56), (4.13, 6.84)),
    ),
)
TABLE4 = PaperTable(
    "Table 4",
    "components",
    "Vicuna-13B",
    (
        _row("eagle3", (4.48, 7.22), (4.36, 6.58), (4.16, 6.47), (3.43, 5.12), (4.11, 6.35)),
        _row(
            "without_depth_policy",
            (4.4, 7.68),
            (4.43, 7.1),
            (4.23, 7.0),
            (3.47, 5.56),
            (4.13, 6.84),
        ),
        _row(
            "without_size_policy",
            (4.77, 7.75),
            (4.46, 6.82),
            (4.36, 6.59),
            (3.55, 5.12),
            (4.29, 6.57),
        ),
        _row(
            "without_iterative_training",
            (4.54, 8.29),
            (4.48, 7.41),
            (4.28, 7.08),
            (3.51, 5.45),
            (4.2, 7.06),
        ),
        _row("ltd", (4.64, 8.24), (4.59, 7.38), (4.4, 7.01), (3.66, 5.37), (4.32, 7.0)),
    ),
)
TABLE6 = PaperTable(
    "Table 6",
    "what the policies see: probabilities, levels, length, hidden states, entropy",
    "Vicuna-13B",
    (
        _row("P+L", (4.35, 7.68), (4.3, 7.1), (4.18, 7.0), (3.35, 5.55), (4.05, 6.83)),
        _row("P+D", (4.31, 7.68), (4.35, 7.1), (4.22, 7.0), (3.41, 5.56), (4.07, 6.84)),
        _row("P+D+L", (4.4, 7.68), (4.43, 7.1), (4.23, 7.0), (3.47, 5.56), (4.13, 6.84)),
        _row("P+D+L+H", (4.4, 7.53), (4.32, 6.97), (4.22, 6.94), (3.44, 5.51), (4.1, 6.74)),
        _row("P+D+L+E", (4.36, 7.68), (4.36, 7.1), (4.28, 7.0), (3.43, 5.56), (4.11, 6.84)),
    ),
)
TABLE7 = PaperTable(
    "Table 7",
    "iterations of the alternation",
    "Llama-3.1-8B",
    (
        _row("eagle3", (3.7, 6.39), (3.58, 6.44), (4.26, 6.93), (3.17, 5.35), (3.68, 6.28)),
        _row("iter0", (3.88, 6.46), (3.76, 6.4), (4.34, 6.82), (3.5, 5.12), (3.87, 6.2)),
        _row("iter1", (3.95, 6.5), (3.8, 6.47), (4.36, 6.89), (3.5, 5.18), (3.9, 6.26)),
        _row("iter2", (3.96, 6.74), (3.79, 6.73), (4.53, 7.31), (3.41, 5.44), (3.92, 6.56)),
        _row("iter3", (3.93, 6.74), (3.73, 6.73), (4.57, 7.31), (3.44, 5.44), (3.92, 6.56)),
    ),
)
TABLE8 = PaperTable(
    "Table 8",
    "iterations of the alternation",
    "DeepSeek-R1-Distill-Llama-8B",
    (
        _row("eagle3", (3.67, 5.82), (4.73, 7.39), (3.65, 5.63), (3.14, 5.02), (3.8, 5.53)),
        _row("iter0", (3.88, 5.95), (4.69, 8.03), (3.68, 5.63), (3.37, 5.07), (3.91, 5.72)),
        _row("iter1", (3.96, 5.98), (4.92, 8.14), (3.86, 5.67), (3.46, 5.08), (4.05, 5.78)),
        _row("iter2", (4.02, 6.22), (4.94, 8.36), (3.71, 5.91), (3.52, 5.29), (4.05, 5.97)),
        _row("iter3", (4.05, 6.32), (4.98, 8.53), (3.98, 6.0), (3.62, 5.37), (4.16, 6.08)),
    ),
)
TABLE9 = (
    Overhead("Llama-3.1-8B", 9.96, 18.8, 2.07, 0.00483, 0.00909),
    Overhead("Vicuna-13B", 7.26, 14.5, 1.81, 0.00414, 0.0081),
)
TABLE10 = (
    Width("1024", (3.84, 3.99, 4.39, 3.22), 3.86),
    Width("1024-256", (3.95, 4.03, 4.44, 3.24), 3.92),
    Width("1024-512-256", (3.96, 4.07, 4.43, 3.25), 3.93),
)
FIGURE2 = PartTimes(
    "Vicuna-13B",
    draft=(3.9, 5.5, 7.2, 8.9, 10.3, 11.9, 13.7, 15.3, 16.7, 18.2),
    sizes=(20, 40, 60, 80, 100, 120, 140, 160, 180, 200),
    verify=(33.5, 32.8, 33.5, 33.9, 35.3, 35.7, 43.7, 45.0, 46.4, 53.1),
)
FIGURE6 = (
    Choices("iter0", "few", 0.74, 0.0, 0.11, 0.16),
    Choices("iter0", "many", 0.62, 0.0, 0.1, 0.28),
    Choices("ltd", "few", 0.35, 0.0, 0.38, 0.27),
    Choices("ltd", "many", 0.22, 0.0, 0.35, 0.43),
)
