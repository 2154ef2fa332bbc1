"""Measuring decoding: methods take turns on every prompt, so that slow minutes hit all alike.

Only decoding is timed: from the moment the first token is known (prefill done) to the moment the
last one is. Compiling and the first use of every size come before.
"""

import dataclasses
import functools
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
DECODING = "decode and compare"  # the stage that follows compiling
MEAN = "mean"  # of all tasks, in the place of a task's name
NUMBERS = ("tokens_per_second", "committed_per_cycle", "levels_mean", "size_mean")  # of a row
STATISTIC = (
    "Tokens per second: all tokens of a task over all seconds. Speedup: that number over plain "
    "decoding's. The 95% interval comes from resampling the task's prompts. Mean of tasks: the "
    "mean of the tasks' numbers."
)


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

    Every method is compiled and runs all its sizes beforehand, so that neither is timed.

    Args:
      policies: by the name of their row.
      prompts: texts, conversations or token ids.
      progress: called with the share of the prompts that are done, 0 when all is compiled.

    Returns:
      Rows of "method", "tokens_per_second" (all tokens over all seconds), "speedup" (that over
      plain decoding's) with its 95 % interval "speedup_low" to "speedup_high" (None with a single
      prompt), "committed_per_cycle", "levels_mean" and "size_mean"; a mean over tasks where the
      prompts name several.

    Example:
      >>> import ltd_jax as ltd
      >>> rows = ltd.benchmark(ltd.load(), {"short": ltd.Constant(1, 2)}, ["import os"], 8)
      >>> [row["method"] for row in rows]
      ['autoregressive', 'short']
    """
    methods = [Method(PLAIN), *(Method(name, policy) for name, policy in policies.items())]
    asked = [record.with_task(pair, prompt) for prompt in prompts]
    show = lambda stage, share: progress(share) if stage == DECODING else None
    batches = interleaved(pair, methods, asked, new_tokens, seed=seed, progress=show)
    runs = list(itertools.chain.from_iterable(batches))
    tasks = [""] * (1 + max(prompt.task for prompt in asked))
    rows = {row.pop("method"): row for row in method_rows(runs, tasks) if row.pop("task") == MEAN}
    return [{"method": method.name} | rows[method.name] for method in methods]


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
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Iterator[list[Run]]:
    """The runs of every method on a prompt, prompt by prompt, in an order drawn anew for each.

    Each is compiled and runs all its sizes once beforehand (`generate.warm_up`).

    Args:
      skip: prompts that were measured before.
      progress: called with a stage's name and its share: compiling a method, then `DECODING`.
    """
    asked = [index for index in range(len(prompts)) if index not in skip]
    if not asked:
        return
    for method in methods:
        stage = f"compiling {method.name}"
        progress(stage, 0.0)
        generate.warm_up(pair, method.policy, functools.partial(progress, stage))
    progress(DECODING, 1 - len(asked) / len(prompts))
    for done, index in enumerate(asked, start=1):
        order = np.random.default_rng((seed, index)).permutation(len(methods))
        yield [decode(pair, methods[m], prompts[index], index, new_tokens) for m in order]
        progress(DECODING, 1 - (len(asked) - done) / len(prompts))


def per_cycle(runs: Sequence[Run], field: Literal["levels", "sizes", "committed"]) -> np.ndarray:
    """A field of all cycles of some runs, i64; a text that ended with its first token has none."""
    return np.fromiter(itertools.chain.from_iterable(getattr(run, field) for run in runs), np.int64)


def tokens_per_second(runs: Sequence[Run]) -> float:
    """Decoded tokens over seconds, both summed before dividing."""
    return sum(len(run.tokens) - 1 for run in runs) / sum(run.seconds for run in runs)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One method's tokens per second over another's; no interval where a task has one prompt."""

    ratio: float
    low: float | None  # of the 95 % interval
    high: float | None

    @property
    def side(self) -> int:
        """1 = shown to be above 1, -1 = shown to be below, 0 = not shown to differ from 1."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 1) - int(self.high < 1)


def over(runs: Sequence[Run], method: str, baseline: str, *, seed: int = 0) -> Ratio | None:
    """The ratio of two methods' tokens per second, a mean over tasks; None without texts of both.

    The interval is from drawing every task's prompts anew, one fewer than there are: with as many
    as there are the spread of few prompts would come out too small (Rao and Wu, 1988).
    """
    random = np.random.default_rng(seed)
    values, draws, fewest = [], [], 2
    for task in sorted({run.task for run in runs}):
        mine, base = (
            [run for run in runs if (run.method, run.task) == (name, task)]
            for name in (method, baseline)
        )
        totals_P22 = _totals(mine, base)
        if len(totals_P22):
            values.append(tokens_per_second(mine) / tokens_per_second(base))
            drawn = random.integers(len(totals_P22), size=(RESAMPLES, max(len(totals_P22) - 1, 1)))
            totals_R22 = totals_P22[drawn].sum(axis=1)
            rates_R2 = totals_R22[:, :, 0] / totals_R22[:, :, 1]
            draws.append(rates_R2[:, 0] / rates_R2[:, 1])
            fewest = min(fewest, len(totals_P22))
    if not values:
        return None
    value = float(np.mean(values))
    if fewest < 2:
        return Ratio(value, None, None)
    low, high = np.percentile(np.mean(draws, axis=0), (2.5, 97.5))
    return Ratio(value, float(low), float(high))


def _totals(mine: Sequence[Run], base: Sequence[Run]) -> np.ndarray:
    """Of every prompt with texts of both: [prompts, 2 methods, (tokens, seconds)]."""
    longer = [
        {run.prompt: (len(run.tokens) - 1, run.seconds) for run in runs if len(run.tokens) > 1}
        for runs in (mine, base)
    ]
    prompts = sorted(longer[0].keys() & longer[1].keys())
    return np.asarray([[one[prompt] for one in longer] for prompt in prompts], np.float64)


def method_rows(runs: Sequence[Run], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of every method on every task, and the mean of these rows; plain decoding first.

    `STATISTIC` says what the numbers are. A task whose texts all ended with their first token has
    no row.

    Raises:
      UserError: that is so of all tasks.
    """
    if not any(len(run.tokens) > 1 for run in runs):
        raise UserError("All texts ended with their first token; ask other questions.")
    methods = list(dict.fromkeys(run.method for run in runs))
    rows = []
    for method in sorted(methods, key=lambda name: name != PLAIN):
        by_task = {}
        for index, task in enumerate(tasks):
            of_task = [run for run in runs if run.task == index]
            speedup = over(of_task, method, PLAIN)
            if speedup is not None:
                by_task[task] = _numbers([run for run in of_task if run.method == method])
                rows.append(_row(method, task, by_task[task], speedup))
        speedup = over(runs, method, PLAIN)
        if speedup is not None:
            values = by_task.values()
            means = {name: float(np.mean([one[name] for one in values])) for name in NUMBERS}
            rows.append(_row(method, MEAN, means, speedup))
    return rows


def _numbers(runs: Sequence[Run]) -> dict[str, float]:
    """NUMBERS of one method's runs."""
    cycles = [float(per_cycle(runs, name).mean()) for name in ("committed", "levels", "sizes")]
    return dict(zip(NUMBERS, (tokens_per_second(runs), *cycles), strict=True))


def _row(method: str, task: str, numbers: dict[str, float], speedup: Ratio) -> dict[str, Any]:
    return {
        "method": method,
        "task": task,
        "tokens_per_second": numbers["tokens_per_second"],
        "speedup": speedup.ratio,
        "speedup_low": speedup.low,
        "speedup_high": speedup.high,
    } | numbers
