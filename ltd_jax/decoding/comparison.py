"""From measured runs to the report: one row per method and task, and what the replay predicted."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ltd_jax import repetition
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Run
from ltd_jax.errors import UserError
from ltd_jax.replay import latency
from ltd_jax.replay.cycles import Replay
from ltd_jax.replay.latency import LatencyTable

PLAIN = "autoregressive"
LEARNED = "ltd"
MEAN = "mean"  # of all tasks, in the place of a task's name


def method_rows(
    runs: Sequence[Run], tasks: Sequence[str], table: LatencyTable
) -> list[dict[str, Any]]:
    """The report's rows: every method on every task, and on their mean.

    A task whose texts all ended with their first token has none.

    Raises:
      UserError: that is so of all tasks.
    """
    if not any(len(run.tokens) > 1 for run in runs):
        raise UserError("All texts ended with their first token; ask other questions.")
    methods = list(dict.fromkeys(run.method for run in runs))
    rows = []
    for method in sorted(methods, key=lambda name: name != PLAIN):
        ours = [run for run in runs if run.method == method]
        by_task = benchmark.ratios(runs, method, PLAIN)
        for index, task in enumerate(tasks):
            mine = [run for run in ours if run.task == index]
            if index in by_task:
                rows.append(_row(method, task, mine, {index: by_task[index]}, table))
        rows.append(_row(method, MEAN, ours, by_task, table))
    return rows


def _row(
    method: str,
    task: str,
    runs: Sequence[Run],
    ratios: dict[int, np.ndarray],
    table: LatencyTable,
) -> dict[str, Any]:
    speedup, low, high = benchmark.interval(ratios)
    shares = _shares(method, runs, table)
    return {
        "method": method,
        "task": task,
        "tokens_per_second": benchmark.tokens_per_second(runs),
        "speedup": speedup,
        "speedup_low": low,
        "speedup_high": high,
        "committed_per_cycle": float(benchmark.per_cycle(runs, "committed").mean()),
        "levels_mean": float(benchmark.per_cycle(runs, "levels").mean()),
        "size_mean": float(benchmark.per_cycle(runs, "sizes").mean()),
        **shares,
    }


def _shares(method: str, runs: Sequence[Run], table: LatencyTable) -> dict[str, float]:
    """Shares of the measured time, from the parts' own times; what they leave is the rest."""
    names = ("draft_share", "verify_share", "policy_share")
    if method == PLAIN:
        return dict.fromkeys(names, 0.0)
    levels, sizes = benchmark.per_cycle(runs, "levels"), benchmark.per_cycle(runs, "sizes")
    draft = table.draft_seconds.mean(axis=0)[levels - 1].sum()
    size_index = np.searchsorted(table.sizes, sizes)
    verify = table.verify_seconds.mean(axis=0)[size_index].sum()
    decisions = levels.sum() * table.depth_seconds
    policy = decisions + len(levels) * table.size_seconds if method == LEARNED else 0.0
    parts = np.asarray([draft, verify, policy], float)
    total = max(sum(run.seconds for run in runs), float(parts.sum()))
    return {name: float(part / total) for name, part in zip(names, parts, strict=True)}


def over(runs: Sequence[Run], method: str, baseline: str) -> dict[str, float]:
    """One method's tokens per second over another's, with its 95 % interval."""
    ratio, low, high = benchmark.interval(benchmark.ratios(runs, method, baseline))
    return {"ratio": ratio, "low": low, "high": high}


def plain_rate(replay: Replay, table: LatencyTable) -> float:
    """Tokens per second of plain decoding that the table predicts for a replay's texts."""
    seconds = latency.interpolate(table, table.plain_seconds, np.asarray(replay.length))
    return float(len(seconds) / seconds.sum())


def without_repetition(
    runs: Sequence[Run], tasks: Sequence[str], replay: Replay, table: LatencyTable
) -> list[dict[str, Any]]:
    """What the speculative methods gain in cycles that start outside of repeated stretches.

    Cycles are the measured ones, their time is the table's: single cycles are too short to be timed
    alone. A task without such a cycle has no row; the mean is over the tasks that have one.
    """
    rows, text = [], _texts(runs)
    for method in dict.fromkeys(run.method for run in runs if run.method != PLAIN):
        ours = [run for run in runs if run.method == method and run.prompt in text]
        found = []
        for index, task in enumerate(tasks):
            mine = [run for run in ours if run.task == index]
            parts = [_outside(run, replay, text[run.prompt], table) for run in mine]
            committed, plain, seconds = np.concatenate(parts, axis=1) if mine else np.zeros((3, 0))
            if len(committed):
                speedup = float(plain.sum() / seconds.sum())
                share = repetition.share([np.asarray(run.tokens) for run in mine])
                found.append((task, share, float(committed.mean()), speedup))
        if found:
            means = [float(value) for value in np.mean([row[1:] for row in found], axis=0)]
            names = ("task", "repetition_share", "committed_per_cycle", "speedup")
            every = [*found, (MEAN, *means)]
            rows += [{"method": method, **dict(zip(names, row, strict=True))} for row in every]
    return rows


def _texts(runs: Sequence[Run]) -> dict[int, int]:
    """Which text of a replay of the same prompts each prompt's is.

    The replay has no text of a prompt whose text ended with its first token.
    """
    longer = sorted({run.prompt for run in runs if len(run.tokens) > 1})
    return {prompt: text for text, prompt in enumerate(longer)}


def _outside(run: Run, replay: Replay, text: int, table: LatencyTable) -> np.ndarray:
    """Of each cycle outside of repetitions [3, cycles]: tokens, plain seconds of them, seconds."""
    committed, levels = np.asarray(run.committed), np.asarray(run.levels)
    start = np.cumsum(committed) - committed
    clean = ~repetition.repeated(np.asarray(run.tokens))[start]
    length = int(replay.length[replay.first[text]]) + start
    plain = committed * latency.interpolate(table, table.plain_seconds, length)
    size = np.searchsorted(table.sizes, run.sizes)
    seconds = latency.interpolate(table, table.cycle_seconds, length)
    seconds = seconds[np.arange(len(levels)), levels - 1, size]
    if run.method == LEARNED:
        seconds = seconds + levels * table.depth_seconds + table.size_seconds
    return np.stack([committed, plain, seconds])[:, clean]


def choices(runs: Sequence[Run], replay: Replay, table: LatencyTable) -> tuple[np.ndarray, ...]:
    """Cycles of some runs by levels and size [D, V], at easy and at hard places.

    Easy = the most that any setting gets accepted there is above the median. Texts must be the
    replay's own, all of them.
    """
    text = _texts(runs)
    most_P = np.asarray(jnp.max(replay.accepted, axis=(1, 2)))
    easy_P = most_P > np.median(most_P)
    counts = np.zeros((2, table.max_levels, len(table.sizes)))
    for run in (run for run in runs if run.prompt in text):
        position = int(replay.first[text[run.prompt]])
        for levels, size, committed in zip(run.levels, run.sizes, run.committed, strict=True):
            column = table.sizes.index(size)
            counts[int(easy_P[position]), levels - 1, column] += 1
            position = min(position + committed, len(easy_P) - 1)
    return counts[1], counts[0]
