import math

import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.replay import optimum, simulate
from tests.oracle import replay as oracle
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 3, 6), context=64)


def made(seed):
    trace = synthetic.trace(CONFIG, seed=seed, text_tokens=(7, 1, 10), agreement=0.9)
    table = synthetic.table(CONFIG, seed=seed)
    return trace, table, simulate.build(trace, table, CONFIG)


@pytest.mark.parametrize("seed", range(5))
def test_the_clairvoyant_equals_brute_force(seed):
    trace, table, simulator = made(seed)
    expected = oracle.optimum_seconds(trace, table, CONFIG)
    best = optimum.clairvoyant(simulator)
    np.testing.assert_allclose(best.seconds[trace.text_start], expected, rtol=1e-6)
    assert best.tokens_per_second == pytest.approx(18 / sum(expected), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_following_the_actions_takes_the_promised_time(seed):
    trace, _, simulator = made(seed)
    best = optimum.clairvoyant(simulator)
    for first in trace.text_start:
        position, over, seconds = jnp.int32(first), False, 0.0
        while not over:
            choice = best.levels[position], best.size_index[position]
            result = simulate.cycle_outcome(simulator, position, *choice, charge_decisions=False)
            position, over = result.next_position, bool(result.over)
            seconds += float(result.seconds)
        assert seconds == pytest.approx(best.seconds[first], rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_constant_beats_the_optimum_and_the_best_is_the_best(seed):
    trace, table, simulator = made(seed)
    rates = {
        (levels, size): 18
        / sum(row[1] for row in oracle.constant(trace, table, CONFIG, levels, index))
        for levels in (1, 2, 3)
        for index, size in enumerate(CONFIG.sizes)
    }
    best = optimum.best_constant(simulator)
    assert rates[best.levels, best.size] == pytest.approx(max(rates.values()), rel=1e-6)
    assert best.tokens_per_second == pytest.approx(max(rates.values()), rel=1e-6)
    assert optimum.clairvoyant(simulator).tokens_per_second >= max(rates.values()) * (1 - 1e-6)


def test_a_single_text_of_one_token_takes_the_fastest_cycle():
    trace = synthetic.trace(CONFIG, text_tokens=(1,))
    table = synthetic.table(CONFIG)
    best = optimum.clairvoyant(simulate.build(trace, table, CONFIG))
    assert (best.levels[0], best.size_index[0]) == (1, 0)


def test_share_gained():
    assert optimum.share_gained(15.0, 10.0, 20.0) == 0.5
    assert optimum.share_gained(9.0, 10.0, 20.0) < 0
    assert math.isnan(optimum.share_gained(10.0, 10.0, 10.0))


def test_optimum_works_with_tables_of_many_contexts():
    trace = synthetic.trace(CONFIG, seed=8, text_tokens=(6,))
    table = synthetic.table(CONFIG, contexts=(7, 9, 12))
    best = optimum.clairvoyant(simulate.build(trace, table, CONFIG))
    expected = oracle.optimum_seconds(trace, table, CONFIG)
    np.testing.assert_allclose(best.seconds[0], expected[0], rtol=1e-6)


def test_the_mean_of_tasks_is_the_mean_of_their_totals():
    _, _, simulator = made(2)
    texts = len(simulator.text_start)
    simulator = simulator.replace(task=jnp.arange(texts) % 2)
    start = np.asarray(simulator.text_start)
    tokens, seconds = np.asarray(simulator.tokens_left)[start], np.arange(1.0, 1 + texts)
    by_task = [tokens[task::2].sum() / seconds[task::2].sum() for task in (0, 1)]
    found = simulate.mean_of_tasks(simulator, np.stack([tokens, 2 * tokens]), seconds)
    assert found == pytest.approx([np.mean(by_task), 2 * np.mean(by_task)])
    one = optimum.mean_of_tasks(simulator.replace(task=jnp.zeros(texts, jnp.int32)))
    assert one == pytest.approx(optimum.clairvoyant(simulator).tokens_per_second)
