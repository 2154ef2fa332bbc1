"""Drafting and verifying, each compiled alone, only to be timed: for the report's split of a cycle.

In: a pair and the state of a sequence. Out: seconds by levels and by size. As in decoding, several
rounds share one program, so dispatching it is not counted to each.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.cycle import expand, verify
from ltd_jax.cycle.pair import Pair
from ltd_jax.cycle.step import CycleState
from ltd_jax.policies import controller as controllers

ROUNDS = 8  # of a part in one program
TIMES = 9  # that the program runs; the median counts


def seconds(pair: Pair, state: CycleState) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of drafting [D] and of verifying [V]."""
    cycle, constant = pair.config.cycle, controllers.constant()

    def draft(token, params, setting, pending, cache):
        pending = pending.replace(token=pending.token.at[0].set(token))
        return expand.expand(params, pair.config, constant, setting, (), pending, cache)[0].tree

    def check(token, params, tree, size, state):
        place = (tree, token, size, state.target_cache, state.sampling)
        return verify.verify(params, pair.config, *place).replace(sampling=None)

    draft_part, verify_part = in_a_row(draft), in_a_row(check)
    settings = [
        controllers.constant_params(levels, cycle.sizes[0], cycle)
        for levels in range(1, cycle.max_levels + 1)
    ]
    draft_args = (state.pending, state.draft_cache)
    draft_D = [
        _seconds(draft_part, state.root, pair.params.draft, setting, *draft_args)
        for setting in settings
    ]
    tree = draft_part(state.root, pair.params.draft, settings[-1], *draft_args)
    verify_V = [
        _seconds(verify_part, state.root, pair.params.target, tree, jnp.int32(size), state)
        for size in range(len(cycle.sizes))
    ]
    return np.asarray(draft_D), np.asarray(verify_V)


def in_a_row(part: Callable[..., Any]) -> Callable[..., Any]:
    """A program of `ROUNDS` rounds of a part; it gives the last round's result.

    Args:
      part: of a token and other arguments, giving a struct with a field `token`. Every round starts
        from the first token of the one before, so none can be left out.
    """

    @jax.jit
    def run(token: jax.Array, *args: Any) -> Any:
        def again(_, before: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            result = part(before[0], *args)
            return result.token.reshape(-1)[0], result

        shapes = jax.eval_shape(part, token, *args)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(0, ROUNDS, again, (token, blank))[1]

    return run


def _seconds(program: Callable[..., Any], *args: Any) -> float:
    """Median seconds of one of the rounds of a program."""
    jax.block_until_ready(program(*args))
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        jax.block_until_ready(program(*args))
        seconds.append((time.perf_counter() - started) / ROUNDS)
    return float(np.median(seconds))
