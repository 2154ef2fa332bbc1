"""The training loop of all ways of learning: from simulators to trained policies.

An `Algorithm` says how policies start and how one update improves them. Everything else is here:
validation and the best policies so far, seeds side by side, several devices, checkpoints.

    init     networks, environments, a first validation
    advance  the updates up to the next validation, and this validation: one compiled program
    program  init and all advances as one program; `jax.vmap` it over keys for many seeds

Over a mesh the environments and the rows of every minibatch are spread over its only axis;
simulators and parameters are on every device, and the compiler adds the gradients up. A training
that was killed goes on where its last checkpoint ends, bit for bit (`run_stage`).
"""

import abc
import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import struct, traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltd_jax import checkpoint, files, finite
from ltd_jax.config import ExactConfig, LearningConfig, PolicyConfig, PPOConfig, Reward
from ltd_jax.files import UserError, replacing
from ltd_jax.learning import environment
from ltd_jax.learning.environment import EnvState, Exploration, Observations
from ltd_jax.policies.networks import ActorCritics, Learned
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import Simulator

THROUGHPUT_RATE = 0.2  # weight of the newest rollout in the running throughput
_SETTINGS = "settings.json"


class Splits(NamedTuple):
    """What to learn and to validate on."""

    train: Simulator
    validation: Simulator


def split(simulator: Simulator, *, share: float = 0.15, seed: int = 0) -> Splits:
    """Sets a share of the texts aside to validate on, at least one.

    Raises:
      UserError: there are fewer than two texts.
    """
    texts = simulator.text_start.shape[0]
    if texts < 2:
        raise UserError(
            "The trace holds one text, which leaves none to validate on; record more prompts."
        )
    order = np.random.default_rng(seed).permutation(texts)
    count = min(max(1, round(share * texts)), texts - 1)
    validation, train = np.sort(order[:count]), np.sort(order[count:])
    return Splits(
        simulate.take_texts(simulator, train.tolist()),
        simulate.take_texts(simulator, validation.tolist()),
    )


@dataclasses.dataclass(frozen=True)
class CurvePoint:
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


