"""Learning one pair of policies for many latency tables: they see the table that they serve.

    size-alone    levels drawn at random; validated at half of the levels
    depth         against the frozen size policy
    size          against the frozen depth policy

As in `coadapt`, but in environments over tables, and a validation is the mean over tables of the
throughput relative to the table's best constant setting.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import ppo, stage
from ltd_jax.learning.coadapt import Policy
from ltd_jax.learning.course import Replays
from ltd_jax.learning.ppo import Learner
from ltd_jax.learning.stage import Point, Stage
from ltd_jax.policies import networks
from ltd_jax.policies.controller import Controller
from ltd_jax.policies.networks import ActorCritic, LearnedParams, PolicyParams
from ltd_jax.replay import environment, latency, tables
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.tables import TablesData

VALIDATED = 8  # tables, the first of those that are trained on


class Turn(NamedTuple):
    """Which policy learns, and how."""

    name: str
    policy: Policy
    alone: bool


class Observing(NamedTuple):
    """What a training gave."""

    params: LearnedParams  # of observing policies; see policies.observing.specialised
    curves: list[Point]


TURNS = (
    Turn("size-alone", "size", True),
    Turn("depth", "depth", False),
    Turn("size", "size", False),
)


def train(
    replays: Replays,
    known: Sequence[LatencyTable],
    config: CycleConfig,
    widths: PolicyConfig,
    learning: LearningConfig,
    *,
    folder: Path | None = None,
    progress: Callable[[Point, float], None] = lambda point, share: None,
) -> Observing:
    """Trains both policies, or goes on where the folder's checkpoints end.

    Args:
      known: the tables, all of the same contexts.
      folder: for checkpoints, one folder per stage; None = leave none.
      progress: called with every new point and the share of the stages done.

    Raises:
      UserError: the folder holds a training with other settings or tables.
    """
    if folder is not None:
        stage.claim(folder, _settings(known, config, widths, learning))
    data = tables.stack(replays.train, known, config)
    validation = tables.stack(replays.validation, known[:VALIDATED], config)
    best = PolicyParams(depth=None, size=None)
    curves: list[Point] = []
    for index, turn in enumerate(TURNS):
        learner = _learner(turn, config, widths, dataclasses.replace(learning, seed=0))
        lessons = (_against(data, best), _against(validation, best))
        key = jax.random.fold_in(jax.random.key(learning.seed), index)
        lesson = _stage(turn.name, learner, lessons, key, getattr(best, turn.policy))
        state, points = stage.run(
            lesson,
            folder=None if folder is None else folder / turn.name,
            provenance={},
            report=functools.partial(_report, progress, lesson, index),
        )
        best = best.replace(**{turn.policy: state.best})
        curves += points
    return Observing(best.learned, curves)


def _stage(
    name: str,
    learner: Learner,
    lessons: tuple[TablesData, TablesData],
    key: jax.Array,
    params: ActorCritic | None,
) -> Stage:
    """One policy's turn on the tables to train and to validate on."""
    data, validation = lessons
    start = functools.partial(ppo.init, throughput=jnp.float32(1.0), params=params)
    return Stage(
        name=name,
        start=lambda: start(learner, key, data, validation),
        advance=lambda state: ppo.run_updates(
            learner, state, data, validation, learner.validate_every
        ),
        updates=learner.config.updates,
    )


def _against(data: TablesData, best: PolicyParams) -> TablesData:
    """The environments' data with the policies as learned so far."""
    actors = {
        name: None if getattr(best, name) is None else getattr(best, name).actor
        for name in ("depth", "size")
    }
    other = data.data.other_params.replace(**actors)
    return data.replace(data=data.data.replace(other_params=other))


@functools.cache  # what is compiled with a learner is found again by the learner's identity
def _learner(
    turn: Turn, config: CycleConfig, widths: PolicyConfig, learning: LearningConfig
) -> Learner:
    both, seen = networks.learned(config, widths), widths.observation
    if turn.policy == "size":
        levels: Controller | Literal["random"] = "random" if turn.alone else both
        inner = environment.size_environment(config, learning.reward, levels, seen)
        judged = networks.learned_size(config, widths, _half(config)) if turn.alone else both
        settings, actor, critic = learning.size, widths.size_actor, widths.size_critic
    else:
        inner = environment.depth_environment(config, learning.reward, both, seen)
        judged, settings = both, learning.depth
        actor, critic = widths.depth_actor, widths.depth_critic
    world, validate = tables.over_tables(inner), functools.partial(_validate, turn, config, judged)
    return Learner(
        world, settings, actor, critic, validate, learning.validate_every, _with_throughput
    )


def _half(config: CycleConfig) -> int:
    return max(config.max_levels // 2, 1)


def _validate(
    turn: Turn, config: CycleConfig, judged: Controller, actor: Any, validation: TablesData
) -> jax.Array:
    params = validation.data.other_params.replace(**{turn.policy: actor})
    return tables.ratios(validation, config, judged, params).mean()


def _with_throughput(data: TablesData, throughput: jax.Array) -> TablesData:
    return data.replace(data=data.data.replace(throughput=throughput))


def _report(
    progress: Callable[[Point, float], None], lesson: Stage, index: int, point: Point
) -> None:
    share = point.update / lesson.updates
    progress(point, (index + share) / len(TURNS))


def _settings(
    known: Sequence[LatencyTable],
    config: CycleConfig,
    widths: PolicyConfig,
    learning: LearningConfig,
) -> dict[str, Any]:
    return {
        "cycle": dataclasses.asdict(config),
        "policy": dataclasses.asdict(widths),
        "learning": dataclasses.asdict(learning),
        "tables": [latency.fingerprint(table) for table in known],
    }
