"""How two policies choose together: shares of cycles by levels, size and accepted tokens (Fig. 6).

The borders are the paper's (6 of 12 levels, 60 of 240 nodes), relative to the most of a cycle.
"""

from typing import Any

import numpy as np

from experiments.report.study_plots import PLACES
from ltd_jax.config import CycleConfig
from ltd_jax.replay.simulate import CycleList


def shares(cycle: CycleConfig, every: CycleList) -> list[dict[str, Any]]:
    """Among the cycles with few and with many accepted tokens; all 0 where there are none."""
    half = cycle.max_levels // 2
    deep, many = every.levels > half, every.accepted > half
    wide = np.asarray(cycle.sizes)[every.size] > cycle.sizes[-1] // 4
    place = 2 * wide.astype(int) + deep  # in the order of PLACES
    return [
        {"accepted": name, "cycles": int(mask.sum())}
        | dict(zip(PLACES, _shares(place[mask]), strict=True))
        for name, mask in (("few", ~many), ("many", many))
    ]


def _shares(place: np.ndarray) -> list[float]:
    count = np.bincount(place, minlength=len(PLACES))
    return (count / max(count.sum(), 1)).tolist()
