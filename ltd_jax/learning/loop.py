"""One stage of learning that can be killed: updates in chunks, a checkpoint after each.

In: how a training starts and goes on, a folder or None. Out: the last state and the learning curve.
A stage that is found finished in its folder is only read.
"""
# DOC """What every way of learning takes and gives: replays in, policies and their curves out."""
# DOC """Learning both policies at once: one program from a key to trained parameters.
# DOC
# DOC In: a `Method` (joint PPO, or exact gradients), lessons to learn and to validate on, keys. Out: the
# DOC policies of best validation throughput and the curves. A method says how policies start and how one
# DOC update improves them; everything else is here: validation, checkpoints, seeds side by side, devices.
# DOC
# DOC Over a mesh the starts of the walks and the rows of every minibatch are spread over its only axis;
# DOC lessons and parameters are on every device, and the compiler adds the gradients up.
# DOC """

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import struct, traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltd_jax import checkpoint
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.files import UserError, replacing
from ltd_jax.learning import environment
from ltd_jax.learning.environment import Observations, Start
from ltd_jax.learning.ppo import Metrics
from ltd_jax.policies.networks import LearnedParams, PolicyParams
from ltd_jax.replay import optimum
from ltd_jax.replay.simulate import Simulator

_SETTINGS = "settings.json"
VALIDATION = "validation"  # the metric whose best step is kept, beside the last ones


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a learning curve: means over the updates since the point before."""

    stage: str
    update: int  # updates done in this stage
    decisions: int  # made in this stage
    seconds: float  # of wall time in this stage, compiling included
    reward: float | None  # mean per decision; None before the first update, as the next four
    throughput: float | None  # tokens per second of the exploring policy
    entropy: float | None  # nats
    policy_loss: float | None
    value_loss: float | None
    validation: float  # tokens per second of the greedy policy


class HasProgress(Protocol):
    """What a stage reads of a training's state."""

    @property
    def update(self) -> Any: ...  # i32 [] updates done
    @property
    def best_validation(self) -> Any: ...  # f32 [] tokens per second


class Stage(NamedTuple):
    """How a training starts and goes on."""

    name: str
    start: Callable[[], Any]  # -> State before the first update
    advance: Callable[[Any], tuple[Any, Metrics]]  # to the next validation
    updates: int  # of the whole training


def run_stage(
    stage: Stage,
    *,
    folder: Path | None,
    provenance: dict[str, Any],
    report: Callable[[Point], None],
) -> tuple[Any, list[Point]]:
    """Runs (or goes on with) a stage to its end, from validation to validation.

    SIGINT and SIGTERM are obeyed when the updates under way are done and saved.

    Args:
      folder: for checkpoints; None = leave none.
      provenance: what the checkpoints say about themselves, JSON.
      report: called with every new point.

    Raises:
      UserError: the folder cannot be written, or none of its checkpoints can be read.
    """
    with _checkpoints(folder) as checkpoints:
        state, points = _begin(stage, checkpoints, report)
        while int(state.update) < stage.updates:
            with checkpoint.uninterrupted():
                state, points = _next_point(stage, state, points)
                if checkpoints is not None:
                    _save(checkpoints, state, points, provenance)
            report(points[-1])
    return state, points


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Writes a training's settings into its folder, or checks that they are the ones found there.

    Raises:
      UserError: the folder belongs to a training with other settings, or cannot be used.
    """
    path = folder / _SETTINGS
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1))
        return
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}); delete {folder} to start again.") from error
    here, there = (traverse_util.flatten_dict(each, sep=".") for each in (settings, found))
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise UserError(
                f"{folder} holds a training with {name} = {there.get(name)}, not {here.get(name)}; "
                "give another folder, or delete this one."
            )


def _checkpoints(
    folder: Path | None,
) -> contextlib.AbstractContextManager[ocp.CheckpointManager | None]:
    return (
        contextlib.nullcontext()
        if folder is None
        else checkpoint.manager(folder, best_metric=VALIDATION)
    )


def _begin(
    stage: Stage,
    checkpoints: ocp.CheckpointManager | None,
    report: Callable[[Point], None],
) -> tuple[Any, list[Point]]:
    if checkpoints is not None:
        restored = checkpoint.restore(checkpoints, jax.eval_shape(stage.start))
        if restored is not None:
            return restored.state, [Point(**point) for point in restored.provenance["points"]]
    began = time.monotonic()
    state = stage.start()
    validation = float(state.best_validation)
    seconds = time.monotonic() - began
    point = Point(stage.name, 0, 0, seconds, None, None, None, None, None, validation)
    report(point)
    return state, [point]


def _next_point(stage: Stage, state: Any, points: list[Point]) -> tuple[Any, list[Point]]:
    """The updates up to the next validation, and the curve with its point."""
    began = time.monotonic()
    state, metrics = stage.advance(state)
    return state, [*points, _point(points[-1], state, metrics, began)]


def _save(
    checkpoints: ocp.CheckpointManager,
    state: Any,
    points: list[Point],
    provenance: dict[str, Any],
) -> None:
    record = {**provenance, "points": [dataclasses.asdict(point) for point in points]}
    newest = points[-1]
    metrics = {VALIDATION: newest.validation}
    checkpoint.save(checkpoints, newest.update, state, record, metrics)


def _point(before: Point, state: HasProgress, metrics: Metrics, began: float) -> Point:
    update = int(state.update)
    done = jax.tree.map(lambda leaf: np.asarray(leaf)[: update - before.update], metrics)
    return Point(
        stage=before.stage,
        update=update,
        decisions=before.decisions + int(done.decisions.sum()),
        seconds=before.seconds + time.monotonic() - began,
        reward=float(done.reward.mean()),
        throughput=float(done.throughput.mean()),
        entropy=float(done.entropy.mean()),
        policy_loss=float(done.policy_loss.mean()),
        value_loss=_number(done.value_loss.mean()),
        validation=float(done.validation[-1]),
    )


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


class Splits(NamedTuple):
    """What to learn and to validate on."""

    train: Simulator
    validation: Simulator


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a training gave."""

    policies: PolicyParams
    stages: dict[str, LearnedParams]  # by stage: its policy and the other one (None = none yet)
    curves: list[Point]

    @property
    def params(self) -> LearnedParams:
        """For the controller `networks.learned`."""
        return self.policies.learned


