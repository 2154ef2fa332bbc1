"""Drafting and verifying, each compiled alone, only to be timed: for the report's split of a cycle.

In: a pair and the state of a sequence. Out: seconds by levels and by size.
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


def seconds(pair: Pair, state: CycleState) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of drafting [D] and of verifying [V]."""
    cycle, constant = pair.config.cycle, controllers.constant()

    @jax.jit
    def draft_part(params, setting, pending, cache):
        return expand.expand(params, pair.config, constant, setting, (), pending, cache)[0].tree

    verify_part = jax.jit(
        lambda params, tree, size, state: verify.verify(
            params, pair.config, tree, state.root, size, state.target_cache, state.sampling
        )
    )
    settings = [
        controllers.constant_params(levels, cycle.sizes[0], cycle)
        for levels in range(1, cycle.max_levels + 1)
    ]
    draft_args = (state.pending, state.draft_cache)
    draft_D = [
        _seconds(draft_part, pair.params.draft, setting, *draft_args) for setting in settings
    ]
    tree = draft_part(pair.params.draft, settings[-1], *draft_args)
    verify_V = [
        _seconds(verify_part, pair.params.target, tree, jnp.int32(size), state)
        for size in range(len(cycle.sizes))
    ]
    return np.asarray(draft_D), np.asarray(verify_V)


def _seconds(function: Callable[..., Any], *args: Any, times: int = 15) -> float:
    """Median seconds of a call, waited for."""
    jax.block_until_ready(function(*args))
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
