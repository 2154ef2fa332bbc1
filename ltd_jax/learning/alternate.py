"""The paper's order of learning (Sec. 4): each policy alone, then one at a time against the other.

    size-alone     levels drawn at random; validated at the levels of the best constant setting
    depth-alone    one fixed size
    iter1-size     against the frozen depth policy, both as learned so far
    iter2-depth    against the frozen size policy
    iter3-size     ...

In: replays to learn and to validate on, configs. Out: the policies of best validation throughput
and the curves. With a folder every stage leaves checkpoints, and the same call goes on from them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import environment, loop, ppo
from ltd_jax.learning.environment import ReplayData
from ltd_jax.learning.loop import Point, Splits, Stage, TrainResult
from ltd_jax.learning.ppo import Learner
from ltd_jax.policies import networks
from ltd_jax.policies.networks import LearnedParams, PolicyParams
from ltd_jax.policies.policy import Controller
from ltd_jax.replay import optimum, simulate

Policy = Literal["size", "depth"]


class Phase(NamedTuple):
    """Which policy learns, and how."""

    name: str
    policy: Policy
    alone: bool  # or against the frozen other policy


class _Course(NamedTuple):
    replays: Splits
    config: CycleConfig
    widths: PolicyConfig
    learning: LearningConfig
    constant: optimum.BestConstant  # on the training replay


def train(
    replays: Splits,
    config: CycleConfig,
    widths: PolicyConfig,
    learning: LearningConfig,
    *,
    folder: Path | None = None,
    provenance: dict[str, Any] | None = None,
    progress: Callable[[Point, float], None] = lambda point, share: None,
    last: str | None = None,
) -> TrainResult:
    """Trains both policies up to the stage `last`, or goes on from checkpoints, bit for bit.

    Args:
      folder: for checkpoints, one folder per stage; None = leave none.
      provenance: what the checkpoints say about themselves, JSON.
      progress: called with every new point and the share of all decisions made so far.

    Raises:
      UserError: the folder holds a training with other settings or replays, or cannot be used.
    """
    if folder is not None:
        loop.claim(folder, loop.resume_settings(replays, config, widths, learning))
    constant = optimum.best_constant(replays.train, config)
    whole = _Course(replays, config, widths, learning, constant)
    unknown: Any = None
    best = PolicyParams(depth=unknown, size=unknown)
    by_stage: dict[str, LearnedParams] = {}
    curves: list[Point] = []
    for index, turn in enumerate(phases(learning, last)):
        frozen = _frozen(turn, best)
        lesson, told = _stage(whole, index, turn, best, frozen), provenance or {}
        report = functools.partial(_report, progress, learning, index)
        place = None if folder is None else folder / turn.name
        state, points = loop.run_stage(lesson, folder=place, provenance=told, report=report)
        by_stage[turn.name] = frozen.replace(**{turn.policy: state.best.actor})
        best, curves = best.replace(**{turn.policy: state.best}), curves + points
    return TrainResult(best, by_stage, curves)


def phases(learning: LearningConfig, last: str | None = None) -> list[Phase]:
    """The order of learning, without running it; up to the turn `last`, None = all."""
    alone = [Phase("size-alone", "size", True), Phase("depth-alone", "depth", True)]
    order: tuple[Policy, ...] = ("size", "depth")
    numbered = zip(range(1, learning.alternations + 1), itertools.cycle(order))
    every = alone + [Phase(f"iter{number}-{policy}", policy, False) for number, policy in numbered]
    names = [turn.name for turn in every]
    return every if last is None else every[: names.index(last) + 1]


def nearest_size(config: CycleConfig, size: int) -> int:
    """Index into `config.sizes` of the size nearest to the wanted one; of two, the smaller."""
    return min(range(len(config.sizes)), key=lambda index: abs(config.sizes[index] - size))


def size_alone(
    config: CycleConfig, learning: LearningConfig, constant: optimum.BestConstant
) -> int:
    """Index of the size at which the depth policy learns alone."""
    said = learning.depth_stage_size
    return nearest_size(config, constant.size if said is None else said)


def _frozen(turn: Phase, best: PolicyParams) -> LearnedParams:
    """What the learning policy plays against; None = nothing learned."""
    return LearnedParams(depth=None, size=None) if turn.alone else best.learned


def _stage(
    whole: _Course, index: int, turn: Phase, best: PolicyParams, frozen: LearnedParams
) -> Stage:
    config, learning = whole.config, whole.learning
    fixed = None
    if turn.alone:
        size = size_alone(config, learning, whole.constant)
        fixed = whole.constant.levels if turn.policy == "size" else size
    shared = dataclasses.replace(learning, seed=0, depth_stage_size=None)  # compiled once for all
    learner = _learner(turn.policy, fixed, config, whole.widths, shared)
    rate = jnp.float32(whole.constant.tokens_per_second)
    data = ReplayData(whole.replays.train, frozen, rate)
    validation = ReplayData(whole.replays.validation, frozen, rate)
    key = jax.random.fold_in(jax.random.key(learning.seed), index)
    start = getattr(best, turn.policy)
    return Stage(
        name=turn.name,
        start=lambda: ppo.init(learner, key, data, validation, throughput=rate, params=start),
        advance=lambda state: ppo.run_updates(
            learner, state, data, validation, learner.validate_every
        ),
        updates=learner.config.updates,
    )


@functools.cache  # what is compiled with a learner is found again by the learner's identity
def _learner(
    policy: Policy,
    fixed: int | None,
    config: CycleConfig,
    widths: PolicyConfig,
    learning: LearningConfig,
) -> Learner:
    """Of one policy, against the other (`fixed` None) or alone.

    Args:
      fixed: alone, the levels that the size policy is validated at, or the index of the size that
        the depth policy learns and is validated with.
    """
    both = networks.learned(config, widths)
    if policy == "size":
        levels: Controller | Literal["random"] = both if fixed is None else "random"
        world = environment.size_environment(config, learning.reward, levels, widths.observation)
        judged = both if fixed is None else networks.learned_size(config, widths, fixed)
        settings, actor, critic = learning.size, widths.size_actor, widths.size_critic
    else:
        size = both if fixed is None else fixed
        world = environment.depth_environment(config, learning.reward, size, widths.observation)
        judged = both if fixed is None else networks.learned_depth(config, widths, fixed)
        settings, actor, critic = learning.depth, widths.depth_actor, widths.depth_critic
    validate = functools.partial(_validate, policy, config, judged)
    every = learning.validate_every
    return Learner(world, settings, actor, critic, validate, every, _with_throughput)


def _validate(
    policy: Policy, config: CycleConfig, judged: Controller, actor: Any, validation: ReplayData
) -> jax.Array:
    params = validation.other_params.replace(**{policy: actor})
    totals = simulate.run(validation.replay, config, judged, params, learned=True)
    return simulate.throughput(totals)


def _with_throughput(data: ReplayData, throughput: jax.Array) -> ReplayData:
    return data.replace(throughput=throughput)


def _report(
    progress: Callable[[Point, float], None], learning: LearningConfig, index: int, point: Point
) -> None:
    settings = [getattr(learning, turn.policy) for turn in phases(learning)]
    decisions = [each.updates * each.rollout for each in settings]
    progress(point, (sum(decisions[:index]) + point.decisions) / sum(decisions))
