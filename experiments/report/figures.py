"""What the plots show beside `report.json`: arrays over levels and size, and learning curves."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ltd_jax.learning.loop import Point

_BY_LEVELS_AND_SIZE = ("committed", "cycle_seconds", "choices_easy", "choices_hard")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Figures:
    """Arrays on the host; a plot whose parts are None is left out.

    Rows are levels 1..D, columns the sizes. Easy places are those where the most that any setting
    gets accepted is above the median, hard places the others.

    Raises:
      ValueError: an array is not [D, V], [D] or [V].
    """

    sizes: tuple[int, ...]  # V drafted nodes verified
    committed: np.ndarray | None = None  # [D, V] mean tokens per cycle on the test traces
    cycle_seconds: np.ndarray | None = None  # [D, V], nan = not measured
    draft_seconds: np.ndarray | None = None  # [D]
    verify_seconds: np.ndarray | None = None  # [V]
    curves: Sequence[Point] = ()  # all stages in order
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
    def choices(self) -> np.ndarray | None:
        """[D, V] cycles of LTD at all places, None where nothing was counted."""
        counted = list(self._given("choices_easy", "choices_hard").values())
        return np.sum(counted, axis=0) if np.sum(counted) > 0 else None


def mean_choice(choices: np.ndarray, sizes: tuple[int, ...]) -> tuple[float, float]:
    """Mean levels and mean size of [D, V] counted cycles, not all zero."""
    share_DV = np.asarray(choices, float) / np.sum(choices)
    levels_D = np.arange(1, len(share_DV) + 1)
    return float(share_DV.sum(1) @ levels_D), float(share_DV.sum(0) @ np.asarray(sizes))
