"""Controllers on a study's test texts: by task, over seeds, beside the best constant setting."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from scipy import stats

from experiments.studies.ground import Ground
from ltd_jax.policies import networks
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.policies.policy import Controller
from ltd_jax.replay import latency, optimum, simulate
from ltd_jax.replay.simulate import Totals


class Score(NamedTuple):
    """One controller on the test texts."""

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


def of_constant(here: Ground, levels: int, size: int) -> Score:
    """A fixed setting."""
    params = policy_module.constant_params(levels, size, here.cycle)
    return score(here, simulate.run(here.test, here.cycle, policy_module.constant(), params, False))


def of_plain(here: Ground) -> Score:
    """Plain decoding: one token a step."""
    tokens = float(np.asarray(here.test.remaining)[np.asarray(here.test.first)].sum())
    ones = np.ones(len(here.tasks))
    return Score(ones, ones, tokens / float(plain_seconds(here).sum()), 0.0, 0.0)


def of_policies(here: Ground, params: LearnedParams) -> Score:
    """Both learned policies."""
    return of_learned(
        here, networks.learned(here.cycle, here.policy), params, depth=True, size=True
    )


def of_learned(
    here: Ground, chosen: Controller, params: LearnedParams, *, depth: bool, size: bool
) -> Score:
    """A controller of which only the policies that it asks cost time."""
    replay = here.test.replace(
        depth_seconds=here.test.depth_seconds * depth, size_seconds=here.test.size_seconds * size
    )
    return score(here, simulate.run(replay, here.cycle, chosen, params, True))


def score(here: Ground, totals: Totals) -> Score:
    """Totals [texts] of the test texts, by task."""
    task = np.asarray(here.test.task)
    by_task = functools.partial(np.bincount, task, minlength=len(here.tasks))
    seconds, committed, count = (
        by_task(np.asarray(value, np.float64))
        for value in (totals.seconds, totals.committed, totals.cycles)
    )
    every = float(totals.cycles.sum())
    return Score(
        speedup=by_task(plain_seconds(here)) / seconds,
        committed=committed / count,
        tokens_per_second=float(simulate.throughput(totals)),
        levels=float(totals.levels.sum()) / every,
        size=float(totals.size.sum()) / every,
    )


def plain_seconds(here: Ground) -> np.ndarray:
    """What plain decoding takes for each test text: f64 [texts]."""
    length_P = np.asarray(here.test.length)
    seconds_P = latency.interpolate(here.table, here.table.plain_seconds, length_P)
    return np.add.reduceat(seconds_P, np.asarray(here.test.first))


def row(here: Ground, method: str, scores: Sequence[Score]) -> Row:
    """One method's row from the scores of all its seeds."""
    best = of_constant(here, here.best.levels, here.best.size).tokens_per_second
    speedup = over_seeds([float(each.speedup.mean()) for each in scores])
    ratio = over_seeds([each.tokens_per_second / best for each in scores])
    by_task = {
        task: {
            "speedup": float(np.mean([each.speedup[index] for each in scores])),
            "committed": float(np.mean([each.committed[index] for each in scores])),
        }
        for index, task in enumerate(here.tasks)
    }
    return Row(
        method=method,
        seeds=len(scores),
        tasks=by_task,
        speedup=speedup[0],
        speedup_low=speedup[1],
        speedup_high=speedup[2],
        committed=float(np.mean([each.committed.mean() for each in scores])),
        over_best_constant=ratio[0],
        over_low=ratio[1],
        over_high=ratio[2],
        levels=float(np.mean([each.levels for each in scores])),
        size=float(np.mean([each.size for each in scores])),
    )


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of Student's t; of one value the interval is the value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = error * float(stats.t.ppf(0.975, len(values) - 1))
    return mean, mean - reach, mean + reach


def baselines(here: Ground) -> list[Row]:
    """The rows that every table begins with: EAGLE-3's constants, the best ones, the optimum."""
    return [
        row(here, "eagle3", [of_constant(here, *here.eagle3)]),
        row(here, "best_constant", [of_constant(here, here.best.levels, here.best.size)]),
        row(here, "optimum", [of_optimum(here)]),
    ]


def of_optimum(here: Ground) -> Score:
    """The clairvoyant choices: no policy can pass them."""
    best = optimum.dynamic_programme(here.test)
    found = simulate.follow(here.test, best.levels, best.size)
    return score(here, simulate.totals_of(here.test, here.cycle, found))
