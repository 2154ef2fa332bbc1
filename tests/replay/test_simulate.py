"""Cycles, totals, single cycles and other tables, beside a plain-Python walk along the text."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import Constant, Policy
from ltd_jax.replay import optimum, simulate
from tests.oracle import replay as oracle
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
TRACE = synthetic.trace(CONFIG, seed=1, text_tokens=(9, 5, 12, 1))
TABLE = synthetic.table(CONFIG)


@pytest.fixture(scope="module")
def simulator():
    return simulate.build(TRACE, TABLE, CONFIG)


@struct.dataclass
class Watching(Policy):
    """Decides by what it sees and by what it remembers: the last cycle's accepted tokens."""

    threshold: float

    def init_history(self, config):
        return jnp.int32(1)

    def keep_drafting(self, history, view, config):
        return (view.levels <= history) & (view.log_prob.max() > self.threshold)

    def choose_size(self, history, view, config):
        return jnp.isfinite(view.log_prob).sum() % len(config.sizes)

    def update_history(self, history, outcome, config):
        return outcome.accepted


def watching_by_hand(threshold, first):
    """`Watching` in plain Python: committed, seconds, cycles, levels, size of one text."""
    position, remembered, totals = first, 1, np.zeros(5)
    left = int(TRACE.tokens_left[first])
    while left:
        levels = 1
        while (
            levels < 3
            and levels <= remembered
            and TRACE.log_prob[position, levels - 1].max() > threshold
        ):
            levels += 1
        size_index = int(np.isfinite(TRACE.log_prob[position, :levels]).sum()) % len(CONFIG.sizes)
        committed, seconds = oracle.cycle(TRACE, TABLE, CONFIG, position, levels, size_index)
        seconds += TABLE.size_seconds + TABLE.depth_seconds * min(levels, 2)
        size = CONFIG.sizes[size_index]
        remembered = oracle.accepted(TRACE, CONFIG, position, levels, size)
        totals += [committed, seconds, 1, levels, size]
        position, left = position + committed, left - committed
    return totals


def columns(totals):
    return np.stack([np.asarray(column) for column in jax.tree.leaves(totals)], axis=-1)


