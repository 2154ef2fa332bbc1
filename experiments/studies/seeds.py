"""Many seeds of one way of learning, those of joint and exact learning as one program.

Seconds are of one seed and without compiling, which is told apart: seeds that learn side by side
each take their share of the program.
"""

import dataclasses
import functools
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.ground import Ground
from ltd_jax.config import LearningConfig
from ltd_jax.learning import ALGORITHMS, alternate, environment, loop
from ltd_jax.learning.environment import Observations
from ltd_jax.learning.loop import Algorithm, BothPolicies
from ltd_jax.policies.networks import Learned
from ltd_jax.replay import optimum
from ltd_jax.workflow import Progress


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedSeeds:
    """Policies of several seeds."""

    policies: list[Learned]
    times: np.ndarray  # [points] seconds of training at every validation
    rates: np.ndarray  # [seeds, points] tokens per second on the validation texts
    decisions: float  # of one seed
    seconds: float  # of one seed, without compiling
    compile_seconds: float


def train(ground: Ground, learning: LearningConfig, seeds: int, progress: Progress) -> TrainedSeeds:
    """Trains with as many seeds, 0 and on."""
    if learning.algorithm == "alternate":
        return _one_by_one(ground, learning, seeds, progress)
    algorithm = ALGORITHMS[learning.algorithm].of(ground.widths, learning)
    data, validation = (
        environment.observe_all(simulator, ground.widths.observation) for simulator in ground.splits
    )
    rate = optimum.best_constant(ground.train).tokens_per_second
    return side_by_side(algorithm, data, validation, rate, seeds)


def side_by_side(
    algorithm: BothPolicies,
    data: Observations,
    validation: Observations,
    throughput: float,
    seeds: int,
) -> TrainedSeeds:
    """Trains with as many seeds by an algorithm that teaches both policies.

    Args:
      throughput: tokens per second to start the running throughput from.
    """
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    arguments = (keys, jnp.float32(throughput), data, validation)
    began = time.monotonic()
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda: arguments))
    program = _compile(algorithm, tuple(leaves), structure)
    compiled = time.monotonic()
    state, metrics = jax.block_until_ready(program(*arguments))
    seconds = (time.monotonic() - compiled) / seeds
    every = algorithm.validate_every
    rates = np.asarray(metrics.validation)[:, every - 1 :: every]
    actors = [jax.tree.map(lambda leaf, seed=seed: leaf[seed], state.best) for seed in range(seeds)]
    return TrainedSeeds(
        policies=[both.policy(algorithm.widths) for both in actors],
        times=seconds * np.arange(1, rates.shape[1] + 1) / rates.shape[1],
        rates=rates,
        decisions=float(metrics.decisions.sum()) / seeds,
        seconds=seconds,
        compile_seconds=compiled - began,
    )


@functools.lru_cache(maxsize=8)  # compiled once: tables are data; each program holds memory
def _compile(algorithm: Algorithm, shapes: tuple[Any, ...], structure: Any) -> Any:
    """`loop.program` of many seeds side by side, for arguments of some shapes."""
    many = jax.jit(jax.vmap(partial(loop.program, algorithm), (0, None, None, None)))
    return many.lower(*jax.tree.unflatten(structure, shapes)).compile()


def _one_by_one(
    ground: Ground, learning: LearningConfig, seeds: int, progress: Progress
) -> TrainedSeeds:
    """The paper's order; the first seed also compiles, so the others tell what learning takes."""
    results, seconds = [], []
    for seed in range(seeds):
        began = time.monotonic()
        settings = dataclasses.replace(learning, seed=seed)
        results.append(alternate.train(ground.splits, ground.widths, settings))
        seconds.append(time.monotonic() - began)
        progress(f"{learning.algorithm}, {learning.reward}", (seed + 1) / seeds)
    one = float(np.mean(seconds[1:])) if seeds > 1 else seconds[0]
    steps = np.diff([point.decisions for point in results[0].curves])
    done = np.cumsum([0, *np.maximum(steps, 0)])  # a new phase counts from 0
    return TrainedSeeds(
        policies=[result.policy for result in results],
        times=one * done / done[-1],
        rates=np.asarray([[point.validation for point in result.curves] for result in results]),
        decisions=float(done[-1]),
        seconds=one,
        compile_seconds=max(seconds[0] - one, 0.0),
    )
