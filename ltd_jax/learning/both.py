"""Learning both policies at once: one program from a key to trained parameters.

In: a `Method` (joint PPO, or exact gradients), lessons to learn and to validate on, keys. Out: the
policies of best validation throughput and the curves. A method says how policies start and how one
update improves them; everything else is here: validation, checkpoints, seeds side by side, devices.

Over a mesh the starts of the walks and the rows of every minibatch are spread over its only axis;
lessons and parameters are on every device, and the compiler adds the gradients up.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import course, lessons, stage
from ltd_jax.learning.course import Learned, Replays
from ltd_jax.learning.lessons import Lesson, Start
from ltd_jax.learning.ppo import Metrics
from ltd_jax.learning.stage import Point, Stage
from ltd_jax.policies.networks import PolicyParams
from ltd_jax.replay import optimum

AXIS = "environments"  # of the mesh


@struct.dataclass(kw_only=True)
class State:
    """All that a resumed training needs."""

    params: PolicyParams
    optimizer: optax.OptState
    starts: Start  # of the next cycles, leading axis [environments]
    key: jax.Array
    update: jax.Array  # i32 [] updates done
    throughput: jax.Array  # f32 [] tokens per second of the policies as they explore
    best: PolicyParams  # of the best validation so far
    best_validation: jax.Array  # f32 []


class Method(NamedTuple):
    """How both policies learn; hashable, so a static argument."""

    name: str
    config: CycleConfig
    policy: PolicyConfig
    learning: LearningConfig  # with seed 0: every seed finds the same program
    environments: int
    asked_updates: int
    fresh: Callable[["Method", jax.Array], PolicyParams]
    rule: Callable[["Method"], optax.GradientTransformation]
    improve: Callable[["Method", State, Lesson], tuple[State, Metrics]]
    mesh: Mesh | None = None

    @property
    def validations(self) -> int:
        """How often the policies are validated after the start."""
        return -(-self.asked_updates // self.learning.validate_every)

    @property
    def updates(self) -> int:
        """Of a whole training: as asked, rounded up to whole validations."""
        return self.validations * self.learning.validate_every


def train(
    method: Method,
    replays: Replays,
    *,
    seed: int,
    folder: Path | None,
    provenance: dict[str, Any],
    progress: Callable[[Point, float], None],
) -> Learned:
    """Trains both policies, or goes on where the folder's checkpoints end, bit for bit.

    Raises:
      UserError: the folder holds a training with other settings or replays, or cannot be used.
    """
    if folder is not None:
        learning = dataclasses.replace(method.learning, seed=seed)
        stage.claim(folder, course.settings(replays, method.config, method.policy, learning))
    learn, check = (lessons.build(each, method.config, method.policy) for each in replays)
    rate = jnp.float32(optimum.best_constant(replays.train, method.config).tokens_per_second)
    state, points = stage.run(
        Stage(
            name=method.name,
            start=lambda: init(method, jax.random.key(seed), rate, learn, check),
            advance=lambda state: advance(method, state, learn, check),
            updates=method.updates,
        ),
        folder=None if folder is None else folder / method.name,
        provenance=provenance,
        report=lambda point: progress(point, point.update / method.updates),
    )
    return Learned(state.best, {method.name: state.best.learned}, points)


@partial(jax.jit, static_argnames="method")
def program(
    method: Method, key: jax.Array, rate: jax.Array, learn: Lesson, check: Lesson
) -> tuple[State, Metrics]:
    """A whole training, from a key to the trained policies; `jax.vmap` it over keys for seeds.

    Args:
      rate: tokens per second to start the running throughput from, e.g. of the best constant.

    Returns:
      the last state and the metrics of all updates, [updates].
    """
    start = init(method, key, rate, learn, check)
    follow = lambda state, _: advance(method, state, learn, check)
    state, metrics = jax.lax.scan(follow, start, None, length=method.validations)
    return state, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), metrics)


@partial(jax.jit, static_argnames="method")
def init(method: Method, key: jax.Array, rate: jax.Array, learn: Lesson, check: Lesson) -> State:
    """A training before its first update; the starting policies are the best so far."""
    key_params, key_starts, key_learning = jax.random.split(key, 3)
    params = method.fresh(method, key_params)
    draw = partial(lessons.draw_start, learn, method.policy)
    starts = jax.vmap(draw)(jax.random.split(key_starts, method.environments))
    return State(
        params=params,
        optimizer=method.rule(method).init(params),
        starts=spread(method, starts),
        key=key_learning,
        update=jnp.int32(0),
        throughput=rate,
        best=params,
        best_validation=_score(method, params, check),
    )


@partial(jax.jit, static_argnames="method")
def advance(method: Method, state: State, learn: Lesson, check: Lesson) -> tuple[State, Metrics]:
    """The updates up to the next validation, and this validation."""
    improve = lambda state, _: method.improve(method, state, learn)
    state, metrics = jax.lax.scan(improve, state, None, length=method.learning.validate_every)
    score = _score(method, state.params, check)
    better = partial(jnp.where, score > state.best_validation)
    state = state.replace(
        best=jax.tree.map(better, state.params, state.best),
        best_validation=jnp.maximum(score, state.best_validation),
    )
    return state, metrics.replace(validation=metrics.validation.at[-1].set(score))


def step(
    method: Method, state: State, batch: Any, objective: Callable[[PolicyParams, Any], Any]
) -> tuple[State, Any]:
    """One gradient step that lowers `objective(params, batch) -> (loss, rest)`; returns rest."""
    gradient, rest = jax.grad(objective, has_aux=True)(state.params, spread(method, batch))
    change, optimizer = method.rule(method).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, change)
    return state.replace(params=params, optimizer=optimizer), rest


def spread(method: Method, rows: Any) -> Any:
    """Spreads the leading axis of every leaf over the mesh, if there is one."""
    if method.mesh is None:
        return rows
    return jax.lax.with_sharding_constraint(
        rows, NamedSharding(method.mesh, PartitionSpec(method.mesh.axis_names[0]))
    )


def rows(fields: Any) -> Any:
    """The two leading axes of every leaf as one; a leaf may be empty."""
    return jax.tree.map(
        lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), fields
    )


def restart(method: Method, lesson: Lesson, start: Start, over: jax.Array, key: jax.Array) -> Start:
    """The start behind a cycle; any other one where the text is over."""
    fresh = lessons.draw_start(lesson, method.policy, key)
    return jax.tree.map(partial(jnp.where, over), fresh, start)


def _score(method: Method, params: PolicyParams, check: Lesson) -> jax.Array:
    return lessons.throughput(params.learned, check, method.config, method.policy)