def test_outcome_equals_the_oracle_everywhere(simulator):
    place = np.indices((len(TRACE.tokens_left), 3, 5)).reshape(3, -1)
    levels, size_index = place[1] + 1, place[2]
    outcome = jax.vmap(
        lambda *choice: simulate.cycle_outcome(simulator, *choice, charge_decisions=False)
    )(place[0], levels, size_index)
    expected = [
        oracle.cycle(TRACE, TABLE, CONFIG, *choice)
        for choice in zip(place[0].tolist(), levels.tolist(), size_index.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(outcome.committed, [committed for committed, _ in expected])
    np.testing.assert_allclose(outcome.seconds, [seconds for _, seconds in expected], rtol=1e-6)
    np.testing.assert_array_equal(outcome.next_position, place[0] + outcome.committed)
    np.testing.assert_array_equal(outcome.over, outcome.committed == TRACE.tokens_left[place[0]])


def test_constants_equal_the_oracle(simulator):
    totals = simulate.constants(simulator)
    expected = [
        [oracle.constant(TRACE, TABLE, CONFIG, levels, size) for size in range(5)]
        for levels in (1, 2, 3)
    ]
    np.testing.assert_allclose(columns(totals)[..., :3], expected, rtol=1e-6)
    assert simulate.throughput(totals).shape == (3, 5)
    np.testing.assert_array_equal(simulator.task, [0, 1, 0, 1])


@pytest.mark.parametrize(("levels", "size"), [(1, 0), (2, 4), (3, 8)])
def test_run_of_a_constant_equals_constants(simulator, levels, size):
    totals = simulate.run(simulator, Constant(levels, size), charge_decisions=False)
    every = simulate.constants(simulator)
    index = (levels - 1, CONFIG.sizes.index(size))
    chex.assert_trees_all_close(totals, jax.tree.map(lambda total: total[index], every))
    np.testing.assert_array_equal(totals.levels, levels * totals.cycles)
    np.testing.assert_array_equal(totals.size, size * totals.cycles)


@pytest.mark.parametrize("threshold", [-9.0, -2.0, 0.0])
def test_run_of_a_policy_that_watches_and_remembers(simulator, threshold):
    totals = simulate.run(simulator, Watching(threshold))
    expected = [watching_by_hand(threshold, int(first)) for first in TRACE.text_start]
    np.testing.assert_allclose(columns(totals), expected, rtol=1e-5)


def test_run_compiles_once_for_all_settings_and_checks_each(simulator):
    simulate._run.clear_cache()  # another test may have compiled the same program
    for levels in (1, 2, 3):
        simulate.run(simulator, Constant(levels, 4))
    assert simulate._run._cache_size() == 1
    with pytest.raises(UserError, match="size 5 is not one of"):
        simulate.run(simulator, Constant(1, 5))


def test_build_refuses_what_does_not_fit():
    sizes = dataclasses.replace(CONFIG, sizes=(0, 1, 2, 4, 6))
    with pytest.raises(UserError, match="latency table has 3 levels"):
        simulate.build(TRACE, TABLE, sizes)
    with pytest.raises(UserError, match="trace has 3 levels"):
        simulate.build(TRACE, TABLE, dataclasses.replace(CONFIG, max_levels=4))


LIVELY = synthetic.trace(CONFIG, text_tokens=(24, 17, 20), agreement=0.9)


@pytest.fixture(scope="module")
def lively():
    return simulate.build(LIVELY, TABLE, CONFIG)


@struct.dataclass
class Changing(Policy):
    """Choices that change from cycle to cycle."""

    threshold: float

    def keep_drafting(self, history, view, config):
        return view.log_prob.max() > self.threshold

    def choose_size(self, history, view, config):
        return view.levels + (view.log_prob[0].max() > self.threshold)


@struct.dataclass
class Counting(Policy):
    """The n-th cycle of a text drafts 1 + n % 3 levels."""

    def init_history(self, config):
        return jnp.int32(0)

    def keep_drafting(self, history, view, config):
        return view.levels < 1 + history % 3

    def choose_size(self, history, view, config):
        return view.levels

    def update_history(self, history, outcome, config):
        return history + 1


def sums(simulator, cycles):
    """Totals of listed cycles, [5, texts]."""
    text = np.searchsorted(np.asarray(simulator.text_start), cycles.position, side="right") - 1
    place = (cycles.position, cycles.levels - 1, cycles.size_index)
    left = np.asarray(simulator.tokens_left)[cycles.position]
    sizes = np.asarray(CONFIG.sizes)[cycles.size_index]
    columns = (
        np.minimum(cycles.accepted + 1, left),
        np.asarray(simulator.seconds)[place],
        np.ones(len(text)),
        cycles.levels,
        sizes,
    )
    return np.stack([np.bincount(text, column) for column in columns], axis=-1)


@pytest.mark.parametrize("policy", [Changing(-0.5), Counting()])
def test_the_listed_cycles_are_those_that_a_run_sums_up(lively, policy):
    cycles = simulate.list_cycles(lively, policy)
    totals = simulate.run(lively, policy, charge_decisions=False)
    np.testing.assert_allclose(columns(totals), sums(lively, cycles), rtol=1e-5)
    assert len(np.unique(cycles.size_index)) > 1 and len(np.unique(cycles.levels)) > 1
    assert cycles.position[0] == 0 and set(np.asarray(lively.text_start)) <= set(cycles.position)


def test_a_policy_remembers_along_a_text(lively):
    cycles = simulate.list_cycles(lively, Counting())
    first = np.isin(cycles.position, np.asarray(lively.text_start))
    text = np.cumsum(first) - 1
    turn = np.arange(len(text)) - np.flatnonzero(first)[text]
    np.testing.assert_array_equal(cycles.levels, 1 + turn % 3)


def test_following_the_optimum_takes_its_time(lively):
    best = optimum.clairvoyant(lively)
    rate = float(simulate.throughput(simulate.follow(lively, best.levels, best.size_index)))
    assert rate == pytest.approx(best.tokens_per_second, rel=1e-5)


def test_entropy_of_choices():
    assert simulate.choice_entropy(np.array([3, 3, 3])) == 0
    assert simulate.choice_entropy(np.array([1, 2, 1, 2])) == pytest.approx(np.log(2))


def test_another_table_is_as_if_built_with_it(lively):
    table = synthetic.table(CONFIG, seed=5, contexts=(4, 20, 60))
    swapped, built = simulate.with_latency(lively, table), simulate.build(LIVELY, table, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, swapped, built)
    assert swapped.log_prob is lively.log_prob
    other = dataclasses.replace(CONFIG, sizes=(0, 2))
    with pytest.raises(UserError, match="fit the table"):
        simulate.with_latency(lively, synthetic.table(other))


def test_some_texts_give_what_they_give_among_all(lively):
    some = simulate.take_texts(lively, [2, 0])
    all_totals, totals = (columns(simulate.run(each, Changing(-0.5))) for each in (lively, some))
    np.testing.assert_array_equal(totals, all_totals[[2, 0]])
    assert some.text_start.tolist() == [0, 20] and some.task.tolist() == [0, 0]
