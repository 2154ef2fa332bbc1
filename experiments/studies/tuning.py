"""Tuning the compared methods on a simulator, all with the same budget of 25 settings.

Five sizes are among them wherever a method leaves the size fixed, so that none loses for the size
that the paper's comparison gave it.
"""

import itertools
from typing import Any

import numpy as np

from ltd_jax.baselines.rules import scale_levels, size_for
from ltd_jax.config import CycleConfig
from ltd_jax.policies.policy import Policy
from ltd_jax.replay import profile, simulate
from ltd_jax.replay.profile import Overhead
from ltd_jax.replay.simulate import Simulator

VARIED: dict[str, dict[str, tuple[float, ...]]] = {  # two fields, five values of each
    "ddd": {"threshold": (-0.3, -0.6, -1.0, -1.5, -2.5), "size": ()},  # () = of the cycle's
    "svip": {"threshold": (0.2, 0.3, 0.4, 0.55, 0.75), "size": ()},
    "gammatune": {"share": (0.1, 0.2, 0.3, 0.5, 0.8), "size": ()},
    "gammatune+": {"confidence": (0.2, 0.3, 0.4, 0.55, 0.7), "size": ()},
    "disco": {"threshold": (0.2, 0.35, 0.5, 0.65, 0.8), "size": ()},
    "specdec++": {"threshold": (0.3, 0.5, 0.7, 0.85, 0.95), "size": ()},
    "c2t": {"threshold": (0.1, 0.2, 0.3, 0.4, 0.5), "most_levels": (4, 6, 8, 10, 12)},
    # trees up to four times as wide as a chain, and how readily levels grow
    "tiers": {"sizes": (1, 1.5, 2, 3, 4), "up": (-0.5, -0.25, 0.0, 0.25, 0.5)},
    # what time is worth, and first ratios
    "cost-aware": {"speedup": (0.6, 0.9, 1.2, 1.6, 2.2), "ratio": (0.3, 0.45, 0.6, 0.8, 1.0)},
}


def list_settings(name: str, published: Any, config: CycleConfig) -> list[Any]:
    """Policies that tuning tries of a method, given the one with its published settings."""
    if published.is_constant:
        return []  # tuned as the best constant
    if name == "ddd":
        published = published.replace(checks=tuple(range(1, config.max_levels + 1)))
    elif name in ("gammatune", "gammatune+"):
        published = published.replace(least_levels=1, step=1.0, most_levels=config.max_levels)
    fields: dict[str, Any] = dict(VARIED[name])
    if "size" in fields:
        fields["size"] = five_sizes(config)
    elif name == "c2t":
        fields["most_levels"] = [scale_levels(levels, config) for levels in fields["most_levels"]]
    elif name == "tiers":
        fields["sizes"] = [
            tuple(size_for(wide * count, config) for count in published.levels)
            for wide in fields["sizes"]
        ]
    return [
        published.replace(**dict(zip(fields, values, strict=True)))
        for values in itertools.product(*fields.values())
    ]


def five_sizes(config: CycleConfig) -> list[int]:
    """Sizes from the smallest tree to the largest, evenly among a cycle's."""
    sizes = [size for size in config.sizes if size > 0] or [0]
    return [sizes[round(place)] for place in np.linspace(0, len(sizes) - 1, 5)]


def tune(simulator: Simulator, name: str, published: Policy, overhead: Overhead) -> Policy:
    """The best of a method's settings by throughput, of equal ones the first.

    Args:
      published: the method as published, which stays where there is nothing to set.
      overhead: of its decisions, the same with all settings.
    """
    charged = profile.with_overhead(simulator, overhead)
    rate = lambda policy: float(simulate.throughput(simulate.run(charged, policy)))
    grid = list_settings(name, published, simulator.config)
    return max(grid, key=rate, default=published)
