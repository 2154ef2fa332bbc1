"""Policies on a study's test texts: by task, over seeds, beside the best constant setting."""

import dataclasses
from collections.abc import Sequence
from typing import Any

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
    table, test = ground.table, ground.test
    plain_P = latency.interpolate(table, table.plain_seconds, np.asarray(test.length))
    plain = np.add.reduceat(plain_P, np.asarray(test.text_start))
    task = np.asarray(test.task)
    by_task = lambda values: np.bincount(
        task, np.asarray(values, np.float64), minlength=len(ground.tasks)
    )
    cycles = float(totals.cycles.sum())
    return Score(
        speedup=by_task(plain) / by_task(totals.seconds),
        committed=by_task(totals.committed) / by_task(totals.cycles),
        tokens_per_second=float(simulate.throughput(totals)),
        levels=float(totals.levels.sum()) / cycles,
        size=float(totals.size.sum()) / cycles,
    )


def best_rate(ground: Ground) -> float:
    """Tokens per second of the best constant setting."""
    return of_policy(ground, ground.best.policy).tokens_per_second


def row(ground: Ground, method: str, scores: Sequence[Score]) -> dict[str, Any]:
    """One method from the scores of all its seeds, as `report.tables.study` shows it.

    method, seeds, tasks (speedup and committed by name), levels, size; means over tasks: speedup
    with speedup_low and speedup_high, committed; over_best_constant with over_low and over_high.
    """
    best = best_rate(ground)
    mean = lambda values: float(np.mean(values))
    by_task = {
        task: {
            "speedup": mean([score.speedup[index] for score in scores]),
            "committed": mean([score.committed[index] for score in scores]),
        }
        for index, task in enumerate(ground.tasks)
    }
    over = [score.tokens_per_second / best for score in scores]
    return {
        "method": method,
        "seeds": len(scores),
        "tasks": by_task,
        **interval("speedup", [mean(score.speedup) for score in scores]),
        "committed": mean([mean(score.committed) for score in scores]),
        **interval("over_best_constant", over, "over_"),
        "levels": mean([score.levels for score in scores]),
        "size": mean([score.size for score in scores]),
    }


def interval(name: str, values: Sequence[float], prefix: str | None = None) -> dict[str, float]:
    """The mean over seeds by its name, and its 95 % interval of Student's t as "..low", "..high".

    Of one value the interval is the value.
    """
    prefix = f"{name}_" if prefix is None else prefix
    mean, reach = float(np.mean(values)), 0.0
    if len(values) > 1:
        error = float(np.std(values, ddof=1)) / len(values) ** 0.5
        reach = error * float(stats.t.ppf(0.975, len(values) - 1))
    return {name: mean, f"{prefix}low": mean - reach, f"{prefix}high": mean + reach}


def baselines(ground: Ground) -> list[dict[str, Any]]:
    """The rows that every table begins with: EAGLE-3's constants, the best ones, the optimum."""
    return [
        row(ground, "eagle3", [of_policy(ground, Constant(*ground.eagle3))]),
        row(ground, "best_constant", [of_policy(ground, ground.best.policy)]),
        row(ground, "optimum", [of_optimum(ground)]),
    ]
