"""The beam width as a third choice per cycle, by replay: what it adds to the optimum and to LTD.

One tree per width is recorded at every position of the same texts, so a cycle may draft any of
them. The optimum over several widths is the clairvoyant programme over all their (levels, size).
What can be learned: every width has its own two policies, and a rule picks the width where a cycle
starts from the one thing known there, the entropy of the target's distribution that the root came
from. The rule is a table over bins of that entropy, found exactly on the training texts; the look
into it is charged nothing.
"""

import dataclasses
import functools
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import retargeting, scores
from experiments.studies.ground import Ground
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.files import UserError
from ltd_jax.learning import environment
from ltd_jax.learning.environment import Observations, Start
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import optimum
from ltd_jax.replay.simulate import Simulator

BINS = 16  # of the root's entropy, equally full
ROUNDS = 50  # at most, of finding a rule


class Row(TypedDict):
    """Some widths to choose from; rates are over the best constant of the first width of all."""

    widths: list[int]
    best_constant: float
    optimum: float
    learned: float
    learned_low: float  # 95 % over seeds
    learned_high: float
    chosen: list[float]  # share of positions of the test texts for each width, mean over seeds


class Cycles(NamedTuple):
    """What each width's policies do at every position, numpy [P, widths]."""

    committed: np.ndarray
    seconds: np.ndarray


def same_speed(grounds: Sequence[Ground]) -> list[Ground]:
    """The same grounds, all as fast as the first in plain decoding.

    Tables that were measured in turns (`tables.tables_of`) differ little in that; tables of other
    days differ by what the device was slower as a whole.
    """
    first = grounds[0].table.plain_seconds
    return [_scaled(each, float((first / each.table.plain_seconds).mean())) for each in grounds]


def rows_of(
    widths: Sequence[int], grounds: Sequence[Ground], params: Sequence[Sequence[LearnedParams]]
) -> list[Row]:
    """A row for every choice of widths, fewest first.

    Args:
      grounds: of every width, comparable (`must_be_comparable`).
      params: of every width, the policies of every seed.
    """
    unit = scores.of_constant(grounds[0], grounds[0].best.levels, grounds[0].best.size)
    of_seeds = list(zip(*params, strict=True))
    train, test = (
        [cycles_of(grounds, each, split) for each in of_seeds] for split in ("train", "test")
    )
    found = []
    for count in range(1, len(widths) + 1):
        for held in combinations(range(len(widths)), count):
            found.append(_row(widths, grounds, held, (train, test), unit.tokens_per_second))
    return found


def must_be_comparable(grounds: Sequence[Ground]) -> None:
    """Raises UserError unless positions mean the same for all widths, and say what is chosen.

    The texts must be the same, and the policies must not see recent cycles.
    """
    if any(here.policy.observation.acceptance_ema for here in grounds):
        raise UserError("The study of widths needs policies that do not see recent cycles.")
    for split in ("train", "test"):
        first = getattr(grounds[0], split).remaining
        for ground in grounds[1:]:
            if not np.array_equal(first, getattr(ground, split).remaining):
                raise UserError(f"The {split} texts of two beam widths differ; record them again.")


def joined(replays: Sequence[Simulator]) -> Simulator:
    """One replay whose sizes are those of all widths, one width after another."""
    return replays[0].replace(
        accepted=jnp.concatenate([each.accepted for each in replays], axis=-1),
        seconds=jnp.concatenate([each.seconds for each in replays], axis=-1),
    )


def cycles_of(grounds: Sequence[Ground], params: Sequence[LearnedParams], split: str) -> Cycles:
    """The cycle that each width's likeliest choices give from every position of a split."""
    committed, seconds = [], []
    for here, actors in zip(grounds, params, strict=True):
        lesson = environment.observe_all(getattr(here, split), here.cycle, here.policy)
        gained, took = _one_cycle_each(actors, lesson, here.cycle, here.policy)
        committed.append(np.asarray(gained))
        seconds.append(np.asarray(took, np.float64))
    return Cycles(np.stack(committed, 1), np.stack(seconds, 1))


