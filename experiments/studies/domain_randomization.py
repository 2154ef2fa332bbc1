"""Many latency tables: drawn in the range of known hardware, and one simulator under all of them.

What a device costs is described by a few numbers in plain steps: drafting starts and goes on in a
line, verifying is a line with one bend, decisions cost what they cost. Numbers are drawn between
the smallest and the largest of known tables (log-uniformly, a quarter further on both sides), so
that what was assumed is what was measured.

In a simulator under many tables every text is decoded on a device of its own, so all that learns on
a simulator learns on many tables. Times are scaled so that a table's best constant setting gives
one token per unit of time: a throughput is a ratio over the best constant, and no table counts more
than another.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.latency import LatencyTable, additive
from ltd_jax.replay.simulate import Simulator

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


def costs_of(table: LatencyTable) -> Costs:
    """The description of a table, at the mean of its contexts."""
    plain = float(table.plain_seconds.mean())
    cycle_DV, verify_V = table.cycle_seconds.mean(axis=0), table.verify_seconds.mean(axis=0)
    draft_D, sizes = table.draft_seconds.mean(axis=0), table.sizes
    middle, last = len(sizes) // 2, len(sizes) - 1
    rise = lambda low, high: float(cycle_DV[0, high] - cycle_DV[0, low])
    whole = cycle_DV[0, 0] / (draft_D[0] + verify_V[0])  # parts timed alone miss the rest
    return Costs(
        first_level=float(draft_D[0] * whole / plain),
        level=float((cycle_DV[-1, 0] - cycle_DV[0, 0]) / max(table.max_levels - 1, 1) / plain),
        start=float(verify_V[0] * whole / plain),
        lower=rise(0, middle) / max(sizes[middle] - sizes[0], 1) / plain,
        upper=rise(middle, last) / max(sizes[last] - sizes[middle], 1) / plain,
        depth_decision=table.depth_seconds / plain,
        size_decision=table.size_seconds / plain,
    )


def draw_tables(
    known: Sequence[LatencyTable], config: CycleConfig, count: int, seed: int
) -> list[LatencyTable]:
    """Tables at one context, whose plain step takes 1 second."""
    random = np.random.default_rng(seed)
    values = np.maximum([costs_of(table) for table in known], LEAST)
    low, high = np.log(values.min(axis=0) / MARGIN), np.log(values.max(axis=0) * MARGIN)
    drawn = np.exp(random.uniform(low, high, (count, len(Costs._fields))))
    return [table_of(Costs(*row.tolist()), config) for row in drawn]


def table_of(costs: Costs, config: CycleConfig) -> LatencyTable:
    """The table of a described device for the levels and sizes of a cycle; contexts (0,)."""
    levels, sizes = np.arange(config.max_levels), np.asarray(config.sizes)
    bend = sizes[len(sizes) // 2]
    nodes_below = np.minimum(sizes, bend) - sizes[0]
    verify = costs.start + costs.lower * nodes_below + costs.upper * np.maximum(sizes - bend, 0)
    return additive(
        contexts=(0,),
        sizes=config.sizes,
        draft_seconds=(costs.first_level + costs.level * levels)[None],
        verify_seconds=verify[None],
        plain_seconds=np.ones(1),
        decision_seconds=(costs.depth_decision, costs.size_decision),
        provenance={"kind": "synthetic", "device": "synthetic", "dtype": "float32"},
    )


@dataclasses.dataclass(frozen=True, eq=False)
class UnderTables:
    """Texts under tables."""

    simulator: Simulator  # `copies` of all texts, one after the other
    table_index: np.ndarray  # [P] i32 into the tables, of every position


def under_tables(
    simulator: Simulator, tables: Sequence[LatencyTable], copies: int, seed: int
) -> UnderTables:
    """Gives every copy of a text one of the tables, at the mean of its contexts."""
    texts = list(range(len(simulator.text_start))) * copies
    table_of_text = np.random.default_rng(seed).permutation(len(texts)) % len(tables)
    tiled = simulate.take_texts(simulator.replace(seconds=()), texts)  # times come below
    positions = np.arange(len(tiled.tokens_left))
    text_P = np.searchsorted(np.asarray(tiled.text_start), positions, side="right") - 1
    index_P = table_of_text[text_P].astype(np.int32)
    units_KDV = np.stack([_in_units(simulator, table) for table in tables])
    under = tiled.replace(
        seconds=jnp.asarray(units_KDV, jnp.float32)[index_P],
        depth_seconds=jnp.float32(0.0),  # decisions are part of the cycles
        size_seconds=jnp.float32(0.0),
        plain_seconds=jnp.float32(1.0),
    )
    return UnderTables(under, index_P)


def _in_units(simulator: Simulator, table: LatencyTable) -> np.ndarray:
    """Cycles with their decisions [D, V], in units of the best constant setting's time a token."""
    best = optimum.best_constant(simulate.with_latency(simulator, table))
    decisions_D = np.arange(1, table.max_levels + 1) * table.depth_seconds
    whole_DV = table.cycle_seconds.mean(axis=0) + decisions_D[:, None] + table.size_seconds
    return whole_DV * best.tokens_per_second