def resume_settings(
    replays: Splits, config: CycleConfig, widths: PolicyConfig, learning: LearningConfig
) -> dict[str, Any]:
    """What a resumed training must have in common with its beginning."""
    return {
        "cycle": dataclasses.asdict(config),
        "policy": dataclasses.asdict(widths),
        "learning": dataclasses.asdict(learning),
        "replay": dict(zip(Splits._fields, map(_fingerprint, replays), strict=True)),
    }


def _fingerprint(replay: Simulator) -> str:
    """12 hex characters over all but the scores, which `accepted` comes from."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(replay.replace(score=())):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]


AXIS = "environments"  # of the mesh


@struct.dataclass(kw_only=True)
class TrainState:
    """All that a resumed training needs."""

    params: PolicyParams
    optimizer: optax.OptState
    starts: Start  # of the next cycles, leading axis [environments]
    key: jax.Array
    update: jax.Array  # i32 [] updates done
    throughput: jax.Array  # f32 [] tokens per second of the policies as they explore
    best: PolicyParams  # of the best validation so far
    best_validation: jax.Array  # f32 []


class Algorithm(NamedTuple):
    """How both policies learn; hashable, so a static argument."""

    name: str
    config: CycleConfig
    policy: PolicyConfig
    learning: LearningConfig  # with seed 0: every seed finds the same program
    environments: int
    asked_updates: int
    fresh: Callable[["Algorithm", jax.Array], PolicyParams]
    rule: Callable[["Algorithm"], optax.GradientTransformation]
    improve: Callable[["Algorithm", TrainState, Observations], tuple[TrainState, Metrics]]
    mesh: Mesh | None = None

    @property
    def validations(self) -> int:
        """How often the policies are validated after the start."""
        return -(-self.asked_updates // self.learning.validate_every)

    @property
    def updates(self) -> int:
        """Of a whole training: as asked, rounded up to whole validations."""
        return self.validations * self.learning.validate_every


def train_both(
    method: Algorithm,
    replays: Splits,
    *,
    seed: int,
    folder: Path | None,
    provenance: dict[str, Any],
    progress: Callable[[Point, float], None],
) -> TrainResult:
    """Trains both policies, or goes on where the folder's checkpoints end, bit for bit.

    Raises:
      UserError: the folder holds a training with other settings or replays, or cannot be used.
    """
    if folder is not None:
        learning = dataclasses.replace(method.learning, seed=seed)
        claim(folder, resume_settings(replays, method.config, method.policy, learning))
    learn, check = (environment.observe_all(each, method.config, method.policy) for each in replays)
    rate = jnp.float32(optimum.best_constant(replays.train, method.config).tokens_per_second)
    state, points = run_stage(
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
    return TrainResult(state.best, {method.name: state.best.learned}, points)


@partial(jax.jit, static_argnames="method")
def program(
    method: Algorithm, key: jax.Array, rate: jax.Array, learn: Observations, check: Observations
) -> tuple[TrainState, Metrics]:
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
def init(
    method: Algorithm, key: jax.Array, rate: jax.Array, learn: Observations, check: Observations
) -> TrainState:
    """A training before its first update; the starting policies are the best so far."""
    key_params, key_starts, key_learning = jax.random.split(key, 3)
    params = method.fresh(method, key_params)
    draw = partial(environment.draw_start, learn, method.policy)
    starts = jax.vmap(draw)(jax.random.split(key_starts, method.environments))
    return TrainState(
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
def advance(
    method: Algorithm, state: TrainState, learn: Observations, check: Observations
) -> tuple[TrainState, Metrics]:
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


def gradient_step(
    method: Algorithm, state: TrainState, batch: Any, objective: Callable[[PolicyParams, Any], Any]
) -> tuple[TrainState, Any]:
    """One gradient step that lowers `objective(params, batch) -> (loss, rest)`; returns rest."""
    gradient, rest = jax.grad(objective, has_aux=True)(state.params, spread(method, batch))
    change, optimizer = method.rule(method).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, change)
    return state.replace(params=params, optimizer=optimizer), rest


def spread(method: Algorithm, rows: Any) -> Any:
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


def restart(
    method: Algorithm, lesson: Observations, start: Start, over: jax.Array, key: jax.Array
) -> Start:
    """The start behind a cycle; any other one where the text is over."""
    fresh = environment.draw_start(lesson, method.policy, key)
    return jax.tree.map(partial(jnp.where, over), fresh, start)


def _score(method: Algorithm, params: PolicyParams, check: Observations) -> jax.Array:
    return environment.greedy_throughput(params.learned, check, method.config, method.policy)
