"""Arrays that a report's plots show and report.json does not hold."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

_AXES = {
    "tokens_per_second": "DV",
    "committed": "DV",
    "cycle_seconds": "DV",
    "draft_seconds": "D",
    "verify_seconds": "V",
    "choices_easy": "DV",
    "choices_hard": "DV",
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Figures:
    """Host arrays by levels (rows 1..D) and size (columns); plots without their parts are left out.

    Those of the test texts are means of tasks.

    Easy places are those where the most that any setting gets accepted is above the median, hard
    places the others. A point of `curves` has `stage`, `decisions`, `seconds` (both since the
    stage's start) and `validation` (tokens per second).

    Raises:
      ValueError: an array has another shape.
    """

    sizes: tuple[int, ...]  # V drafted nodes verified
    tokens_per_second: np.ndarray | None = None  # [D, V] by replay of the test texts
    committed: np.ndarray | None = None  # [D, V] tokens per cycle of the test texts
    cycle_seconds: np.ndarray | None = None  # [D, V], nan = not measured
    draft_seconds: np.ndarray | None = None  # [D]
    verify_seconds: np.ndarray | None = None  # [V]
    plain_seconds: float | None = None  # of a step of plain decoding
    curves: Sequence[Any] = ()  # points of all stages, in order
    validation_constant: float | None = None  # tokens per second, best constant of the curves' text
    validation_optimum: float | None = None  # tokens per second, clairvoyant, of the same text
    choices_easy: np.ndarray | None = None  # [D, V] cycles of LTD
    choices_hard: np.ndarray | None = None  # [D, V] cycles of LTD

    def __post_init__(self) -> None:
        arrays = {name: getattr(self, name) for name in _AXES if getattr(self, name) is not None}
        levels = [len(array) for name, array in arrays.items() if _AXES[name].startswith("D")]
        lengths = {"D": max(levels, default=0), "V": len(self.sizes)}
        for name, array in arrays.items():
            expected = tuple(lengths[axis] for axis in _AXES[name])
            if np.shape(array) != expected:
                raise ValueError(f"{name} has shape {np.shape(array)}, not {expected}.")

    @property
    def choices_by_place(self) -> dict[str, np.ndarray]:
        """Cycles [D, V] at "easy places" and "hard places"; places without any are left out."""
        places = {"easy places": self.choices_easy, "hard places": self.choices_hard}
        return {
            name: np.asarray(cycles, float)
            for name, cycles in places.items()
            if cycles is not None and np.sum(cycles) > 0
        }
