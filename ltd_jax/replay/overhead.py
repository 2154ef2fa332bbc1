"""What deciding costs: seconds of a controller's own decisions, of any controller.

Decisions are made over recorded positions inside one compiled loop, as in the compiled cycle they
stand between two draft passes; nothing of the cycle itself is timed. A loop over 1 level and one
over most levels tell a decision after a pass from one about the size, and the same loops with a
constant controller are taken off.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.policies import controller as controllers
from ltd_jax.policies.controller import Controller, Outcome
from ltd_jax.replay import cycles
from ltd_jax.replay.cycles import Replay

CYCLES = 200  # decided in one call
VISITS = 15


class Overhead(NamedTuple):
    """Seconds of a controller's own time."""

    depth_seconds: float  # of a decision after a draft pass, with what is remembered of it
    size_seconds: float  # of the rest of a cycle's decisions


def measure(replay: Replay, config: CycleConfig, controller: Controller, params: Any) -> Overhead:
    """Times a controller's decisions on this device."""
    setting = controllers.constant_params(1, config.sizes[0], config)
    ours = _timer(replay, controller, params)
    theirs = _timer(replay, controllers.constant(), setting)
    most = max(config.max_levels - 1, 2)  # after the last level there is nothing to decide
    few, many = (_difference(ours, theirs, levels) for levels in (1, most))
    depth = max((many - few) / (most - 1), 0.0)
    return Overhead(depth, max(few - depth, 0.0))


def with_overhead(replay: Replay, overhead: Overhead) -> Replay:
    """The replay whose decisions cost so much; `cycles.run` counts them with `learned=True`."""
    return replay.replace(
        depth_seconds=jnp.float32(overhead.depth_seconds),
        size_seconds=jnp.float32(overhead.size_seconds),
    )


@partial(jax.jit, static_argnames="controller")
def decide(replay: Replay, controller: Controller, params: Any, levels: jax.Array) -> jax.Array:
    """All decisions of CYCLES cycles, each after `levels` passes, whatever they say.

    Returns a number that depends on every decision, so that none is left out.
    """

    def one(position: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        def after_pass(index: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            state, total = carry
            view = cycles.level_view(replay, position, index + 1)
            state = controllers.noticed(controller, params, state, view)
            return state, total + controller.keep_drafting(params, state, view)

        state, total = jax.lax.fori_loop(0, levels, after_pass, carry)
        view = cycles.tree_view(replay, position, levels)
        size = controller.choose_size(params, state, view)
        if controller.rank is not None:
            total += jnp.isfinite(controller.rank(params, state, view)).sum()
        state = controller.update(state, Outcome(levels, size, jnp.minimum(total % 3, levels)))
        return state, total + size

    count = min(CYCLES, replay.remaining.shape[0])
    return jax.lax.fori_loop(0, count, one, (controller.init(), jnp.int32(0)))[1] / count


def _timer(replay: Replay, controller: Controller, params: Any) -> Callable[[int], float]:
    """A function that times the decisions of one cycle of so many levels, in seconds."""

    def seconds(levels: int) -> float:
        started = time.perf_counter()
        jax.block_until_ready(decide(replay, controller, params, jnp.int32(levels)))
        return (time.perf_counter() - started) / min(CYCLES, replay.remaining.shape[0])

    seconds(1)  # compile
    return seconds


def _difference(ours: Callable[[int], float], theirs: Callable[[int], float], levels: int) -> float:
    """Median of what ours takes more, in turns."""
    return float(np.median([ours(levels) - theirs(levels) for _ in range(VISITS)]))
