"""Latency tables of hardware that does not exist, in the range of hardware that does.

What a device costs is described by a few numbers in plain steps: drafting starts and goes on in a
line, verifying is a line with one bend, decisions cost what they cost. Numbers are drawn between
the smallest and the largest of known tables (log-uniformly, a quarter further on both sides), so
that what was assumed is what was measured.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.replay.latency import LatencyTable, additive

MARGIN = 1.25
LEAST = 1e-4  # of a plain step; a cost of nothing has no logarithm


class Costs(NamedTuple):
    """A device in plain steps."""

    first_level: float  # the first draft pass
    level: float  # each further one
    start: float  # verifying the smallest size
    lower: float  # per node of the lower half of the sizes
    upper: float  # per node of the upper half
    depth_decision: float
    size_decision: float


def costs(table: LatencyTable) -> Costs:
    """What a table says, at the mean of its contexts."""
    plain = float(table.plain_seconds.mean())
    cycle_DV, verify_V = table.cycle_seconds.mean(axis=0), table.verify_seconds.mean(axis=0)
    draft_D, sizes = table.draft_seconds.mean(axis=0), table.sizes
    middle = len(sizes) // 2
    levels = max(table.max_levels - 1, 1)
    whole = (cycle_DV[0, 0]) / (draft_D[0] + verify_V[0])  # parts timed alone miss the rest
    return Costs(
        first_level=float(draft_D[0] * whole / plain),
        level=float((cycle_DV[-1, 0] - cycle_DV[0, 0]) / levels / plain),
        start=float(verify_V[0] * whole / plain),
        lower=_per_node(cycle_DV[0], sizes, 0, middle) / plain,
        upper=_per_node(cycle_DV[0], sizes, middle, len(sizes) - 1) / plain,
        depth_decision=table.depth_seconds / plain,
        size_decision=table.size_seconds / plain,
    )


def _per_node(cycle_V: np.ndarray, sizes: Sequence[int], low: int, high: int) -> float:
    return float(cycle_V[high] - cycle_V[low]) / max(sizes[high] - sizes[low], 1)


def draw(
    known: Sequence[LatencyTable], config: CycleConfig, count: int, seed: int
) -> list[LatencyTable]:
    """Tables at one context, whose plain step takes 1 second."""
    random = np.random.default_rng(seed)
    values = np.maximum([costs(table) for table in known], LEAST)
    low, high = np.log(values.min(axis=0) / MARGIN), np.log(values.max(axis=0) * MARGIN)
    drawn = np.exp(random.uniform(low, high, (count, len(Costs._fields))))
    return [table_of(Costs(*map(float, each)), config) for each in drawn]


def table_of(cost: Costs, config: CycleConfig) -> LatencyTable:
    """The table of a described device for the levels and sizes of a cycle; contexts (0,)."""
    levels, sizes = np.arange(config.max_levels), np.asarray(config.sizes)
    bend = sizes[len(sizes) // 2]
    nodes_below = np.minimum(sizes, bend) - sizes[0]
    verify = cost.start + cost.lower * nodes_below + cost.upper * np.maximum(sizes - bend, 0)
    return additive(
        contexts=(0,),
        sizes=config.sizes,
        draft_seconds=(cost.first_level + cost.level * levels)[None],
        verify_seconds=verify[None],
        plain_seconds=np.ones(1),
        decision_seconds=(cost.depth_decision, cost.size_decision),
        provenance={"kind": "synthetic", "device": "synthetic", "dtype": "float32"},
    )
