"""Tuning the compared methods on a simulator, all with the same budget of settings.

A method's grid has at most BUDGET settings; five sizes are among them wherever a method leaves the
size fixed, so that none loses for the size that the paper's comparison gave it.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ltd_jax.baselines.catalogue import Baseline, Needs
from ltd_jax.baselines.rules import scale_levels, size_for
from ltd_jax.config import CycleConfig
from ltd_jax.policies.policy import Policy
from ltd_jax.replay import profile, simulate
from ltd_jax.replay.profile import Overhead
from ltd_jax.replay.simulate import Simulator

BUDGET = 25  # settings that are tried of a method, at most
VARIED: dict[str, tuple[str, tuple[float, ...]]] = {  # one field, each value with five sizes
    "ddd": ("threshold", (-0.3, -0.6, -1.0, -1.5, -2.5)),
    "svip": ("threshold", (0.2, 0.3, 0.4, 0.55, 0.75)),
    "gammatune": ("share", (0.1, 0.2, 0.3, 0.5, 0.8)),
    "gammatune+": ("confidence", (0.2, 0.3, 0.4, 0.55, 0.7)),
    "disco": ("threshold", (0.2, 0.35, 0.5, 0.65, 0.8)),
    "specdec++": ("threshold", (0.3, 0.5, 0.7, 0.85, 0.95)),
}


def list_settings(name: str, published: Any, config: CycleConfig) -> list[Any]:
    """Policies that tuning tries of a method, given the one with its published settings."""
    if published.is_constant:
        return []  # tuned as the best constant
    if name == "tiers":  # trees up to four times as wide as a chain, and how readily levels grow
        return [
            published.replace(
                sizes=tuple(size_for(wide * count, config) for count in published.levels), up=up
            )
            for wide, up in itertools.product((1, 1.5, 2, 3, 4), (-0.5, -0.25, 0.0, 0.25, 0.5))
        ]
    if name == "c2t":
        return [
            published.replace(threshold=threshold, most_levels=scale_levels(levels, config))
            for threshold in (0.1, 0.2, 0.3, 0.4, 0.5)
            for levels in (4, 6, 8, 10, 12)
        ]
    if name == "cost-aware":  # what time is worth, and first ratios
        return [
            published.replace(speedup=speedup, ratio=ratio)
            for speedup in (0.6, 0.9, 1.2, 1.6, 2.2)
            for ratio in (0.3, 0.45, 0.6, 0.8, 1.0)
        ]
    if name == "ddd":
        published = published.replace(checks=tuple(range(1, config.max_levels + 1)))
    elif name in ("gammatune", "gammatune+"):
        published = published.replace(least_levels=1, step=1.0, most_levels=config.max_levels)
    field, values = VARIED[name]
    return [
        published.replace(**{field: value, "size": size})
        for value in values
        for size in five_sizes(config)
    ]


def five_sizes(config: CycleConfig) -> list[int]:
    """Sizes from the smallest tree to the largest, evenly among a cycle's."""
    sizes = [size for size in config.sizes if size > 0] or [0]
    return [sizes[round(place)] for place in np.linspace(0, len(sizes) - 1, 5)]


@dataclasses.dataclass(frozen=True, eq=False)
class Tuned:
    """A method at one setting, and what the simulator that it was tried on predicts."""

    baseline: Baseline
    policy: Policy
    overhead: Overhead  # of its decisions
    tokens_per_second: float


def at_published(
    simulator: Simulator,
    baseline: Baseline,
    needs: Needs,
    overhead_of: Callable[[str, Policy], Overhead],
) -> Tuned:
    """A method at its published settings.

    Args:
      overhead_of: what the decisions of a method cost, by its name and policy.
    """
    policy = baseline.published(simulator.config, needs)
    overhead = overhead_of(baseline.name, policy)
    rate = _tokens_per_second(profile.with_overhead(simulator, overhead), policy)
    return Tuned(baseline, policy, overhead, rate)


def tune(simulator: Simulator, first: Tuned) -> Tuned:
    """The best of a method's grid by throughput; of equal ones the first.

    Args:
      first: the method at its published settings, whose overhead all settings share.
    """
    grid = list_settings(first.baseline.name, first.policy, simulator.config)
    if len(grid) > BUDGET:
        raise ValueError(f"{first.baseline.name} has a grid of {len(grid)} settings.")
    if not grid:
        return first
    charged = profile.with_overhead(simulator, first.overhead)
    rates = [_tokens_per_second(charged, policy) for policy in grid]
    chosen = int(np.argmax(rates))
    return dataclasses.replace(first, policy=grid[chosen], tokens_per_second=rates[chosen])


def _tokens_per_second(simulator: Simulator, policy: Policy) -> float:
    return float(simulate.throughput(simulate.run(simulator, policy, charge_decisions=True)))
