"""Environments over many latency tables: the same texts, a table drawn for every episode.

Times are scaled so that each table's best constant setting gives one token per unit of time. So one
running throughput serves all tables in the renewal reward, and a throughput is a ratio over the
best constant.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.policies import observing
from ltd_jax.policies.controller import Controller
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import cycles, optimum, retime
from ltd_jax.replay.cycles import Replay
from ltd_jax.replay.environment import Environment, ReplayData, Step
from ltd_jax.replay.latency import LatencyTable


@struct.dataclass
class TablesData:
    """What the environments read; K tables."""

    data: ReplayData  # under any of them; the other policy is an observing one
    seconds: jax.Array  # [K, contexts, D, V] f32 of a whole cycle, in units of the table
    depth_seconds: jax.Array  # [K] f32
    size_seconds: jax.Array  # [K] f32
    plain_seconds: jax.Array  # [K] f32
    cost: jax.Array  # [K, COST_COUNT] f32, what the policies see of the table


@struct.dataclass
class TablePlace:
    """State of an environment over tables."""

    table: jax.Array  # i32 []
    place: Any  # of the environment of one table


def stack(replay: Replay, tables: Sequence[LatencyTable], config: CycleConfig) -> TablesData:
    """Many tables for the same texts.

    Raises:
      ValueError: the tables have other contexts; a position lies between the same ones in all.
    """
    if any(not np.array_equal(table.contexts, tables[0].contexts) for table in tables):
        raise ValueError("All tables must have the same contexts.")
    scaled = [_scaled(replay, table, config) for table in tables]
    times = [retime.retimed(replay, table, config) for table in scaled]
    fields = ("seconds", "depth_seconds", "size_seconds", "plain_seconds")
    stacked = {name: jnp.stack([getattr(each, name) for each in times]) for name in fields}
    cost = jnp.stack([costs_of(each) for each in scaled])
    data = ReplayData(times[0], LearnedParams(depth=None, size=None), _ONE)
    return TablesData(data=data, cost=cost, **stacked)


_ONE = jnp.float32(1.0)  # tokens per unit of time, of the best constant


def _scaled(replay: Replay, table: LatencyTable, config: CycleConfig) -> LatencyTable:
    """The table in units of the time that its best constant setting takes for a token."""
    best = optimum.best_constant(retime.retimed(replay, table, config), config)
    arrays = ("cycle_seconds", "draft_seconds", "verify_seconds", "plain_seconds")
    names = (*arrays, "depth_seconds", "size_seconds")
    rate = best.tokens_per_second
    return dataclasses.replace(table, **{name: getattr(table, name) * rate for name in names})


def costs_of(table: LatencyTable) -> jax.Array:
    """What the policies see of a table, at the mean of its contexts."""
    return observing.costs(
        jnp.asarray(table.cycle_seconds.mean(axis=0), jnp.float32),
        jnp.float32(table.plain_seconds.mean()),
        jnp.float32(table.depth_seconds),
        jnp.float32(table.size_seconds),
    )


def at(tables: TablesData, index: jax.Array) -> ReplayData:
    """What the environment of one table reads."""
    replay = tables.data.replay.replace(
        seconds=tables.seconds[index],
        depth_seconds=tables.depth_seconds[index],
        size_seconds=tables.size_seconds[index],
        plain_seconds=tables.plain_seconds[index],
    )
    other = observing.specialised(tables.data.other_params, tables.cost[index])
    return tables.data.replace(replay=replay, other_params=other)


def over_tables(inner: Environment) -> Environment:
    """An environment of `replay.environment` under a table that changes where its episodes end.

    A size episode's first cycle after a change has the levels that were chosen under the table
    before.
    """

    def reset(tables: TablesData, key: jax.Array) -> TablePlace:
        key_table, key_place = jax.random.split(key)
        table = _draw(tables, key_table)
        return TablePlace(table, inner.reset(at(tables, table), key_place))

    def see(tables: TablesData, state: TablePlace) -> jax.Array:
        seen_O = inner.observe(at(tables, state.table), state.place)
        return observing.with_costs(seen_O, tables.cost[state.table])

    def step(tables: TablesData, state: TablePlace, action: jax.Array, key: jax.Array) -> Step:
        key_table, key_step = jax.random.split(key)
        done = inner.step(at(tables, state.table), state.place, action, key_step)
        table = jnp.where(done.terminated, _draw(tables, key_table), state.table)
        following = observing.with_costs(done.next_observation, tables.cost[state.table])
        return done.replace(state=TablePlace(table, done.state), next_observation=following)

    width = inner.observation_width + observing.COST_COUNT
    return Environment(reset, see, step, width, inner.action_count)


def _draw(tables: TablesData, key: jax.Array) -> jax.Array:
    return jax.random.randint(key, (), 0, tables.seconds.shape[0])


@functools.partial(jax.jit, static_argnames=("config", "controller"))
def ratios(
    tables: TablesData, config: CycleConfig, controller: Controller, params: LearnedParams
) -> jax.Array:
    """Throughput of observing policies over the best constant, under every table: f32 [K].

    Args:
      controller: one of `networks.learned` and its kin.
    """

    def ratio(index: jax.Array) -> jax.Array:
        data = at(tables, index)
        seeing = observing.specialised(params, tables.cost[index])
        totals = cycles.run(data.replay, config, controller, seeing, learned=True)
        return cycles.throughput(totals)

    return jax.lax.map(ratio, jnp.arange(tables.seconds.shape[0]))
