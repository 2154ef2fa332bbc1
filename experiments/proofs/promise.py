"""The promise on one pair: speculative texts beside plain ones, under settings of every kind."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.decoding import benchmark, lossless
from ltd_jax.decoding.benchmark import Method
from ltd_jax.models.pair import Pair
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay.record import Prompt


@dataclasses.dataclass(frozen=True)
class Kept:
    """What was compared, and whether drafting had a say in it."""

    distinct: int  # different tokens in the plain texts
    tokens: int  # compared, up to the first difference of each text
    mismatches: int
    near_ties: int
    cycles: int
    accepted_mean: float  # drafted tokens per cycle
    accepting: float  # share of cycles that accepted any


def settings(config: CycleConfig) -> list[Method]:
    """Constants from one node on one level to all nodes on all levels."""
    most, sizes = config.max_levels, config.sizes
    middle = sizes[len(sizes) // 2]
    chosen = {(1, sizes[0]), (1, middle), ((most + 1) // 2, middle), (most, sizes[-1])}
    return [
        Method(
            f"levels {levels}, size {size}",
            policy_module.constant(),
            policy_module.constant_params(levels, size, config),
        )
        for levels, size in sorted(chosen)
    ]


def check(
    pair: Pair,
    prompts: Sequence[np.ndarray],
    new_tokens: int,
    wanted_tokens: int,
    done: Callable[[int], None] = lambda tokens: None,
) -> Kept:
    """Decodes prompts both ways, in turn with each setting, until enough tokens are compared.

    Args:
      new_tokens: per text.
      done: called with the number of tokens compared so far.
    """
    methods, plain = settings(pair.config.cycle), Method("plain")
    rows = [Prompt(token, 0) for token in prompts]
    runs, compared = [], 0
    for index, prompt in enumerate(rows):
        method = dataclasses.replace(methods[index % len(methods)], name="speculative")
        texts = [benchmark.decode(pair, one, prompt, index, new_tokens) for one in (plain, method)]
        runs += texts
        compared += len(texts[0].tokens)
        done(compared)
        if compared >= wanted_tokens:
            break
    found = lossless.compare(pair, runs, rows, "plain")
    ours = [run for run in runs if run.method == "speculative"]
    committed = benchmark.per_cycle(ours, "committed")
    said = {token for run in runs if run.method == "plain" for token in run.tokens}
    return Kept(
        distinct=len(said),
        tokens=int(found["tokens_compared"]),
        mismatches=int(found["mismatches"]),
        near_ties=int(found["near_ties"]),
        cycles=len(committed),
        accepted_mean=float(np.mean(committed - 1)),
        accepting=float(np.mean(committed > 1)),
    )
