"""The environments that the two policies learn in, over replayed cycles (paper Sec. 4).

In goes a `Replay`; out come pure functions of one environment, which the learner vmaps. An
observation is built as in live decoding; rewards and episodes follow the paper.
"""
# DOC """The replay as one process in which both policies decide: where a cycle starts, what it sees.
# DOC
# DOC A cycle starts at a position of a text with the memory of the cycles before it. The depth policy is
# DOC asked after every pass but the last, then the size policy once, and the cycle leads to the next
# DOC start. What the tree shows at a position never changes, so it is looked at once (`build`) and only
# DOC gathered while learning. Functions work on one start; callers vmap.
# DOC """

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig, ObservationConfig, PolicyConfig, Reward
from ltd_jax.policies import networks, observe
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.policies.policy import Controller, Outcome
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import CycleOutcome, Simulator, cycle_outcome


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

    replay: Simulator
    other_params: Any  # of the frozen controller, () where there is none
    throughput: jax.Array  # f32 [] tokens per second of the current policy (renewal reward)


@struct.dataclass
class EnvState:
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

    def reset(data: ReplayData, key: jax.Array) -> EnvState:
        key_position, key_levels = jax.random.split(key)
        fresh = _draw_position(data.replay, key_position)
        return place(data, fresh, observe.no_memory(seen), key_levels)

    def see(data: ReplayData, state: EnvState) -> jax.Array:
        view = simulate.tree_view(data.replay, state.position, state.levels)
        return observe.size_observation(view, state.memory, config, seen)

    def step(data: ReplayData, state: EnvState, action: jax.Array, key: jax.Array) -> Step:
        key_position, key_levels = jax.random.split(key)
        result = cycle_outcome(data.replay, state.position, state.levels, action, learned=True)
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

    def reset(data: ReplayData, key: jax.Array) -> EnvState:
        return EnvState(_draw_position(data.replay, key), jnp.int32(1), observe.no_memory(seen))

    def see(data: ReplayData, state: EnvState) -> jax.Array:
        view = simulate.level_view(data.replay, state.position, state.levels)
        return observe.depth_observation(view, state.memory, config, seen)

    def step(data: ReplayData, state: EnvState, action: jax.Array, key: jax.Array) -> Step:
        levels = jnp.minimum(state.levels + action, config.max_levels)
        stop = (action == 0) | (levels == config.max_levels)
        chosen = _chosen(data, state, levels, size)
        result = cycle_outcome(data.replay, state.position, levels, chosen, learned=True)
        state = state.replace(levels=levels)
        position, memory = _after(data, config, seen, state, chosen, result, key)
        state = jax.tree.map(
            partial(jnp.where, stop), EnvState(position, jnp.int32(1), memory), state
        )
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
    if reward == "average":
        return result.committed - data.throughput * seconds
    if reward == "accepted":
        return result.accepted.astype(jnp.float32)
    return -seconds / plain_seconds


def _chosen(
    data: ReplayData, place: EnvState, levels: jax.Array, size: Controller | int
) -> jax.Array:
    """Index of the size, fixed or chosen by a controller with the tree of so many levels."""
    if not isinstance(size, Controller):
        return jnp.int32(size)
    return simulate.choose_size(
        data.replay, place.position, levels, size, data.other_params, place.memory
    )


def _with_levels(
    config: CycleConfig,
    levels: Controller | Literal["random"],
    data: ReplayData,
    position: jax.Array,
    memory: jax.Array,
    key: jax.Array,
) -> EnvState:
    """A place where the tree is drafted and the size is to be chosen."""
    if isinstance(levels, str):
        drawn = jax.random.randint(key, (), 1, config.max_levels + 1)
        return EnvState(position, drawn, memory)
    chosen = simulate.choose_levels(data.replay, position, levels, data.other_params, memory)
    return EnvState(position, chosen, memory)


