"""Measuring decoding: methods take turns on every prompt, so that slow minutes hit all alike.

Only decoding is timed: from the moment the first token is known (prefill done) to the moment the
last one is. Compiling and one warm-up text per method come before.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from ltd_jax.cycle.pair import Pair
from ltd_jax.decoding import generate
from ltd_jax.decoding.generate import Burst
from ltd_jax.policies.controller import Controller
from ltd_jax.replay.record import Prompt

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to decode; no controller = plain autoregressive decoding."""

    name: str
    controller: Controller | None = None
    params: Any = None

    def bursts(self, pair: Pair, prompt_T: np.ndarray, new_tokens: int) -> Iterator[Burst]:
        """The method's tokens for one prompt, as they become known."""
        if self.controller is None:
            return generate.plain_bursts(pair, prompt_T, new_tokens)
        return generate.speculative_bursts(pair, self.controller, self.params, prompt_T, new_tokens)


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
