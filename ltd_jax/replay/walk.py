"""The single cycles of a controller along replayed texts: where it stands and what it chooses.

`cycles.run` gives totals; here are the cycles behind them, for pictures of what policies do.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.policies.controller import Controller
from ltd_jax.replay import cycles
from ltd_jax.replay.cycles import Replay, Totals

OVER = -1


class Cycles(NamedTuple):
    """All cycles of all texts, in order; i32 [cycles] each."""

    position: Any
    levels: Any
    size: Any  # index into config.sizes
    accepted: Any


class _Place(NamedTuple):
    position: jax.Array
    over: jax.Array
    state: Any  # the controller's


def walk(replay: Replay, config: CycleConfig, controller: Controller, params: Any) -> Cycles:
    """Every text from its first position to its end."""
    steps = int(np.asarray(replay.remaining).max())  # every cycle commits a token
    found = jax.device_get(_walk(replay, config, controller, params, steps))
    return Cycles(*(part[found.position >= 0] for part in found))


def follow(replay: Replay, levels_P: np.ndarray, size_P: np.ndarray) -> Cycles:
    """The cycles of given choices: levels and index of the size at every position."""
    accepted_PDV, remaining_P = np.asarray(replay.accepted), np.asarray(replay.remaining)
    visited = []
    for first in np.asarray(replay.first):
        position, end = int(first), int(first + remaining_P[first])
        while position < end:
            visited.append(position)
            accepted = accepted_PDV[position, levels_P[position] - 1, size_P[position]]
            position += int(accepted) + 1
    place = np.asarray(visited, np.int32)
    levels, size = levels_P[place], size_P[place]
    return Cycles(place, levels, size, accepted_PDV[place, levels - 1, size].astype(np.int32))


def totals(replay: Replay, config: CycleConfig, found: Cycles) -> Totals:
    """Sums over the cycles of every text, no decision times; as `cycles.run` gives them."""
    result = _outcomes(replay, found.position, found.levels, found.size)
    text = np.searchsorted(np.asarray(replay.first), found.position, side="right") - 1
    sizes = np.asarray(config.sizes)[found.size]
    one = np.ones(len(text))
    add = functools.partial(np.bincount, text, minlength=len(replay.first))
    parts = (result.committed, result.seconds, one, found.levels, sizes)
    return Totals(*(jnp.asarray(add(np.asarray(part)), "float32") for part in parts))


@jax.jit
def _outcomes(
    replay: Replay, position_C: jax.Array, levels_C: jax.Array, size_C: jax.Array
) -> cycles.CycleOutcome:
    outcome = functools.partial(cycles.outcome, replay, learned=False)
    return jax.vmap(outcome)(position_C, levels_C, size_C)


@functools.partial(jax.jit, static_argnames=("config", "controller", "steps"))
def _walk(
    replay: Replay, config: CycleConfig, controller: Controller, params: Any, steps: int
) -> Cycles:
    """Fields [texts, steps]; position -1 = the text is over."""

    def cycle(carry: _Place, _: None) -> tuple[_Place, Cycles]:
        position = carry.position
        taken = cycles.take(replay, config, controller, params, carry.state, position, False)
        result = taken.result
        place = jnp.where(carry.over, OVER, position)
        found = Cycles(place, taken.levels, taken.size, result.accepted)
        after = jnp.where(result.over, position, result.next_position)
        return _Place(after, carry.over | result.over, taken.state), found

    def text(first: jax.Array) -> Cycles:
        start = _Place(first, jnp.bool_(False), controller.init())
        return jax.lax.scan(cycle, start, None, length=steps)[1]

    return jax.vmap(text)(replay.first)


def entropy(values: np.ndarray) -> float:
    """Nats of how often each value is chosen; 0 = always the same one."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(max(-(share * np.log(share)).sum(), 0.0))