Progress = Callable[[CurvePoint, float], None]  # a new point, the share of all work that is done


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a training gave."""

    policy: Learned  # of the best validation
    stages: dict[str, Learned]  # by stage: its policy and the other one (None = none yet)
    curves: list[CurvePoint]
    validation: float  # tokens per second of the policy on the validation texts, by replay


@struct.dataclass(kw_only=True)
class Metrics:
    """One row per update, each field f32 [updates]; nan where there is nothing to say."""

    decisions: jax.Array  # made in this update
    reward: jax.Array  # mean per decision
    throughput: jax.Array  # committed / seconds of the rollout
    entropy: jax.Array  # nats
    policy_loss: jax.Array
    value_loss: Any = np.float32(np.nan)  # nan where no value is learned
    validation: Any = np.float32(np.nan)  # of the greedy policy, filled in by the loop


@struct.dataclass(kw_only=True)
class Start:
    """What an algorithm starts with."""

    params: Any
    environments: Any  # states, leading axis [environments]
    key: jax.Array  # for the updates


@struct.dataclass(kw_only=True)
class TrainState:
    """All that a resumed training needs."""

    params: Any  # `ActorCritic` of one policy, or `ActorCritics` of both
    optimizer: optax.OptState
    environments: Any  # states, leading axis [environments]
    key: jax.Array
    update: jax.Array  # i32 [] updates done
    throughput: jax.Array  # f32 [] running tokens per second of the policies as they explore
    best: Any  # parameters of the best validation so far
    best_validation: jax.Array  # f32 []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(abc.ABC):
    """How policies learn; a static argument, so equal ones share their compiled programs."""

    validate_every: int  # updates
    mesh: Mesh | None = None  # of one axis; None = one device

    @property
    @abc.abstractmethod
    def updates(self) -> int:
        """Of a whole training."""

    @abc.abstractmethod
    def init(self, key: jax.Array, data: Any) -> Start:
        """Random parameters, and environments anywhere in the data."""

    @abc.abstractmethod
    def optimizer(self) -> optax.GradientTransformation:
        """Of all parameters."""

    @abc.abstractmethod
    def update(self, state: TrainState, data: Any) -> tuple[TrainState, Metrics]:
        """One rollout and what is learned from it: other parameters, environments and key."""

    @abc.abstractmethod
    def validate(self, params: Any, validation: Any) -> jax.Array:
        """Tokens per second of the likeliest choices, f32 []."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BothPolicies(Algorithm):
    """Base of what teaches both policies at once, on `Observations`."""

    widths: PolicyConfig
    settings: PPOConfig | ExactConfig
    reward: Reward

    @classmethod
    def of(cls, widths: PolicyConfig, learning: LearningConfig, mesh: Mesh | None = None) -> Self:
        """The algorithm of `learning.algorithm`, with its settings."""
        return cls(
            widths=widths,
            settings=getattr(learning, learning.algorithm),
            reward=learning.reward,
            validate_every=learning.validate_every,
            mesh=mesh,
        )

    @property
    def updates(self) -> int:
        """As asked, rounded up to whole validations."""
        return -(-self.settings.updates // self.validate_every) * self.validate_every

    @abc.abstractmethod
    def init_params(self, key: jax.Array, data: Observations) -> ActorCritics:
        """Random policies, and values where they are learned."""

    def init(self, key: jax.Array, data: Observations) -> Start:
        key_params, key_states, key_learning = jax.random.split(key, 3)
        draw = partial(environment.draw_state, data.simulator, self.widths.observation)
        return Start(
            params=self.init_params(key_params, data),
            environments=jax.vmap(draw)(jax.random.split(key_states, self.settings.environments)),
            key=key_learning,
        )

    def explore(
        self,
        state: TrainState,
        data: Observations,
        key: jax.Array,
        cycles: int,
        keep: Callable[[Exploration], Any],
    ) -> tuple[EnvState, Any]:
        """Walks on with the current policies, so many cycles in every environment.

        Returns:
          the environments after them; what `keep` keeps of each cycle, [cycles, environments].
        """
        policy = state.params.policy(self.widths)

        def one(start: EnvState, key: jax.Array) -> tuple[EnvState, Any]:
            after, cycle = environment.explore(policy, data, start, key)
            return after, keep(cycle)

        def advance(states_B: EnvState, key: jax.Array) -> tuple[EnvState, Any]:
            keys_B = jax.random.split(key, self.settings.environments)
            return jax.vmap(one)(spread(self, states_B), keys_B)

        return jax.lax.scan(advance, state.environments, jax.random.split(key, cycles))

    def validate(self, params: ActorCritics, validation: Observations) -> jax.Array:
        totals = environment.greedy_totals(params.policy(self.widths), validation)
        return simulate.throughput(totals)


@partial(jax.jit, static_argnames="algorithm")
def init(
    algorithm: Algorithm,
    key: jax.Array,
    throughput: jax.Array,
    data: Any,
    validation: Any,
    params: Any = None,
) -> TrainState:
    """A training before its first update; the starting policies are the best so far.

    Args:
      throughput: f32 [] tokens per second to start the running throughput from, e.g. of the best
        constant.
      data: what the algorithm learns on; validation: likewise.
      params: policies to go on from; None = random ones.
    """
    start = algorithm.init(key, data)
    params = start.params if params is None else params
    return TrainState(
        params=params,
        optimizer=algorithm.optimizer().init(params),
        environments=spread(algorithm, start.environments),
        key=start.key,
        update=jnp.int32(0),
        throughput=throughput,
        best=params,
        best_validation=algorithm.validate(params, validation),
    )


@partial(jax.jit, static_argnames="algorithm")
def advance(
    algorithm: Algorithm, state: TrainState, data: Any, validation: Any
) -> tuple[TrainState, Metrics]:
    """The updates up to the next validation, and this validation: nan if a parameter is not finite.

    Updates beyond the training's end change nothing, and their metrics are nan.
    """
    every, before = algorithm.validate_every, state.update

    def update(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        state, metrics = algorithm.update(state, data)
        rate = state.throughput
        rate += THROUGHPUT_RATE * (metrics.throughput - rate)
        return state.replace(update=state.update + 1, throughput=rate), metrics

    def update_before_end(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        nothing = dict.fromkeys(Metrics.__dataclass_fields__, jnp.float32(jnp.nan))
        skip = lambda state, _: (state, Metrics(**nothing))
        return jax.lax.cond(state.update < algorithm.updates, update, skip, state, None)

    one = update_before_end if algorithm.updates % every else update
    state, metrics = jax.lax.scan(one, state, None, length=every)
    score = algorithm.validate(state.params, validation)  # of choices, whatever the numbers are
    score = jnp.where(finite.all_finite(state.params), score, jnp.nan)
    better = partial(jnp.where, score > state.best_validation)
    is_last = jnp.arange(every) == state.update - before - 1
    return state.replace(
        best=jax.tree.map(better, state.params, state.best),
        best_validation=better(score, state.best_validation),
    ), metrics.replace(validation=jnp.where(is_last, score, jnp.nan))


@partial(jax.jit, static_argnames="algorithm")
def program(
    algorithm: Algorithm, key: jax.Array, throughput: jax.Array, data: Any, validation: Any
) -> tuple[TrainState, Metrics]:
    """A whole training, from a key to the trained policies; arguments as of `init`.

    Returns:
      the last state and the metrics of all updates, [updates] rounded up to whole validations.
    """
    start = init(algorithm, key, throughput, data, validation)
    chunks = -(-algorithm.updates // algorithm.validate_every)
    go_on = lambda state, _: advance(algorithm, state, data, validation)
    state, metrics = jax.lax.scan(go_on, start, None, length=chunks)
    return state, join_rows(metrics)


def descend(
    algorithm: Algorithm,
    state: TrainState,
    rows: Any,
    index: jax.Array,
    objective: Callable[[Any, Any], tuple[jax.Array, Any]],
) -> tuple[TrainState, Any]:
    """Gradient steps that lower `objective(params, batch) -> (loss, rest)`; returns the rests.

    Args:
      index: i32 [steps, M], the rows of each step's minibatch.
    """

    def step(state: TrainState, index_M: jax.Array) -> tuple[TrainState, Any]:
        batch = spread(algorithm, jax.tree.map(lambda leaf: leaf[index_M], rows))
        gradient, rest = jax.grad(objective, has_aux=True)(state.params, batch)
        change, optimizer = algorithm.optimizer().update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, change)
        return state.replace(params=params, optimizer=optimizer), rest

    return jax.lax.scan(step, state, index)


def spread(algorithm: Algorithm, rows: Any) -> Any:
    """Spreads the leading axis of every leaf over the mesh, if there is one."""
    if algorithm.mesh is None:
        return rows
    return jax.lax.with_sharding_constraint(rows, _over(algorithm.mesh))


def join_rows(fields: Any) -> Any:
    """The two leading axes of every leaf as one; a leaf may be empty."""
    return jax.tree.map(
        lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), fields
    )


class Stage(NamedTuple):
    """One training by the loop, arguments as of `init`."""

    name: str
    algorithm: Algorithm
    key: jax.Array
    throughput: jax.Array
    data: Any
    validation: Any
    params: Any = None

    def init(self) -> TrainState:
        """The state before the first update."""
        return init(*self[1:])


def run_stage(
    stage: Stage,
    *,
    folder: Path | None = None,
    provenance: dict[str, Any] | None = None,
    report: Callable[[CurvePoint], None] = lambda point: None,
) -> tuple[TrainState, list[CurvePoint]]:
    """Runs (or goes on with) a stage to its end, from validation to validation.

    SIGINT and SIGTERM are obeyed when the updates under way are done and saved. A stage that is
    found finished in its folder is only read.

    Args:
      folder: of the whole training; the stage's checkpoints get a folder in it. None = leave none.
      provenance: what the checkpoints say about themselves, JSON.
      report: called with every new point.

    Returns:
      the last state and the learning curve.

    Raises:
      UserError: the folder cannot be written, none of its checkpoints can be read, or an update
        gave NaN or infinity; the last checkpoint is from before it.
    """
    kept = folder and checkpoint.manager(folder / stage.name)
    with kept or contextlib.nullcontext() as checkpoints:
        state, points = _begin(stage, checkpoints, report)
        while int(state.update) < stage.algorithm.updates:
            with checkpoint.uninterrupted():
                began = time.monotonic()
                state, metrics = advance(stage.algorithm, state, stage.data, stage.validation)
                points = [*points, _next_point(points[-1], state, metrics, began)]
                _require_finite(stage, points[-1])
                if checkpoints is not None:
                    _save(checkpoints, state, points, provenance or {})
            report(points[-1])
    return state, points


def _begin(
    stage: Stage,
    checkpoints: ocp.CheckpointManager | None,
    report: Callable[[CurvePoint], None],
) -> tuple[TrainState, list[CurvePoint]]:
    if checkpoints is not None:
        restored = checkpoint.restore(checkpoints, _abstract_state(stage))
        if restored is not None:
            points = [CurvePoint(**point) for point in restored.provenance["points"]]
            return restored.state, points
    began = time.monotonic()
    state = stage.init()
    validation = float(state.best_validation)
    seconds = time.monotonic() - began
    point = CurvePoint(stage.name, 0, 0, seconds, None, None, None, None, None, validation)
    report(point)
    return state, [point]


def _abstract_state(stage: Stage) -> TrainState:
    """Shapes of the state, over a mesh with the shardings that `init` gives."""
    abstract, mesh = jax.eval_shape(stage.init), stage.algorithm.mesh
    if mesh is None:
        return abstract
    everywhere = NamedSharding(mesh, PartitionSpec())
    spread_out = lambda leaf: leaf.update(sharding=_over(mesh) if leaf.size else everywhere)
    return jax.tree.map(lambda leaf: leaf.update(sharding=everywhere), abstract).replace(
        environments=jax.tree.map(spread_out, abstract.environments)
    )


def _over(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))


def _next_point(
    before: CurvePoint, state: TrainState, metrics: Metrics, began: float
) -> CurvePoint:
    update = int(state.update)
    done = jax.tree.map(lambda leaf: np.asarray(leaf)[: update - before.update], metrics)
    value_loss = float(done.value_loss.mean())
    return CurvePoint(
        stage=before.stage,
        update=update,
        decisions=before.decisions + int(done.decisions.sum()),
        seconds=before.seconds + time.monotonic() - began,
        reward=float(done.reward.mean()),
        throughput=float(done.throughput.mean()),
        entropy=float(done.entropy.mean()),
        policy_loss=float(done.policy_loss.mean()),
        value_loss=None if np.isnan(value_loss) else value_loss,
        validation=float(done.validation[-1]),
    )


def _require_finite(stage: Stage, point: CurvePoint) -> None:
    """Raises UserError where the updates up to a point of the curve went wrong."""
    first = point.update - stage.algorithm.validate_every + 1
    files.require_finite(
        f"{stage.name} has gone wrong in one of the updates {first} to {point.update}",
        dataclasses.asdict(point),
        remedy="learn more slowly (`learning_rate`), or look at the trace and the latency table",
    )


def _save(
    checkpoints: ocp.CheckpointManager,
    state: TrainState,
    points: list[CurvePoint],
    provenance: dict[str, Any],
) -> None:
    record = {**provenance, "points": [dataclasses.asdict(point) for point in points]}
    checkpoint.save(checkpoints, points[-1].update, state, record)


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
        written = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}); delete {folder} to start again.") from error
    here, there = (traverse_util.flatten_dict(side, sep=".") for side in (settings, written))
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise UserError(
                f"{folder} holds a training with {name} = {there.get(name)}, not {here.get(name)}; "
                "give another folder, or delete this one."
            )


def resume_settings(
    splits: Splits, widths: PolicyConfig, learning: LearningConfig
) -> dict[str, Any]:
    """What a resumed training must have in common with its beginning."""
    return {
        "cycle": dataclasses.asdict(splits.train.config),
        "policy": dataclasses.asdict(widths),
        "learning": dataclasses.asdict(learning),
        "simulator": dict(zip(Splits._fields, map(_fingerprint, splits), strict=True)),
    }


def _fingerprint(simulator: Simulator) -> str:
    """12 hex characters over all but the log-probabilities, which `accepted` comes from."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(simulator.replace(log_prob=())):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]
