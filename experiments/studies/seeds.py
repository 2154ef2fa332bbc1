"""Many seeds of one way of learning, those of joint and exact learning as one program.

Seconds are of one seed and without compiling, which is told apart: seeds that learn side by side
each take their share of the program.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.ground import Ground
from ltd_jax import workflow
from ltd_jax.config import LearningConfig
from ltd_jax.learning import alternate, environment, exact, joint, loop
from ltd_jax.learning.loop import Algorithm, CurvePoint
from ltd_jax.policies.networks import Learned
from ltd_jax.replay import optimum
from ltd_jax.workflow import Progress


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Validation throughput of one seed."""

    seconds: np.ndarray  # [points] of training
    rate: np.ndarray  # [points] tokens per second


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedSeeds:
    """Policies of several seeds."""

    policies: list[Learned]
    curves: list[Curve]
    decisions: float  # of one seed
    seconds: float  # of one seed, without compiling
    compile_seconds: float


def train(
    ground: Ground, learning: LearningConfig, seeds: int, progress: Progress = workflow.silent
) -> TrainedSeeds:
    """Trains with as many seeds, 0 and on."""
    if learning.algorithm == "alternate":
        advance = partial(progress, f"{learning.algorithm}, {learning.reward}")
        return _one_by_one(ground, learning, seeds, advance)
    return _side_by_side(ground, learning, seeds)


def _side_by_side(ground: Ground, learning: LearningConfig, seeds: int) -> TrainedSeeds:
    make = joint.algorithm if learning.algorithm == "joint" else exact.algorithm
    algorithm = make(ground.widths, learning)
    data, validation = (
        environment.observe_all(simulator, ground.widths.observation) for simulator in ground.splits
    )
    best = optimum.best_constant(ground.train)
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    arguments = (keys, jnp.float32(best.tokens_per_second), data, validation)
    began = time.monotonic()
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda: arguments))
    program = _compiled(algorithm, tuple(leaves), structure)
    compile_seconds = time.monotonic() - began
    began = time.monotonic()
    state, metrics = jax.block_until_ready(program(*arguments))
    seconds = (time.monotonic() - began) / seeds
    every = learning.validate_every
    rates = np.asarray(metrics.validation)[:, every - 1 :: every]
    times = seconds * np.arange(1, rates.shape[1] + 1) / rates.shape[1]
    actors = [jax.tree.map(lambda leaf, seed=seed: leaf[seed], state.best) for seed in range(seeds)]
    return TrainedSeeds(
        policies=[both.policy(ground.widths) for both in actors],
        curves=[Curve(times, rate) for rate in rates],
        decisions=float(metrics.decisions.sum()) / seeds,
        seconds=seconds,
        compile_seconds=compile_seconds,
    )


@functools.lru_cache(maxsize=8)  # compiled once: tables are data; each program holds memory
def _compiled(algorithm: Algorithm, shapes: tuple[Any, ...], structure: Any) -> Any:
    """`loop.program` of many seeds side by side, for arguments of some shapes."""
    many = jax.jit(jax.vmap(partial(loop.program, algorithm), (0, None, None, None)))
    return many.lower(*jax.tree.unflatten(structure, shapes)).compile()


def _one_by_one(
    ground: Ground, learning: LearningConfig, seeds: int, advance: Callable[[float], None]
) -> TrainedSeeds:
    """The paper's order; the first seed also compiles, so the others tell what learning takes."""
    results, seconds = [], []
    for seed in range(seeds):
        settings = dataclasses.replace(learning, seed=seed)
        began = time.monotonic()
        results.append(alternate.train(ground.splits, ground.widths, settings))
        seconds.append(time.monotonic() - began)
        advance((seed + 1) / seeds)
    one = float(np.mean(seconds[1:])) if seeds > 1 else seconds[0]
    last = {point.stage: point.decisions for point in results[0].curves}
    return TrainedSeeds(
        policies=[result.policy for result in results],
        curves=[_curve(result.curves, one) for result in results],
        decisions=float(sum(last.values())),
        seconds=one,
        compile_seconds=max(seconds[0] - one, 0.0),
    )


def _curve(points: Sequence[CurvePoint], seconds: float) -> Curve:
    """The phases one after the other, on the scale of a training that takes so many seconds."""
    done = np.cumsum([0, *np.maximum(np.diff([point.decisions for point in points]), 0)])
    return Curve(seconds * done / done[-1], np.asarray([point.validation for point in points]))
