"""What there is to gain on a replay: the best constant setting and the clairvoyant optimum.

The optimum chooses levels and size of every cycle knowing the text: the least total time to the end
of each text, by a backward dynamic programme over positions. It pays for no decisions, so every
policy is reported as a share of the way from the best constant to a bound that it cannot pass.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import Simulator


class BestConstant(NamedTuple):
    """The constant setting of highest throughput."""

    levels: int
    size: int  # verified nodes, one of config.sizes
    tokens_per_second: float


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """The clairvoyant optimum (numpy, on the host)."""

    tokens_per_second: float
    seconds: np.ndarray  # [P] f64 least time from each position to the end of its text
    levels: np.ndarray  # [P] i32 the best levels at each position, 1..D
    size: np.ndarray  # [P] i32 the best index into config.sizes at each position


def best_constant(replay: Simulator, config: CycleConfig) -> BestConstant:
    """The best of all D * V constant settings; of equal ones the one with fewest levels."""
    rate_DV = np.asarray(simulate.throughput(simulate.constants(replay, config)))
    levels, size = np.unravel_index(np.argmax(rate_DV), rate_DV.shape)
    return BestConstant(int(levels) + 1, config.sizes[size], float(rate_DV[levels, size]))


def dynamic_programme(replay: Simulator) -> Optimum:
    """The clairvoyant optimum: at every position the cycle after which least time is left.

        seconds[p] = min over (levels, size) of t[p, levels, size] + seconds[p + committed],
        and no time is left where the text is over.

    All texts go backward together: a position depends only on those with fewer tokens remaining.
    """
    remaining_P = np.asarray(replay.remaining)
    accepted_PDV = np.asarray(replay.accepted)
    order_P = np.argsort(remaining_P, kind="stable")
    groups = np.split(order_P, np.flatnonzero(np.diff(remaining_P[order_P])) + 1)
    left = np.zeros(len(remaining_P))
    action = np.zeros(len(remaining_P), np.int64)
    for group in groups:
        remaining = remaining_P[group[0]]
        committed = np.minimum(accepted_PDV[group].astype(np.int64) + 1, remaining)
        behind = np.minimum(group[:, None, None] + committed, len(left) - 1)
        total = _cycle_seconds(replay, group) + np.where(committed < remaining, left[behind], 0.0)
        total = total.reshape(len(group), -1)
        action[group], left[group] = total.argmin(1), total.min(1)
    first = np.asarray(replay.first)
    levels, size = np.unravel_index(action, accepted_PDV.shape[1:])
    rate = float(remaining_P[first].sum() / left[first].sum())
    return Optimum(rate, left, levels.astype(np.int32) + 1, size.astype(np.int32))


def share_gained(learned: float, constant: float, optimum: float) -> float:
    """(learned - constant) / (optimum - constant), tokens per second; nan with nothing to gain.

    Negative where the policy is slower than the best constant.
    """
    return (learned - constant) / (optimum - constant) if optimum > constant else math.nan


def _cycle_seconds(replay: Simulator, positions: np.ndarray) -> np.ndarray:
    """f64 [len(positions), D, V]; numpy's twin of the time in `cycles.outcome`."""
    seconds = np.asarray(replay.seconds, np.float64)
    row = np.asarray(replay.context)[positions]
    share = np.asarray(replay.share, np.float64)[positions][:, None, None]
    return (1 - share) * seconds[row] + share * seconds[np.minimum(row + 1, len(seconds) - 1)]
