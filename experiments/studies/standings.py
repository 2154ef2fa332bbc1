"""From a contest to rows: every method on every task, measured live, with what the replay says."""

from typing import Any

import numpy as np

from experiments.studies import contest
from experiments.studies.contest import Contest, Entry
from ltd_jax.decoding import benchmark, lossless
from ltd_jax.decoding.benchmark import Run
from ltd_jax.replay import optimum
from ltd_jax.replay.simulate import Simulator, Totals

MEAN = "mean"


def rows(found: Contest, temperature: float) -> list[dict[str, Any]]:
    """The leaderboard's rows: one per method and task, and one for the mean of the tasks.

    Speedups are medians of ratios per prompt with 95 % intervals; `share_of_optimum` is a share, by
    replay, of the way from the best constant to the clairvoyant optimum, null where there is none.
    """
    predictions = {
        entry.method.name: contest.predicted(found.pair, found.replay, entry)
        for entry in found.entries
    }
    most = optimum.dynamic_programme(found.replay).seconds[np.asarray(found.replay.first)]
    lists = []
    for entry in found.entries:
        name = entry.method.name
        for task, index in [*_tasks(found), (MEAN, None)]:
            row = {"method": name, "task": task, "temperature": temperature}
            row |= _measured(found.runs, name, index)
            best = predictions[contest.BEST]
            share = _share(found.replay, predictions[name], best, most, index)
            lists.append(row | {"share_of_optimum": share})
    return lists


def _tasks(found: Contest) -> list[tuple[str, int | None]]:
    """Names and numbers of the tasks with a text that did not end with its first token."""
    known = {run.task for run in found.runs if len(run.tokens) > 1}
    return [(name, i) for i, name in enumerate(found.asking.tasks) if i in known]


def _measured(runs: list[Run], method: str, task: int | None) -> dict[str, float]:
    """What was measured of a method on a task, or on all of them."""
    ours = [run for run in runs if run.method == method and task in (None, run.task)]
    against = {
        base: benchmark.ratios(runs, method, base) for base in (benchmark.PLAIN, contest.BEST)
    }
    chosen = {
        base: {key: value for key, value in by_task.items() if task in (None, key)}
        for base, by_task in against.items()
    }
    speedup, low, high = benchmark.interval(chosen[benchmark.PLAIN])
    return {
        "tokens_per_second": benchmark.tokens_per_second(ours),
        "speedup": speedup,
        "low": low,
        "high": high,
        "over_best_constant": benchmark.interval(chosen[contest.BEST])[0],
        "committed_per_cycle": float(benchmark.per_cycle(ours, "committed").mean()),
    }


def _share(
    replay: Simulator, ours: Totals | None, best: Totals | None, most: np.ndarray, task: int | None
) -> float | None:
    if ours is None or best is None:
        return None
    texts = np.ones(len(most), bool) if task is None else np.asarray(replay.task) == task
    rate = lambda totals: float(
        np.asarray(totals.committed)[texts].sum() / np.asarray(totals.seconds)[texts].sum()
    )
    optimal = float(np.asarray(best.committed)[texts].sum() / most[texts].sum())
    share = optimum.share_gained(rate(ours), rate(best), optimal)
    return None if np.isnan(share) else float(share)


def time_rows(found: Contest) -> list[dict[str, Any]]:
    """How each method's measured time splits: drafting, verifying, its own decisions, the rest."""
    table = found.table
    lists = []
    for entry in found.entries:
        ours = [run for run in found.runs if run.method == entry.method.name]
        if entry.method.controller is None:
            continue
        levels = benchmark.per_cycle(ours, "levels")
        sizes = np.searchsorted(table.sizes, benchmark.per_cycle(ours, "sizes"))
        total = sum(run.seconds for run in ours)
        parts = {
            "draft": table.draft_seconds.mean(axis=0)[levels - 1].sum(),
            "verify": table.verify_seconds.mean(axis=0)[sizes].sum(),
            "decide": contest.own_seconds(entry, ours),
        }
        shares = {part: float(seconds / total) for part, seconds in parts.items()}
        lists.append({"method": entry.method.name} | shares | {"rest": 1 - sum(shares.values())})
    return lists


def replay_rows(found: Contest) -> list[dict[str, Any]]:
    """Per method: the replay's tokens per second beside the measured ones, and mean choices."""
    lists = []
    for entry in found.entries:
        totals = contest.predicted(found.pair, found.replay, entry)
        ours = [run for run in found.runs if run.method == entry.method.name]
        if totals is None:
            continue
        lists.append(
            {
                "method": entry.method.name,
                "predicted_tokens_per_second": float(
                    np.asarray(totals.committed).sum() / np.asarray(totals.seconds).sum()
                ),
                "measured_tokens_per_second": benchmark.tokens_per_second(ours),
                "levels_mean": float(benchmark.per_cycle(ours, "levels").mean()),
                "size_mean": float(benchmark.per_cycle(ours, "sizes").mean()),
            }
        )
    return lists


def lossless_row(found: Contest) -> dict[str, Any]:
    """Every method's texts beside plain decoding's, token by token."""
    prompts = found.asking.prompts
    return dict(lossless.compare(found.pair, found.runs, prompts, benchmark.PLAIN))


def entry_rows(entries: list[Entry]) -> list[dict[str, Any]]:
    """What each method was set to, where that comes from, and what a decision costs."""
    return [
        {
            "method": entry.method.name,
            "setting": {key: list(values) for key, values in entry.setting.items()},
            "source": entry.source,
            "microseconds_per_pass": 0.0
            if entry.overhead is None
            else 1e6 * entry.overhead.depth_seconds,
            "microseconds_per_cycle": 0.0
            if entry.overhead is None
            else 1e6 * entry.overhead.size_seconds,
        }
        for entry in entries
    ]
