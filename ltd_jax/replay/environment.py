"""The environments that the two policies learn in, over replayed cycles (paper Sec. 4).

In goes a `Replay`; out come pure functions of one environment, which the learner vmaps. An
observation is built as in live decoding; rewards and episodes follow the paper.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig, Reward
from ltd_jax.cycle import observe
from ltd_jax.policies.controller import Controller
from ltd_jax.replay import cycles
from ltd_jax.replay.cycles import (
    CycleOutcome,
    Replay,
    Totals,
    build,
    constants,
    outcome,
    run,
    throughput,
)

__all__ = [
    "CycleOutcome",
    "Environment",
    "Replay",
    "ReplayData",
    "Step",
    "Totals",
    "build",
    "constants",
    "depth_environment",
    "outcome",
    "run",
    "size_environment",
    "throughput",
]


@struct.dataclass
class Step:
    """What an environment gives after one action."""

    state: Any  # auto-reset where the episode ended
    reward: jax.Array  # f32 []
    terminated: jax.Array  # bool [], no value behind this step
    truncated: jax.Array  # bool [], the episode was cut here; value goes on
    next_observation: jax.Array  # f32 [O] before any reset
    committed: jax.Array  # f32 [] tokens gained in this step (0 for level decisions that go on)
    seconds: jax.Array  # f32 [] time spent


class Environment(NamedTuple):
    """Pure functions of one environment; `data` is a pytree that the learner passes through."""

    reset: Callable[[Any, jax.Array], Any]  # data, key -> state
    observe: Callable[[Any, Any], jax.Array]  # data, state -> f32 [O]
    step: Callable[[Any, Any, jax.Array, jax.Array], Step]  # data, state, action i32, key
    observation_width: int
    action_count: int


@struct.dataclass
class ReplayData:
    """What the replay environments read; traced, so that a new policy does not compile again."""

    replay: Replay
    other_params: Any  # of the frozen controller, () where there is none
    throughput: jax.Array  # f32 [] tokens per second of the current policy (renewal reward)


@struct.dataclass
class Place:
    """State of the replay environments."""

    position: jax.Array  # i32 []
    levels: jax.Array  # i32 [] draft passes done in this cycle


def size_environment(
    config: CycleConfig, reward: Reward, levels: Controller | Literal["random"]
) -> Environment:
    """One step = one cycle; the action is an index into config.sizes (paper Sec. 4, size policy).

    An episode walks along a text and terminates at its end; the next one starts at any position of
    the trace, so that all are seen. It is never truncated.

    Args:
      levels: "random" draws 1..D for every cycle; a controller decides with `data.other_params`.
    """

    place = partial(_with_levels, config, levels)

    def reset(data: ReplayData, key: jax.Array) -> Place:
        key_position, key_levels = jax.random.split(key)
        return place(data, _draw_position(data.replay, key_position), key_levels)

    def see(data: ReplayData, state: Place) -> jax.Array:
        score_DWW = data.replay.score[state.position]
        length = data.replay.length[state.position]
        return observe.size_observation(score_DWW, state.levels, length, config)

    def step(data: ReplayData, state: Place, action: jax.Array, key: jax.Array) -> Step:
        key_position, key_levels = jax.random.split(key)
        result = outcome(data.replay, state.position, state.levels, action, learned=True)
        fresh = _draw_position(data.replay, key_position)
        state = place(data, jnp.where(result.over, fresh, result.next_position), key_levels)
        return Step(
            state=state,
            reward=_reward(reward, result, data),
            terminated=result.over,
            truncated=jnp.bool_(False),
            next_observation=see(data, state),  # an ended text has no next cycle to look at
            committed=result.committed.astype(jnp.float32),
            seconds=result.seconds,
        )

    width = observe.size_width(config)
    return Environment(reset, see, step, width, len(config.sizes))


def depth_environment(config: CycleConfig, reward: Reward, size: Controller | int) -> Environment:
    """One step = one decision after a draft pass: 1 = draft another level, 0 = stop and verify.

    An episode is one cycle: reward, tokens and seconds come with the stop, which terminates it, and
    at D levels stopping is no decision. The next episode starts where the cycle led to, or at any
    position of the trace where the text is over. It is never truncated.

    Args:
      size: an index into config.sizes, or a controller that decides with `data.other_params`.
    """

    def reset(data: ReplayData, key: jax.Array) -> Place:
        return Place(_draw_position(data.replay, key), jnp.int32(1))

    def see(data: ReplayData, state: Place) -> jax.Array:
        view = cycles.level_view(data.replay, state.position, state.levels)
        return observe.depth_observation(view.score, view.levels, view.length, config)

    def step(data: ReplayData, state: Place, action: jax.Array, key: jax.Array) -> Step:
        levels = jnp.minimum(state.levels + action, config.max_levels)
        stop = (action == 0) | (levels == config.max_levels)
        chosen: Any = size
        if isinstance(size, Controller):
            params, start = data.other_params, size.init()
            chosen = cycles.choose_size(data.replay, state.position, levels, size, params, start)
        result = outcome(data.replay, state.position, levels, chosen, learned=True)
        fresh = _draw_position(data.replay, key)
        after = jnp.where(result.over, fresh, result.next_position)
        state = Place(jnp.where(stop, after, state.position), jnp.where(stop, 1, levels))
        return Step(
            state=state,
            reward=jnp.where(stop, _reward(reward, result, data), 0.0),
            terminated=stop,
            truncated=jnp.bool_(False),
            next_observation=see(data, state),  # no value behind a stop
            committed=jnp.where(stop, result.committed, 0).astype(jnp.float32),
            seconds=jnp.where(stop, result.seconds, 0.0),
        )

    return Environment(reset, see, step, observe.depth_width(config), 2)


def _reward(reward: Reward, result: CycleOutcome, data: ReplayData) -> jax.Array:
    """All in tokens or plain steps, so about 1 on any device; the scale never changes."""
    seconds, plain_seconds = result.seconds, data.replay.plain_seconds
    if reward == "paper":
        return result.committed / seconds * plain_seconds  # Eq. 4 as a speedup
    if reward == "renewal":
        return result.committed - data.throughput * seconds
    if reward == "accepted":
        return result.accepted.astype(jnp.float32)
    return -seconds / plain_seconds


def _with_levels(
    config: CycleConfig,
    levels: Controller | Literal["random"],
    data: ReplayData,
    position: jax.Array,
    key: jax.Array,
) -> Place:
    """A place where the tree is drafted and the size is to be chosen."""
    if isinstance(levels, str):
        return Place(position, jax.random.randint(key, (), 1, config.max_levels + 1))
    params, state = data.other_params, levels.init()
    return Place(position, cycles.choose_levels(data.replay, position, levels, params, state))


def _draw_position(replay: Replay, key: jax.Array) -> jax.Array:
    return jax.random.randint(key, (), 0, replay.remaining.shape[0])
