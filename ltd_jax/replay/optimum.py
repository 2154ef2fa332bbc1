"""What there is to gain on a trace: the best constant setting and the clairvoyant optimum.

The optimum chooses levels and size of every cycle knowing the text: the least total time to the end
of each text, by a backward dynamic programme over positions. It pays for no decisions, so every
policy is reported as a share of the way from the best constant to a bound that it cannot pass.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from ltd_jax.policies.policy import Constant
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import Simulator


class BestConstant(NamedTuple):
    """The constant setting of highest throughput."""

    levels: int
    size: int  # verified nodes, one of config.sizes
    tokens_per_second: float

    @property
    def policy(self) -> Constant:
        """The setting as a policy."""
        return Constant(self.levels, self.size)


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """The clairvoyant optimum (numpy, on the host)."""

    tokens_per_second: float
    seconds: np.ndarray  # [P] f64 least time from each position to the end of its text
    levels: np.ndarray  # [P] i32 the best levels at each position, 1..D
    size_index: np.ndarray  # [P] i32 index into config.sizes of the best size at each position


def best_constant(simulator: Simulator) -> BestConstant:
    """The best of all D * V constant settings; of equal ones the one with fewest levels.

    Example, with `Simulator`'s:
      >>> best = ltd.best_constant(simulator)
      >>> steps = list(ltd.generate(pair, best.policy, "def f(x):", new_tokens=8))
      >>> all(step.levels == best.levels for step in steps[1:])
      True
    """
    rate_DV = np.asarray(simulate.throughput(simulate.constants(simulator)))
    row, size_index = np.unravel_index(np.argmax(rate_DV), rate_DV.shape)
    size = simulator.config.sizes[size_index]
    return BestConstant(int(row) + 1, size, float(rate_DV[row, size_index]))


def clairvoyant(simulator: Simulator) -> Optimum:
    """The clairvoyant optimum: at every position the cycle after which least time is left.

        seconds[p] = min over (levels, size) of t[p, levels, size] + seconds[p + committed],
        and no time is left where the text is over.

    All texts go backward together: a position depends only on those with fewer tokens left.

    Example, with `Simulator`'s:
      >>> most = ltd.optimum(simulator).tokens_per_second
      >>> most >= ltd.best_constant(simulator).tokens_per_second
      True
    """
    left_P, accepted_PDV = np.asarray(simulator.tokens_left), np.asarray(simulator.accepted)
    seconds_PDV = np.asarray(simulator.seconds, np.float64)
    order_P = np.argsort(left_P, kind="stable")
    groups = np.split(order_P, np.flatnonzero(np.diff(left_P[order_P])) + 1)
    least_P = np.zeros(len(left_P))
    action_P = np.zeros(len(left_P), np.int64)
    for group in groups:
        left = left_P[group[0]]
        committed = np.minimum(accepted_PDV[group].astype(np.int64) + 1, left)
        after = np.minimum(group[:, None, None] + committed, len(left_P) - 1)
        total = seconds_PDV[group] + np.where(committed < left, least_P[after], 0.0)
        total = total.reshape(len(group), -1)
        action_P[group], least_P[group] = total.argmin(1), total.min(1)
    start = np.asarray(simulator.text_start)
    row, size_index = np.unravel_index(action_P, accepted_PDV.shape[1:])
    rate = float(left_P[start].sum() / least_P[start].sum())
    return Optimum(rate, least_P, row.astype(np.int32) + 1, size_index.astype(np.int32))


def mean_of_tasks(simulator: Simulator) -> float:
    """Tokens per second of the clairvoyant optimum, the mean over tasks."""
    start = np.asarray(simulator.text_start)
    tokens, seconds = np.asarray(simulator.tokens_left)[start], clairvoyant(simulator).seconds
    return float(simulate.mean_of_tasks(simulator, tokens, seconds[start]))


def share_gained(learned: float, constant: float, optimum: float) -> float:
    """(learned - constant) / (optimum - constant), tokens per second; nan with nothing to gain.

    Negative where the policy is slower than the best constant.
    """
    return (learned - constant) / (optimum - constant) if optimum > constant else math.nan
