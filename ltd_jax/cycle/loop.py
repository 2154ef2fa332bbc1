"""Several cycles per call: the host dispatches one program and reads tokens once for N of them.

Dispatching a program takes a processor 0.3 to 0.6 ms, whatever it computes; on the cores that also
compute this was an eighth of the embedded pair's time. The loop ends with the text, so no cycle
runs in vain. `run_cycles` and `run_plain`, the autoregressive baseline in the same stack, are
jitted once per pair; states are donated, so caches are updated in place.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PairConfig
from ltd_jax.cycle import step
from ltd_jax.cycle.pair import PairParams
from ltd_jax.cycle.step import CycleResult, CycleState, PlainState
from ltd_jax.models import split
from ltd_jax.models.target import TargetParams
from ltd_jax.policies.controller import Controller


@struct.dataclass
class Cycles:
    """Up to N cycles of one text, in order."""

    result: CycleResult  # every field with a leading axis [N]; rows from `count` on mean nothing
    count: jax.Array  # i32 []
    left: jax.Array  # i32 [], tokens still wanted; 0 = the text is over


@struct.dataclass
class PlainSteps:
    """Up to N plain steps of one text, in order."""

    token: jax.Array  # [N] i32, those from `count` on mean nothing
    count: jax.Array  # i32 []
    left: jax.Array  # i32 [], tokens still wanted; 0 = the text is over


@functools.partial(jax.jit, static_argnames=("pair", "controller"), donate_argnames="state")
def run_cycles(
    params: PairParams,
    pair: PairConfig,
    controller: Controller,
    stops: jax.Array,
    controller_params: Any,
    state: CycleState,
    left: jax.Array,
) -> tuple[CycleState, Cycles]:
    """Runs `cycles_per_call` cycles, or as many as give the `left` tokens or a stop token.

    Args:
      stops: i32 [S], tokens behind which a text ends; data, so that all sets of S share a program.
    """
    N, path = pair.cycle.cycles_per_call, pair.cycle.path_length
    blank_N = jnp.zeros((N,), jnp.int32)
    blank = CycleResult(jnp.zeros((N, path), jnp.int32), *[blank_N] * 4)

    def advance(carry: tuple[CycleState, Cycles]) -> tuple[CycleState, Cycles]:
        state, so_far = carry
        state, result = step.cycle(params, pair, controller, controller_params, state)
        kept = jnp.minimum(result.committed, so_far.left)
        is_text = jnp.arange(path) < kept
        stopped = jnp.any(jnp.isin(result.token, stops) & is_text)
        so_far = Cycles(
            result=jax.tree.map(_put(so_far.count), so_far.result, result),
            count=so_far.count + 1,
            left=jnp.where(stopped, 0, so_far.left - kept),
        )
        return split.placed((state, so_far), pair)

    start = (state, Cycles(blank, jnp.int32(0), left))
    done = jax.lax.while_loop(lambda carry: _goes_on(carry[1], N), advance, start)
    return split.placed(done, pair)


@functools.partial(jax.jit, static_argnames="pair", donate_argnames="state")
def run_plain(
    params: TargetParams,
    pair: PairConfig,
    stops: jax.Array,
    state: PlainState,
    left: jax.Array,
) -> tuple[PlainState, PlainSteps]:
    """`run_cycles` for plain decoding."""
    N = pair.cycle.cycles_per_call

    def advance(carry: tuple[PlainState, PlainSteps]) -> tuple[PlainState, PlainSteps]:
        state, so_far = carry
        state = step.plain(params, pair, state)
        so_far = PlainSteps(
            token=_put(so_far.count)(so_far.token, state.root),
            count=so_far.count + 1,
            left=jnp.where(jnp.isin(state.root, stops), 0, so_far.left - 1),
        )
        return split.placed((state, so_far), pair)

    start = (state, PlainSteps(jnp.zeros((N,), jnp.int32), jnp.int32(0), left))
    done = jax.lax.while_loop(lambda carry: _goes_on(carry[1], N), advance, start)
    return split.placed(done, pair)


def _goes_on(so_far: Cycles | PlainSteps, most: int) -> jax.Array:
    return (so_far.count < most) & (so_far.left > 0)


def _put(row: jax.Array):
    """A function that writes a value into one row of an array."""
    return lambda rows, value: jax.lax.dynamic_update_index_in_dim(rows, value, row, 0)
