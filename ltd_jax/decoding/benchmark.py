"""Measuring decoding: methods take turns on every prompt, so that slow minutes hit all alike.

Only decoding is timed: from the moment the first token is known (prefill done) to the moment the
last one is. Compiling and one warm-up text per method come before.
"""
# DOC """From measured runs to the report: one row per method and task, and what the replay predicted."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from ltd_jax.decoding import generate
from ltd_jax.decoding.generate import Step
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Controller
from ltd_jax.replay import latency
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.simulate import Simulator

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to decode; no controller = plain autoregressive decoding."""

    name: str
    controller: Controller | None = None
    params: Any = None

    def bursts(self, pair: Pair, prompt_T: np.ndarray, new_tokens: int) -> Iterator[Step]:
        """The method's tokens for one prompt, as they become known."""
        if self.controller is None:
            return generate.generate_plain(pair, prompt_T, new_tokens)
        return generate.generate(pair, self.controller, self.params, prompt_T, new_tokens)


@dataclasses.dataclass(frozen=True)
class Run:
    """One text decoded by one method."""

    method: str
    prompt: int
    task: int
    tokens: tuple[int, ...]  # the whole continuation; the first one comes from prefill
    prefill_seconds: float  # until the first token is known
    seconds: float  # of decoding all but the first
    levels: tuple[int, ...]  # per cycle
    sizes: tuple[int, ...]  # per cycle
    committed: tuple[int, ...]  # per cycle


def decode(pair: Pair, method: Method, prompt: Prompt, index: int, new_tokens: int) -> Run:
    """Decodes and times one text."""
    bursts = method.bursts(pair, prompt.token, new_tokens)
    asked = time.perf_counter()
    first = next(bursts)
    started = time.perf_counter()
    rest = list(bursts)
    seconds = time.perf_counter() - started
    tokens = first.tokens + tuple(token for burst in rest for token in burst.tokens)
    return Run(
        method=method.name,
        prompt=index,
        task=prompt.task,
        tokens=tokens,
        prefill_seconds=started - asked,
        seconds=seconds,
        levels=tuple(burst.levels for burst in rest),
        sizes=tuple(burst.size for burst in rest),
        committed=tuple(len(burst.tokens) for burst in rest),
    )


def interleaved(
    pair: Pair,
    methods: Sequence[Method],
    prompts: Sequence[Prompt],
    new_tokens: int,
    *,
    seed: int = 0,
    skip: frozenset[int] = frozenset(),
    done: Callable[[list[Run]], None] = lambda runs: None,
) -> list[Run]:
    """Every method on every prompt, in an order drawn anew for each prompt.

    Each decodes the first prompt of every task beforehand: on a CPU the first use of a size takes
    60 to 150 ms more (measured), and a method of many sizes has many first uses.

    Args:
      skip: prompts that were measured before.
      done: called with the runs of each prompt, all methods together.
    """
    if skip >= set(range(len(prompts))):
        return []
    tasks = [prompt.task for prompt in prompts]
    for method in methods:
        for first in sorted({tasks.index(task) for task in tasks}):
            decode(endless(pair), method, prompts[first], first, new_tokens)
    runs = []
    for index, prompt in enumerate(prompts):
        if index in skip:
            continue
        order = np.random.default_rng((seed, index)).permutation(len(methods))
        batch = [decode(pair, methods[m], prompt, index, new_tokens) for m in order]
        done(batch)
        runs += batch
    return runs


def endless(pair: Pair) -> Pair:
    """The same pair and programs, but no token ends a text: a warm-up compiles all of a method."""
    return dataclasses.replace(pair, stop_tokens=(-1,) * len(pair.stop_tokens))


def per_cycle(runs: Sequence[Run], field: Literal["levels", "sizes", "committed"]) -> np.ndarray:
    """A field of all cycles of some runs, i64; a text that ended with its first token has none."""
    return np.fromiter(itertools.chain.from_iterable(getattr(run, field) for run in runs), np.int64)


def tokens_per_second(runs: Sequence[Run]) -> float:
    """Decoded tokens over seconds, both summed before dividing."""
    return sum(len(run.tokens) - 1 for run in runs) / sum(run.seconds for run in runs)


def ratios(runs: Sequence[Run], method: str, baseline: str) -> dict[int, np.ndarray]:
    """Per task: each prompt's tokens per second relative to the baseline's on that prompt."""
    rate = {
        (run.method, run.prompt): (len(run.tokens) - 1) / run.seconds
        for run in runs
        if len(run.tokens) > 1
    }
    tasks: dict[int, list[float]] = {}
    for run in runs:
        if run.method == method and (method, run.prompt) in rate:
            pair_ratio = rate[method, run.prompt] / rate[baseline, run.prompt]
            tasks.setdefault(run.task, []).append(pair_ratio)
    return {task: np.asarray(values) for task, values in tasks.items()}


def interval(by_task: dict[int, np.ndarray], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean over tasks of the median ratio, and its 95 % interval by resampling prompts."""
    random = np.random.default_rng(seed)
    value = float(np.mean([np.median(ratio) for ratio in by_task.values()]))
    draws = np.mean(
        [
            np.median(random.choice(ratio, (RESAMPLES, len(ratio))), axis=1)
            for ratio in by_task.values()
        ],
        axis=0,
    )
    low, high = np.percentile(draws, (2.5, 97.5))
    return value, float(low), float(high)


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
        by_task = ratios(runs, method, PLAIN)
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
    speedup, low, high = interval(ratios)
    shares = _shares(method, runs, table)
    return {
        "method": method,
        "task": task,
        "tokens_per_second": tokens_per_second(runs),
        "speedup": speedup,
        "speedup_low": low,
        "speedup_high": high,
        "committed_per_cycle": float(per_cycle(runs, "committed").mean()),
        "levels_mean": float(per_cycle(runs, "levels").mean()),
        "size_mean": float(per_cycle(runs, "sizes").mean()),
        **shares,
    }


def _shares(method: str, runs: Sequence[Run], table: LatencyTable) -> dict[str, float]:
    """Shares of the measured time, from the parts' own times; what they leave is the rest."""
    names = ("draft_share", "verify_share", "policy_share")
    if method == PLAIN:
        return dict.fromkeys(names, 0.0)
    levels, sizes = per_cycle(runs, "levels"), per_cycle(runs, "sizes")
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
    ratio, low, high = interval(ratios(runs, method, baseline))
    return {"ratio": ratio, "low": low, "high": high}


def plain_rate(replay: Simulator, table: LatencyTable) -> float:
    """Tokens per second of plain decoding that the table predicts for a replay's texts."""
    seconds = latency.interpolate(table, table.plain_seconds, np.asarray(replay.length))
    return float(len(seconds) / seconds.sum())
