"""Arrays that a report's plots show and report.json does not hold."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

_BY_LEVELS_AND_SIZE = ("committed", "cycle_seconds", "choices_easy", "choices_hard")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Figures:
    """Host arrays by levels (rows 1..D) and size (columns); plots without their parts are left out.

    Easy places are those where the most that any setting gets accepted is above the median, hard
    places the others. A point of `curves` has `stage`, `decisions`, `seconds` (both since the
    stage's start) and `validation` (tokens per second).

    Raises:
      ValueError: an array is not [D, V], [D] or [V].
    """

    sizes: tuple[int, ...]  # V drafted nodes verified
    committed: np.ndarray | None = None  # [D, V] mean tokens per cycle on the test traces
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
        size_count = len(self.sizes)
        for name, array in self._given(*_BY_LEVELS_AND_SIZE).items():
            if np.ndim(array) != 2 or np.shape(array)[1] != size_count:
                raise ValueError(f"{name} has shape {np.shape(array)}, not [D, {size_count}].")
        for name, array in self._given("draft_seconds").items():
            if np.ndim(array) != 1:
                raise ValueError(f"{name} has shape {np.shape(array)}, not [D].")
        for name, array in self._given("verify_seconds").items():
            if np.shape(array) != (size_count,):
                raise ValueError(f"{name} has shape {np.shape(array)}, not [{size_count}].")
        by_levels = self._given(*_BY_LEVELS_AND_SIZE, "draft_seconds")
        levels = {name: len(array) for name, array in by_levels.items()}
        if len(set(levels.values())) > 1:
            raise ValueError(f"The arrays have different numbers of levels: {levels}.")

    def _given(self, *names: str) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def choices_by_place(self) -> dict[str, np.ndarray]:
        """Cycles [D, V] at "easy places" and "hard places"; places without any are left out."""
        places = {"easy places": self.choices_easy, "hard places": self.choices_hard}
        return {
            name: np.asarray(cycles, float)
            for name, cycles in places.items()
            if cycles is not None and np.sum(cycles) > 0
        }