@functools.partial(jax.jit, static_argnames=("cycle", "policy"))
def _one_cycle_each(
    actors: LearnedParams, lesson: Observations, cycle: CycleConfig, policy: PolicyConfig
) -> tuple[jax.Array, jax.Array]:
    """Committed tokens and seconds of the cycle from every position, each [P]."""

    def one(position: jax.Array) -> tuple[jax.Array, jax.Array]:
        start = Start(position, jnp.zeros((0,)))
        decision = environment.act(actors, lesson, start, cycle, policy, None)
        _, result = environment.follow(lesson, start, decision, cycle, policy)
        return result.committed, result.seconds

    positions = jnp.arange(lesson.replay.remaining.shape[0])
    return jax.lax.map(one, positions, batch_size=256)


def rule_of(replay: Simulator, cycles: Cycles) -> tuple[np.ndarray, np.ndarray]:
    """The rule of highest throughput: inner edges of the bins, and the choice in each bin.

    With throughput g, the width of a bin has the highest sum of committed - g * seconds over the
    bin's positions; g is what the rule then gives along the texts (design: the renewal reward).
    """
    entropy_P = np.asarray(replay.root_entropy)
    edges = np.quantile(entropy_P, np.linspace(0, 1, BINS + 1)[1:-1])
    bin_P = np.searchsorted(edges, entropy_P)
    choice, best = np.zeros(BINS, np.int64), 0.0
    for _ in range(ROUNDS):
        rate = rate_of(replay, cycles, choice[bin_P])
        if rate <= best:
            break
        best, kept = rate, choice
        gain = cycles.committed - rate * cycles.seconds
        choice = np.stack([gain[bin_P == each].sum(0) for each in range(BINS)]).argmax(1)
    return edges, kept


def rate_of(replay: Simulator, cycles: Cycles, choice_P: np.ndarray) -> float:
    """Tokens per second along all texts, taking `choice_P` of the widths at each position."""
    remaining_P = np.asarray(replay.remaining)
    tokens, seconds = 0, 0.0
    for first in np.asarray(replay.first):
        position, left = int(first), int(remaining_P[first])
        tokens += left
        while left > 0:
            chosen = (position, choice_P[position])
            step = int(cycles.committed[chosen])
            seconds += float(cycles.seconds[chosen])
            position, left = position + step, left - step
    return tokens / seconds


def _row(
    widths: Sequence[int],
    grounds: Sequence[Ground],
    held: tuple[int, ...],
    cycles: tuple[list[Cycles], list[Cycles]],
    unit: float,
) -> Row:
    chosen_from = [grounds[index] for index in held]
    best = max(chosen_from, key=lambda here: here.best.tokens_per_second)
    constant = scores.of_constant(best, best.best.levels, best.best.size).tokens_per_second
    test = chosen_from[0].test
    most = optimum.dynamic_programme(joined([here.test for here in chosen_from]))
    rates, shares = [], []
    for train_cycles, test_cycles in zip(*cycles, strict=True):
        learn, check = (
            Cycles(each.committed[:, held], each.seconds[:, held])
            for each in (train_cycles, test_cycles)
        )
        edges, choice = rule_of(chosen_from[0].train, learn)
        choice_P = choice[np.searchsorted(edges, np.asarray(test.root_entropy))]
        rates.append(rate_of(test, check, choice_P) / unit)
        shares.append(np.bincount(choice_P, minlength=len(held)) / len(choice_P))
    learned, low, high = scores.over_seeds(rates)
    return Row(
        widths=[widths[index] for index in held],
        best_constant=constant / unit,
        optimum=most.tokens_per_second / unit,
        learned=learned,
        learned_low=low,
        learned_high=high,
        chosen=np.mean(shares, axis=0).tolist(),
    )


def _scaled(here: Ground, factor: float) -> Ground:
    """A ground whose device takes `factor` times as long for everything."""
    parts = ("cycle", "draft", "verify", "plain", "depth", "size")
    timed = [f"{part}_seconds" for part in parts]
    changed = {name: factor * getattr(here.table, name) for name in timed}
    return retargeting.under(here, dataclasses.replace(here.table, **changed))
