"""One replay under many latency tables: every text is decoded on a device of its own.

A replay finds a position's times by its row of `seconds`; here the rows are tables instead of
contexts, and all positions of a text have the same one. So all that learns on a replay learns on
many tables. Times are scaled so that a table's best constant setting gives one token per unit of
time: a throughput is a ratio over the best constant, and no table counts more than another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import observing_policies
from ltd_jax.config import CycleConfig
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator


class Spread(NamedTuple):
    """Texts under tables."""

    replay: Simulator  # `copies` of all texts, one after the other
    table: np.ndarray  # [P] i32 of every position
    cost: np.ndarray  # [P, COST_COUNT] f32, what observing policies see of it


def spread(
    replay: Simulator, tables: Sequence[LatencyTable], config: CycleConfig, copies: int, seed: int
) -> Spread:
    """Gives every copy of a text one of the tables, at the mean of its contexts."""
    count, texts = replay.remaining.shape[0], replay.first.shape[0]
    table_of_text = np.random.default_rng(seed).permutation(copies * texts) % len(tables)
    tiled = _tiled(replay, count, copies)
    first = np.asarray(tiled.first)
    text_P = np.searchsorted(first, np.arange(copies * count), side="right") - 1
    table_P = table_of_text[text_P].astype(np.int32)
    rows_KDV = np.stack([_units(replay, table, config) for table in tables])
    cost_KC = np.stack([costs_of(table) for table in tables])
    under = tiled.replace(
        context=jnp.asarray(table_P),
        share=jnp.zeros(copies * count),
        seconds=jnp.asarray(rows_KDV, jnp.float32),
        depth_seconds=jnp.float32(0.0),  # decisions are part of the rows
        size_seconds=jnp.float32(0.0),
        plain_seconds=jnp.float32(1.0),
    )
    return Spread(under, table_P, cost_KC[table_P])


def costs_of(table: LatencyTable) -> np.ndarray:
    """What observing policies see of a table, at the mean of its contexts: [COST_COUNT]."""
    return observing_policies.costs(
        table.cycle_seconds.mean(axis=0),
        float(table.plain_seconds.mean()),
        table.depth_seconds,
        table.size_seconds,
    )


def _tiled(replay: Simulator, count: int, copies: int) -> Simulator:
    """Every array over positions or texts, again and again."""
    texts = replay.first.shape[0]

    def again(leaf: jax.Array) -> jax.Array:
        over = leaf.ndim > 0 and leaf.shape[0] in (count, texts)
        return jnp.concatenate([leaf] * copies) if over else leaf

    starts = [replay.first + copy * count for copy in range(copies)]
    return jax.tree.map(again, replay.replace(seconds=())).replace(first=jnp.concatenate(starts))


def _units(replay: Simulator, table: LatencyTable, config: CycleConfig) -> np.ndarray:
    """Cycles with their decisions [D, V], in units of the best constant setting's time a token."""
    best = optimum.best_constant(simulate.with_latency(replay, table, config), config)
    decisions_D = np.arange(1, config.max_levels + 1) * table.depth_seconds
    whole_DV = table.cycle_seconds.mean(axis=0) + decisions_D[:, None] + table.size_seconds
    return whole_DV * best.tokens_per_second
