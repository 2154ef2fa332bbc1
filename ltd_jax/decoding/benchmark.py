"""Measuring decoding: methods take turns on every prompt, so that slow minutes hit all alike.

Only decoding is timed: from the moment the first token is known (prefill done) to the moment the
last one is. Compiling and warm-up texts come before.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ltd_jax.decoding import generate
from ltd_jax.decoding.generate import Step
from ltd_jax.files import UserError
from ltd_jax.models.pair import AnyPrompt, Pair
from ltd_jax.policies.policy import Policy
from ltd_jax.replay import record
from ltd_jax.replay.record import Prompt

RESAMPLES = 2000
PLAIN = "autoregressive"  # the method without a policy
LEARNED = "ltd"
MEAN = "mean"  # of all tasks, in the place of a task's name


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to decode; no policy = plain autoregressive decoding."""

    name: str
    policy: Policy | None = None

    def steps(self, pair: Pair, prompt_T: np.ndarray, new_tokens: int) -> Iterator[Step]:
        """The method's tokens for one prompt, as they become known."""
        if self.policy is None:
            return generate.generate_plain(pair, prompt_T, new_tokens)
        return generate.generate(pair, self.policy, prompt_T, new_tokens)


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


def benchmark(
    pair: Pair,
    policies: Mapping[str, Policy],
    prompts: Sequence[AnyPrompt],
    new_tokens: int = 128,
    *,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> list[dict[str, Any]]:
    """Plain decoding and policies in turns on the same prompts: a row for each.

    Every method decodes a prompt beforehand, so that compiling is not timed.

    Args:
      policies: by the name of their row.
      prompts: texts, conversations or token ids.
      progress: called with the share of the prompts that are done.

    Returns:
      Rows of "method", "tokens_per_second" (sums over all prompts), "speedup" (the median over
      prompts of the ratio to plain decoding) with its 95 % interval "speedup_low" to
      "speedup_high", "committed_per_cycle", "levels_mean" and "size_mean".

    Example:
      >>> import ltd_jax as ltd
      >>> rows = ltd.benchmark(ltd.load(), {"short": ltd.Constant(1, 2)}, ["import os"], 8)
      >>> [row["method"] for row in rows]
      ['autoregressive', 'short']
    """
    methods = [Method(PLAIN), *(Method(name, policy) for name, policy in policies.items())]
    asked = [record.with_task(pair, prompt) for prompt in prompts]
    runs: list[Run] = []
    for batch in interleaved(pair, methods, asked, new_tokens, seed=seed):
        runs += batch
        progress(len(runs) / (len(asked) * len(methods)))
    rows = {row["method"]: row for row in method_rows(runs, tasks=[])}
    for row in rows.values():
        del row["task"]  # the mean of all
    return [rows[method.name] for method in methods]


def decode(
    pair: Pair,
    method: Method,
    prompt: Prompt,
    index: int,
    new_tokens: int,
    show: Callable[[Step], None] = lambda step: None,
) -> Run:
    """Decodes and times one text; `show` gets its steps as they come."""
    steps = method.steps(pair, prompt.token, new_tokens)
    asked = time.perf_counter()
    first = next(steps)
    started = time.perf_counter()
    show(first)
    rest = []
    for step in steps:
        rest.append(step)
        show(step)
    seconds = time.perf_counter() - started
    tokens = first.tokens + tuple(token for step in rest for token in step.tokens)
    return Run(
        method=method.name,
        prompt=index,
        task=prompt.task,
        tokens=tokens,
        prefill_seconds=started - asked,
        seconds=seconds,
        levels=tuple(step.levels for step in rest),
        sizes=tuple(step.size for step in rest),
        committed=tuple(len(step.tokens) for step in rest),
    )


def interleaved(
    pair: Pair,
    methods: Sequence[Method],
    prompts: Sequence[Prompt],
    new_tokens: int,
    *,
    seed: int = 0,
    skip: frozenset[int] = frozenset(),
) -> Iterator[list[Run]]:
    """The runs of every method on a prompt, prompt by prompt, in an order drawn anew for each.

    Each is compiled and runs all its sizes once beforehand (`generate.warm_up`).

    Args:
      skip: prompts that were measured before.
    """
    if skip >= set(range(len(prompts))):
        return
    for method in methods:
        generate.warm_up(pair, method.policy)
    for index, prompt in enumerate(prompts):
        if index not in skip:
            order = np.random.default_rng((seed, index)).permutation(len(methods))
            yield [decode(pair, methods[m], prompt, index, new_tokens) for m in order]


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
            ratio = rate[method, run.prompt] / rate[baseline, run.prompt]
            tasks.setdefault(run.task, []).append(ratio)
    return {task: np.asarray(values) for task, values in tasks.items()}


def interval(by_task: Mapping[int, np.ndarray], *, seed: int = 0) -> tuple[float, float, float]:
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


def over(runs: Sequence[Run], method: str, baseline: str) -> dict[str, float]:
    """One method's tokens per second over another's, with its 95 % interval."""
    ratio, low, high = interval(ratios(runs, method, baseline))
    return {"ratio": ratio, "low": low, "high": high}


def method_rows(runs: Sequence[Run], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of every method on every task, and on their mean; plain decoding first.

    A task whose texts all ended with their first token has none.

    Raises:
      UserError: that is so of all tasks.
    """
    if not any(len(run.tokens) > 1 for run in runs):
        raise UserError("All texts ended with their first token; ask other questions.")
    methods = list(dict.fromkeys(run.method for run in runs))
    rows = []
    for method in sorted(methods, key=lambda name: name != PLAIN):
        own_runs = [run for run in runs if run.method == method]
        by_task = ratios(runs, method, PLAIN)
        for index, task in enumerate(tasks):
            task_runs = [run for run in own_runs if run.task == index]
            if index in by_task:
                rows.append(_row(method, task, task_runs, {index: by_task[index]}))
        rows.append(_row(method, MEAN, own_runs, by_task))
    return rows


def _row(
    method: str, task: str, runs: Sequence[Run], by_task: dict[int, np.ndarray]
) -> dict[str, Any]:
    speedup, low, high = interval(by_task)
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
    }
