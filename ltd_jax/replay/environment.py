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

from ltd_jax.config import CycleConfig, ObservationConfig, Reward
from ltd_jax.cycle import observe
from ltd_jax.policies.controller import Controller, Outcome
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
    memory: jax.Array  # [K] f32, of the cycles before, see `observe.remember`


def size_environment(
    config: CycleConfig,
    reward: Reward,
    levels: Controller | Literal["random"],
    seen: ObservationConfig = observe.PAPER,
) -> Environment:
    """One step = one cycle; the action is an index into config.sizes (paper Sec. 4, size policy).

    An episode walks along a text and terminates at its end, never before; the next starts anywhere.

    Args:
      levels: "random" draws 1..D for every cycle; a controller decides with `data.other_params`.
    """
    place = partial(_with_levels, config, levels)

    def reset(data: ReplayData, key: jax.Array) -> Place:
        key_position, key_levels = jax.random.split(key)
        fresh = _draw_position(data.replay, key_position)
        return place(data, fresh, observe.no_memory(seen), key_levels)

    def see(data: ReplayData, state: Place) -> jax.Array:
        view = cycles.tree_view(data.replay, state.position, state.levels)
        return observe.size_observation(view, state.memory, config, seen)

    def step(data: ReplayData, state: Place, action: jax.Array, key: jax.Array) -> Step:
        key_position, key_levels = jax.random.split(key)
        result = outcome(data.replay, state.position, state.levels, action, learned=True)
        position, memory = _after(data, config, seen, state, action, result, key_position)
        state = place(data, position, memory, key_levels)
        return Step(
            state=state,
            reward=reward_of(reward, result, data),
            terminated=result.over,
            truncated=jnp.bool_(False),
            next_observation=see(data, state),  # an ended text has no next cycle to look at
            committed=result.committed.astype(jnp.float32),
            seconds=result.seconds,
        )

    return Environment(reset, see, step, observe.size_width(config, seen), len(config.sizes))


def depth_environment(
    config: CycleConfig,
    reward: Reward,
    size: Controller | int,
    seen: ObservationConfig = observe.PAPER,
) -> Environment:
    """One step = one answer to a draft pass: 1 = draft another level, 0 = stop (at D it must).

    An episode is one cycle: reward, tokens and seconds come with the stop, which terminates it. The
    next one starts where the cycle led to, or anywhere behind a text's end. The
    size is an index into config.sizes, or a controller's that decides with `data.other_params`.
    """

    def reset(data: ReplayData, key: jax.Array) -> Place:
        return Place(_draw_position(data.replay, key), jnp.int32(1), observe.no_memory(seen))

    def see(data: ReplayData, state: Place) -> jax.Array:
        view = cycles.level_view(data.replay, state.position, state.levels)
        return observe.depth_observation(view, state.memory, config, seen)

    def step(data: ReplayData, state: Place, action: jax.Array, key: jax.Array) -> Step:
        levels = jnp.minimum(state.levels + action, config.max_levels)
        stop = (action == 0) | (levels == config.max_levels)
        chosen = _chosen(data, state, levels, size)
        result = outcome(data.replay, state.position, levels, chosen, learned=True)
        state = state.replace(levels=levels)
        position, memory = _after(data, config, seen, state, chosen, result, key)
        state = jax.tree.map(partial(jnp.where, stop), Place(position, jnp.int32(1), memory), state)
        return Step(
            state=state,
            reward=jnp.where(stop, reward_of(reward, result, data), 0.0),
            terminated=stop,
            truncated=jnp.bool_(False),
            next_observation=see(data, state),  # no value behind a stop
            committed=jnp.where(stop, result.committed, 0).astype(jnp.float32),
            seconds=jnp.where(stop, result.seconds, 0.0),
        )

    return Environment(reset, see, step, observe.depth_width(config, seen), 2)


def reward_of(reward: Reward, result: CycleOutcome, data: ReplayData) -> jax.Array:
    """All in tokens or plain steps, so about 1 on any device; the scale never changes."""
    seconds, plain_seconds = result.seconds, data.replay.plain_seconds
    if reward == "paper":
        return result.committed / seconds * plain_seconds  # Eq. 4 as a speedup
    if reward == "renewal":
        return result.committed - data.throughput * seconds
    if reward == "accepted":
        return result.accepted.astype(jnp.float32)
    return -seconds / plain_seconds


def _chosen(data: ReplayData, place: Place, levels: jax.Array, size: Controller | int) -> jax.Array:
    """Index of the size, fixed or chosen by a controller with the tree of so many levels."""
    if not isinstance(size, Controller):
        return jnp.int32(size)
    return cycles.choose_size(
        data.replay, place.position, levels, size, data.other_params, place.memory
    )


def _with_levels(
    config: CycleConfig,
    levels: Controller | Literal["random"],
    data: ReplayData,
    position: jax.Array,
    memory: jax.Array,
    key: jax.Array,
) -> Place:
    """A place where the tree is drafted and the size is to be chosen."""
    if isinstance(levels, str):
        drawn = jax.random.randint(key, (), 1, config.max_levels + 1)
        return Place(position, drawn, memory)
    chosen = cycles.choose_levels(data.replay, position, levels, data.other_params, memory)
    return Place(position, chosen, memory)


def _after(
    data: ReplayData,
    config: CycleConfig,
    seen: ObservationConfig,
    place: Place,
    size: jax.Array,
    result: CycleOutcome,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Position and memory behind a cycle; at the end of a text any position, nothing remembered."""
    outcome = Outcome(place.levels, size, result.accepted)
    memory = observe.remember(place.memory, outcome, config, seen)
    fresh = _draw_position(data.replay, key)
    return (
        jnp.where(result.over, fresh, result.next_position),
        jnp.where(result.over, observe.no_memory(seen), memory),
    )


def _draw_position(replay: Replay, key: jax.Array) -> jax.Array:
    return jax.random.randint(key, (), 0, replay.remaining.shape[0])
