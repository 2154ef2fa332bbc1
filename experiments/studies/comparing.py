"""Ways of learning beside each other: seeds trained as one program, scored on the test texts.

Every number is of the test texts; checkpoints and the constant to beat are chosen on the validation
texts. Curves are validation throughput over the best constant's, over seconds of training. Seconds
are of one seed and without compiling, which is told apart: seeds of joint and exact learning run
side by side in one program, so each takes its share of it.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.studies import scores
from experiments.studies.ground import Ground
from ltd_jax import workflow
from ltd_jax.config import LearningConfig
from ltd_jax.learning import alternate, environment, exact, joint, loop
from ltd_jax.learning.loop import Algorithm, Point
from ltd_jax.models.pair import Pair
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import optimum, profile
from ltd_jax.replay.profile import CycleTimer, ProfileConfig


class Curve(NamedTuple):
    """Validation throughput of one seed."""

    seconds: np.ndarray  # [points] of training
    rate: np.ndarray  # [points] tokens per second


class Trained(NamedTuple):
    """Policies of several seeds."""

    params: list[LearnedParams]
    curves: list[Curve]
    decisions: float  # of one seed
    seconds: float  # of one seed, without compiling
    compile_seconds: float


class Row(TypedDict):
    """One way of learning under one latency table; the interval is Student's t over seeds, 95 %."""

    latency: str
    learning: str
    reward: str
    seeds: int
    over_best_constant: float
    low: float
    high: float
    share_of_gap: float
    share_low: float
    share_high: float
    decisions: int
    seconds: float
    compile_seconds: float
    levels_entropy: float  # nats of how often each number of levels is chosen, mean over seeds
    sizes_entropy: float


class Score(NamedTuple):
    """One seed's policies on the test texts."""

    ratio: float  # over the best constant
    share: float  # of the way from there to the clairvoyant optimum
    levels_entropy: float
    sizes_entropy: float


def train(here: Ground, learning: LearningConfig, seeds: int, console: Console) -> Trained:
    """Trains with as many seeds, 0 and on."""
    title = f"{learning.algorithm}, {learning.reward}"
    with workflow.bar(console, title) as advance:
        if learning.algorithm == "alternate":
            return _one_by_one(here, learning, seeds, advance)
        return _side_by_side(here, learning, seeds)


def row(here: Ground, name: str, learning: LearningConfig, trained: Trained) -> Row:
    """The numbers of one way of learning under the table of that name."""
    found = [score(here, params) for params in trained.params]
    ratio, low, high = scores.over_seeds([each.ratio for each in found])
    share, share_low, share_high = scores.over_seeds([each.share for each in found])
    return Row(
        latency=name,
        learning=learning.algorithm,
        reward=learning.reward,
        seeds=len(found),
        over_best_constant=ratio,
        low=low,
        high=high,
        share_of_gap=share,
        share_low=share_low,
        share_high=share_high,
        decisions=round(trained.decisions),
        seconds=trained.seconds,
        compile_seconds=trained.compile_seconds,
        levels_entropy=float(np.mean([each.levels_entropy for each in found])),
        sizes_entropy=float(np.mean([each.sizes_entropy for each in found])),
    )


def score(here: Ground, params: LearnedParams) -> Score:
    """Policies on the test texts."""
    lesson = environment.observe_all(here.test, here.cycle, here.policy)
    walked = environment.greedy_run(params, lesson, here.cycle, here.policy)
    tokens = float(here.test.remaining[here.test.first].sum())
    rate = tokens / float(walked.seconds.sum())
    constant = scores.of_constant(here, here.best.levels, here.best.size).tokens_per_second
    most = optimum.dynamic_programme(here.test).tokens_per_second
    share_DV = np.asarray(walked.chosen.sum(0), np.float64)
    share_DV /= share_DV.sum()
    return Score(
        ratio=rate / constant,
        share=optimum.share_gained(rate, constant, most),
        levels_entropy=_entropy(share_DV.sum(1)),
        sizes_entropy=_entropy(share_DV.sum(0)),
    )


def with_policy_times(here: Ground, pair: Pair, config: ProfileConfig) -> Ground:
    """The same ground, where the policies take what its own take on this device."""
    context = config.contexts[0]
    bare = CycleTimer(pair, policy_module.constant(), context, config.cycles)
    own = profile.time_learned(bare, here.policy, config.seed, config.policy_visits)
    splits = ("train", "validation", "test")
    priced: dict[str, Any] = {
        name: profile.with_overhead(getattr(here, name), own) for name in splits
    }
    return here._replace(**priced)


def _side_by_side(here: Ground, learning: LearningConfig, seeds: int) -> Trained:
    made = joint.method if learning.algorithm == "joint" else exact.method
    method = made(here.cycle, here.policy, learning)
    learn, check = (environment.observe_all(each, here.cycle, here.policy) for each in here.lessons)
    rate = optimum.best_constant(here.train, here.cycle).tokens_per_second
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    began = time.monotonic()
    arguments = (keys, jnp.float32(rate), learn, check)
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda: arguments))
    compiled = _program(method, tuple(leaves), structure)
    compile_seconds = time.monotonic() - began
    began = time.monotonic()
    state, metrics = jax.block_until_ready(compiled(*arguments))
    seconds = (time.monotonic() - began) / seeds
    every = learning.validate_every
    validation = np.asarray(metrics.validation)[:, every - 1 :: every]
    times = seconds * np.arange(1, validation.shape[1] + 1) / validation.shape[1]
    best = [jax.tree.map(lambda leaf, seed=seed: leaf[seed], state.best) for seed in range(seeds)]
    return Trained(
        params=[policies.learned for policies in best],
        curves=[Curve(times, rate) for rate in validation],
        decisions=float(metrics.decisions.sum()) / seeds,
        seconds=seconds,
        compile_seconds=compile_seconds,
    )


@functools.lru_cache(maxsize=8)  # compiled once: tables are data; each program holds memory
def _program(method: Algorithm, shapes: tuple[Any, ...], structure: Any) -> Any:
    """`both.program` of many seeds side by side, for arguments of some shapes."""
    many = jax.jit(jax.vmap(partial(loop.program, method), (0, None, None, None)))
    return many.lower(*jax.tree.unflatten(structure, shapes)).compile()


def _one_by_one(
    here: Ground, learning: LearningConfig, seeds: int, advance: Callable[[float], None]
) -> Trained:
    """The paper's order; the first seed also compiles, so the others tell what learning takes."""
    learned, seconds = [], []
    for seed in range(seeds):
        seeded = dataclasses.replace(learning, seed=seed)
        began = time.monotonic()
        learned.append(alternate.train(here.lessons, here.cycle, here.policy, seeded))
        seconds.append(time.monotonic() - began)
        advance((seed + 1) / seeds)
    one = float(np.mean(seconds[1:])) if seeds > 1 else seconds[0]
    last = {point.stage: point.decisions for point in learned[0].curves}
    return Trained(
        params=[each.params for each in learned],
        curves=[_curve(each.curves, one) for each in learned],
        decisions=float(sum(last.values())),
        seconds=one,
        compile_seconds=max(seconds[0] - one, 0.0),
    )


def _curve(points: Sequence[Point], seconds: float) -> Curve:
    """The stages behind each other, on the scale of a training that takes so many seconds."""
    done = np.cumsum([0, *np.maximum(np.diff([point.decisions for point in points]), 0)])
    return Curve(seconds * done / done[-1], np.asarray([point.validation for point in points]))


def _entropy(share: np.ndarray) -> float:
    share = share[share > 0]
    return float(max(-(share * np.log(share)).sum(), 0.0))
