"""Policies on a study's test texts: by task, over seeds, beside the best constant setting."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy import stats

from experiments.studies.ground import Ground
from ltd_jax.policies.policy import Constant, Mixed, Policy
from ltd_jax.replay import latency, optimum, simulate
from ltd_jax.replay.simulate import Totals


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """One policy on the test texts."""

    speedup: np.ndarray  # [tasks] over plain decoding
    committed: np.ndarray  # [tasks] tokens per cycle
    tokens_per_second: float  # over all texts
    levels: float  # mean over cycles
    size: float


class Row(TypedDict):
    """One method, as JSON: means over seeds; the intervals are Student's t over seeds, 95 %."""

    method: str
    seeds: int
    tasks: dict[str, dict[str, float]]  # speedup, committed
    speedup: float  # mean over tasks
    speedup_low: float
    speedup_high: float
    committed: float  # mean over tasks
    over_best_constant: float
    over_low: float
    over_high: float
    levels: float
    size: float


def of_constant(ground: Ground, levels: int, size: int) -> Score:
    """A fixed setting."""
    return of_policy(ground, Constant(levels, size))


def of_plain(ground: Ground) -> Score:
    """Plain decoding: one token a step."""
    tokens = float(np.asarray(ground.test.tokens_left)[np.asarray(ground.test.text_start)].sum())
    ones = np.ones(len(ground.tasks))
    return Score(ones, ones, tokens / float(plain_seconds(ground).sum()), 0.0, 0.0)


def of_policy(ground: Ground, policy: Policy) -> Score:
    """A policy, whose decisions take time; those of a constant, or constant part, take none."""
    depth, size = (policy.depth, policy.size) if isinstance(policy, Mixed) else (policy, policy)
    simulator = ground.test.replace(
        depth_seconds=ground.test.depth_seconds * (not depth.is_constant),
        size_seconds=ground.test.size_seconds * (not size.is_constant),
    )
    return of_totals(ground, simulate.run(simulator, policy))


def of_optimum(ground: Ground) -> Score:
    """The clairvoyant choices: no policy can pass them."""
    best = optimum.clairvoyant(ground.test)
    return of_totals(ground, simulate.follow(ground.test, best.levels, best.size_index))


def of_totals(ground: Ground, totals: Totals) -> Score:
    """Totals [texts] of the test texts, by task."""
    task = np.asarray(ground.test.task)
    by_task = lambda values: np.bincount(
        task, np.asarray(values, np.float64), minlength=len(ground.tasks)
    )
    cycles = float(totals.cycles.sum())
    return Score(
        speedup=by_task(plain_seconds(ground)) / by_task(totals.seconds),
        committed=by_task(totals.committed) / by_task(totals.cycles),
        tokens_per_second=float(simulate.throughput(totals)),
        levels=float(totals.levels.sum()) / cycles,
        size=float(totals.size.sum()) / cycles,
    )


def plain_seconds(ground: Ground) -> np.ndarray:
    """What plain decoding takes for each test text: f64 [texts]."""
    length_P = np.asarray(ground.test.length)
    seconds_P = latency.interpolate(ground.table, ground.table.plain_seconds, length_P)
    return np.add.reduceat(seconds_P, np.asarray(ground.test.text_start))


def best_rate(ground: Ground) -> float:
    """Tokens per second of the best constant setting."""
    return of_constant(ground, ground.best.levels, ground.best.size).tokens_per_second


def row(ground: Ground, method: str, scores: Sequence[Score]) -> Row:
    """One method's row from the scores of all its seeds."""
    best = best_rate(ground)
    speedup = over_seeds([float(score.speedup.mean()) for score in scores])
    ratio = over_seeds([score.tokens_per_second / best for score in scores])
    by_task = {
        task: {
            "speedup": float(np.mean([score.speedup[index] for score in scores])),
            "committed": float(np.mean([score.committed[index] for score in scores])),
        }
        for index, task in enumerate(ground.tasks)
    }
    return Row(
        method=method,
        seeds=len(scores),
        tasks=by_task,
        speedup=speedup[0],
        speedup_low=speedup[1],
        speedup_high=speedup[2],
        committed=float(np.mean([score.committed.mean() for score in scores])),
        over_best_constant=ratio[0],
        over_low=ratio[1],
        over_high=ratio[2],
        levels=float(np.mean([score.levels for score in scores])),
        size=float(np.mean([score.size for score in scores])),
    )


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of Student's t; of one value the interval is the value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = error * float(stats.t.ppf(0.975, len(values) - 1))
    return mean, mean - reach, mean + reach


def baselines(ground: Ground) -> list[Row]:
    """The rows that every table begins with: EAGLE-3's constants, the best ones, the optimum."""
    best = ground.best
    return [
        row(ground, "eagle3", [of_constant(ground, *ground.eagle3)]),
        row(ground, "best_constant", [of_constant(ground, best.levels, best.size)]),
        row(ground, "optimum", [of_optimum(ground)]),
    ]