def _after(
    data: ReplayData,
    config: CycleConfig,
    seen: ObservationConfig,
    place: EnvState,
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


def _draw_position(replay: Simulator, key: jax.Array) -> jax.Array:
    return jax.random.randint(key, (), 0, replay.remaining.shape[0])


_POSITIONS = 256  # looked at together by `build`


@struct.dataclass
class Observations:
    """A replay and what its trees show the policies."""

    replay: Simulator
    depth: jax.Array  # [P, D - 1, O] f32 after every pass but the last, without the memory
    size: jax.Array  # [P, D, O] f32 with every number of levels, without the memory


@struct.dataclass
class Start:
    """Where a cycle starts."""

    position: jax.Array  # i32 []
    memory: jax.Array  # [K] f32, see `observe.remember`


@struct.dataclass
class Decision:
    """What the policies chose in one cycle, and how likely that was."""

    levels: jax.Array  # i32 []
    size: jax.Array  # i32 [] index into config.sizes
    go_on: jax.Array  # [D - 1] bool, the depth policy's answers; those behind a stop do not count
    depth_log_prob: jax.Array  # [D - 1] f32, of these answers
    size_log_prob: jax.Array  # f32 []


def observe_all(replay: Simulator, config: CycleConfig, policy: PolicyConfig) -> Observations:
    """Looks once at every position, with every number of levels."""
    depth_PDO, size_PDO = _look(replay, config, policy)
    return Observations(replay, depth_PDO, size_PDO)


def depth_seen(lesson: Observations, start: Start) -> jax.Array:
    """What the depth policy sees after every pass but the last: f32 [D - 1, O]."""
    return _with_memory(lesson.depth[start.position], start.memory)


def sizes_seen(lesson: Observations, start: Start) -> jax.Array:
    """What the size policy sees with every number of levels: f32 [D, O]."""
    return _with_memory(lesson.size[start.position], start.memory)


def size_seen(lesson: Observations, start: Start, levels: jax.Array) -> jax.Array:
    """What the size policy sees with so many levels: f32 [O]."""
    return jnp.concatenate([lesson.size[start.position, levels - 1], start.memory])


def draw_start(lesson: Observations, policy: PolicyConfig, key: jax.Array) -> Start:
    """Any position of the replay, nothing remembered."""
    position = jax.random.randint(key, (), 0, lesson.replay.remaining.shape[0])
    return Start(position, observe.no_memory(policy.observation))


def act(
    actors: LearnedParams,
    lesson: Observations,
    start: Start,
    config: CycleConfig,
    policy: PolicyConfig,
    key: jax.Array | None,
) -> Decision:
    """Both policies' choices for one cycle: drawn with a key, the likeliest without one."""
    depth_actor = networks.depth_actor(policy)
    depth_DA = networks.output(depth_actor, actors.depth, depth_seen(lesson, start))
    key_levels, key_size = (None, None) if key is None else jax.random.split(key)
    answer_D, depth_log_prob_D = _choose(depth_DA, key_levels)
    levels = 1 + jnp.cumprod(answer_D).sum()
    size_actor = networks.size_actor(config, policy)
    size_A = networks.output(size_actor, actors.size, size_seen(lesson, start, levels))
    size, size_log_prob = _choose(size_A, key_size)
    return Decision(levels, size, answer_D == 1, depth_log_prob_D, size_log_prob)


def follow(
    lesson: Observations,
    start: Start,
    decision: Decision,
    config: CycleConfig,
    policy: PolicyConfig,
) -> tuple[Start, CycleOutcome]:
    """The cycle that was decided on, and the start behind it (means nothing where it is over)."""
    result = simulate.cycle_outcome(
        lesson.replay, start.position, decision.levels, decision.size, learned=True
    )
    outcome = Outcome(decision.levels, decision.size, result.accepted)
    memory = observe.remember(start.memory, outcome, config, policy.observation)
    return Start(result.next_position, memory), result


def all_outcomes(lesson: Observations, position: jax.Array, config: CycleConfig) -> CycleOutcome:
    """What every (levels, size) gives at a position: fields [D, V]."""
    levels_D = jnp.arange(1, config.max_levels + 1)
    sizes_V = jnp.arange(len(config.sizes))
    one = lambda levels, size: simulate.cycle_outcome(
        lesson.replay, position, levels, size, learned=True
    )
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(levels_D, sizes_V)


@struct.dataclass
class GreedyRun:
    """The likeliest choices along a text."""

    start: Start
    left: jax.Array  # i32 [] tokens of the text
    committed: jax.Array  # f32 [] tokens, as the replay counts them: the text's or expected ones
    seconds: jax.Array  # f32 []
    chosen: jax.Array  # [D, V] f32, cycles of each (levels, size)


@partial(jax.jit, static_argnames=("config", "policy"))
def greedy_run(
    actors: LearnedParams, lesson: Observations, config: CycleConfig, policy: PolicyConfig
) -> GreedyRun:
    """Every text from its first position to its end; fields [texts, ...]."""

    def cycle(so_far: GreedyRun) -> GreedyRun:
        decision = act(actors, lesson, so_far.start, config, policy, None)
        start, result = follow(lesson, so_far.start, decision, config, policy)
        return GreedyRun(
            start=start,
            left=so_far.left - (start.position - so_far.start.position),
            committed=so_far.committed + result.committed,
            seconds=so_far.seconds + result.seconds,
            chosen=so_far.chosen.at[decision.levels - 1, decision.size].add(1.0),
        )

    def walk_text(first: jax.Array) -> GreedyRun:
        start = Start(first, observe.no_memory(policy.observation))
        blank_DV = jnp.zeros((config.max_levels, len(config.sizes)))
        none = jnp.float32(0)
        begin = GreedyRun(start, lesson.replay.remaining[first], none, none, blank_DV)
        return jax.lax.while_loop(lambda so_far: so_far.left > 0, cycle, begin)

    return jax.vmap(walk_text)(lesson.replay.first)


def greedy_throughput(
    actors: LearnedParams, lesson: Observations, config: CycleConfig, policy: PolicyConfig
) -> jax.Array:
    """Tokens per second of the likeliest choices over all texts, as `cycles.run` gives it."""
    walked = greedy_run(actors, lesson, config, policy)
    return walked.committed.sum() / walked.seconds.sum()


@partial(jax.jit, static_argnames=("config", "policy"))
def _look(
    replay: Simulator, config: CycleConfig, policy: PolicyConfig
) -> tuple[jax.Array, jax.Array]:
    seen, levels_D = policy.observation, jnp.arange(1, config.max_levels + 1)

    def after_pass(position: jax.Array, levels: jax.Array) -> jax.Array:
        return observe.depth_view(simulate.level_view(replay, position, levels), config, seen)

    def after_all(position: jax.Array, levels: jax.Array) -> jax.Array:
        return observe.size_view(simulate.tree_view(replay, position, levels), config, seen)

    def look(position: jax.Array) -> tuple[jax.Array, jax.Array]:
        depth_DO = jax.vmap(after_pass, (None, 0))(position, levels_D[:-1])
        return depth_DO, jax.vmap(after_all, (None, 0))(position, levels_D)

    positions = jnp.arange(replay.remaining.shape[0])
    return jax.lax.map(look, positions, batch_size=_POSITIONS)


def _with_memory(view_DO: jax.Array, memory_K: jax.Array) -> jax.Array:
    rows_DK = jnp.broadcast_to(memory_K, (view_DO.shape[0], memory_K.shape[0]))
    return jnp.concatenate([view_DO, rows_DK], axis=1)


def _choose(logits: jax.Array, key: Any) -> tuple[jax.Array, jax.Array]:
    """Choices [...] of logits [..., A] and their log-probabilities."""
    log_prob = jax.nn.log_softmax(logits)
    drawn = jnp.argmax(logits, -1) if key is None else jax.random.categorical(key, logits)
    chosen = jnp.take_along_axis(log_prob, drawn[..., None], axis=-1)[..., 0]
    return drawn.astype(jnp.int32), chosen
