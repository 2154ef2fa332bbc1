"""The replay as one process in which both policies decide: where a cycle starts, what it sees.

A cycle starts at a position of a text with the memory of the cycles before it. The depth policy is
asked after every pass but the last, then the size policy once, and the cycle leads to the next
start. What the tree shows at a position never changes, so it is looked at once (`build`) and only
gathered while learning. Functions work on one start; callers vmap.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.cycle import observe
from ltd_jax.policies import networks
from ltd_jax.policies.controller import Outcome
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import cycles
from ltd_jax.replay.cycles import CycleOutcome, Replay

_POSITIONS = 256  # looked at together by `build`


@struct.dataclass
class Lesson:
    """A replay and what its trees show the policies."""

    replay: Replay
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


def build(replay: Replay, config: CycleConfig, policy: PolicyConfig) -> Lesson:
    """Looks once at every position, with every number of levels."""
    depth_PDO, size_PDO = _look(replay, config, policy)
    return Lesson(replay, depth_PDO, size_PDO)


def depth_seen(lesson: Lesson, start: Start) -> jax.Array:
    """What the depth policy sees after every pass but the last: f32 [D - 1, O]."""
    return _with_memory(lesson.depth[start.position], start.memory)


def sizes_seen(lesson: Lesson, start: Start) -> jax.Array:
    """What the size policy sees with every number of levels: f32 [D, O]."""
    return _with_memory(lesson.size[start.position], start.memory)


def size_seen(lesson: Lesson, start: Start, levels: jax.Array) -> jax.Array:
    """What the size policy sees with so many levels: f32 [O]."""
    return jnp.concatenate([lesson.size[start.position, levels - 1], start.memory])


def draw_start(lesson: Lesson, policy: PolicyConfig, key: jax.Array) -> Start:
    """Any position of the replay, nothing remembered."""
    position = jax.random.randint(key, (), 0, lesson.replay.remaining.shape[0])
    return Start(position, observe.no_memory(policy.observation))


def decide(
    actors: LearnedParams,
    lesson: Lesson,
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
    lesson: Lesson,
    start: Start,
    decision: Decision,
    config: CycleConfig,
    policy: PolicyConfig,
) -> tuple[Start, CycleOutcome]:
    """The cycle that was decided on, and the start behind it (means nothing where it is over)."""
    result = cycles.outcome(
        lesson.replay, start.position, decision.levels, decision.size, learned=True
    )
    outcome = Outcome(decision.levels, decision.size, result.accepted)
    memory = observe.remember(start.memory, outcome, config, policy.observation)
    return Start(result.next_position, memory), result


def outcomes(lesson: Lesson, position: jax.Array, config: CycleConfig) -> CycleOutcome:
    """What every (levels, size) gives at a position: fields [D, V]."""
    levels_D = jnp.arange(1, config.max_levels + 1)
    sizes_V = jnp.arange(len(config.sizes))
    one = lambda levels, size: cycles.outcome(lesson.replay, position, levels, size, learned=True)
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(levels_D, sizes_V)


@struct.dataclass
class Walk:
    """The likeliest choices along a text."""

    start: Start
    left: jax.Array  # i32 [] tokens of the text
    committed: jax.Array  # f32 [] tokens, as the replay counts them: the text's or expected ones
    seconds: jax.Array  # f32 []
    chosen: jax.Array  # [D, V] f32, cycles of each (levels, size)


@partial(jax.jit, static_argnames=("config", "policy"))
def walk(actors: LearnedParams, lesson: Lesson, config: CycleConfig, policy: PolicyConfig) -> Walk:
    """Every text from its first position to its end; fields [texts, ...]."""

    def cycle(so_far: Walk) -> Walk:
        decision = decide(actors, lesson, so_far.start, config, policy, None)
        start, result = follow(lesson, so_far.start, decision, config, policy)
        return Walk(
            start=start,
            left=so_far.left - (start.position - so_far.start.position),
            committed=so_far.committed + result.committed,
            seconds=so_far.seconds + result.seconds,
            chosen=so_far.chosen.at[decision.levels - 1, decision.size].add(1.0),
        )

    def walk_text(first: jax.Array) -> Walk:
        start = Start(first, observe.no_memory(policy.observation))
        blank_DV = jnp.zeros((config.max_levels, len(config.sizes)))
        none = jnp.float32(0)
        begin = Walk(start, lesson.replay.remaining[first], none, none, blank_DV)
        return jax.lax.while_loop(lambda so_far: so_far.left > 0, cycle, begin)

    return jax.vmap(walk_text)(lesson.replay.first)


def throughput(
    actors: LearnedParams, lesson: Lesson, config: CycleConfig, policy: PolicyConfig
) -> jax.Array:
    """Tokens per second of the likeliest choices over all texts, as `cycles.run` gives it."""
    walked = walk(actors, lesson, config, policy)
    return walked.committed.sum() / walked.seconds.sum()


@partial(jax.jit, static_argnames=("config", "policy"))
def _look(replay: Replay, config: CycleConfig, policy: PolicyConfig) -> tuple[jax.Array, jax.Array]:
    seen, levels_D = policy.observation, jnp.arange(1, config.max_levels + 1)

    def after_pass(position: jax.Array, levels: jax.Array) -> jax.Array:
        return observe.depth_view(cycles.level_view(replay, position, levels), config, seen)

    def after_all(position: jax.Array, levels: jax.Array) -> jax.Array:
        return observe.size_view(cycles.tree_view(replay, position, levels), config, seen)

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
