import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import Controller, constant, constant_params
from ltd_jax.replay import simulate
from tests.oracle import replay as oracle
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
TRACE = synthetic.trace(CONFIG, seed=1, text_tokens=(9, 5, 12, 1))
TABLE = synthetic.table(CONFIG)


@pytest.fixture(scope="module")
def replay():
    return simulate.build(TRACE, TABLE, CONFIG)


def watching():
    """Decides by what it sees and by what it remembers: the last cycle's accepted tokens."""
    return Controller(
        init=lambda: jnp.int32(1),
        keep_drafting=lambda params, state, view: (
            (view.levels <= state) & (view.score.max() > params)
        ),
        choose_size=lambda params, state, view: jnp.isfinite(view.score).sum() % len(CONFIG.sizes),
        update=lambda state, outcome: outcome.accepted,
    )


def watching_by_hand(threshold, first):
    """`watching` in plain Python: committed, seconds, cycles, levels, size of one text."""
    position, state, totals = first, 1, np.zeros(5)
    left = int(TRACE.remaining[first])
    while left:
        levels = 1
        while (
            levels < 3 and levels <= state and TRACE.score[position, levels - 1].max() > threshold
        ):
            levels += 1
        size = int(np.isfinite(TRACE.score[position, :levels]).sum()) % len(CONFIG.sizes)
        committed, seconds = oracle.cycle(TRACE, TABLE, CONFIG, position, levels, size)
        seconds += TABLE.size_seconds + TABLE.depth_seconds * min(levels, 2)
        state = oracle.accepted(TRACE, CONFIG, position, levels, CONFIG.sizes[size])
        totals += [committed, seconds, 1, levels, CONFIG.sizes[size]]
        position, left = position + committed, left - committed
    return totals


def columns(totals):
    return np.stack([np.asarray(column) for column in jax.tree.leaves(totals)], axis=-1)


def test_outcome_equals_the_oracle_everywhere(replay):
    place = np.indices((len(TRACE.remaining), 3, 5)).reshape(3, -1)
    levels, size = place[1] + 1, place[2]
    found = jax.vmap(lambda *choice: simulate.cycle_outcome(replay, *choice, learned=False))(
        place[0], levels, size
    )
    expected = [
        oracle.cycle(TRACE, TABLE, CONFIG, *choice)
        for choice in zip(place[0].tolist(), levels.tolist(), size.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(found.committed, [committed for committed, _ in expected])
    np.testing.assert_allclose(found.seconds, [seconds for _, seconds in expected], rtol=1e-6)
    np.testing.assert_array_equal(found.next_position, place[0] + found.committed)
    np.testing.assert_array_equal(found.over, found.committed == TRACE.remaining[place[0]])


def test_constants_equal_the_oracle(replay):
    found = simulate.constants(replay, CONFIG)
    expected = [
        [oracle.constant(TRACE, TABLE, CONFIG, levels, size) for size in range(5)]
        for levels in (1, 2, 3)
    ]
    np.testing.assert_allclose(columns(found)[..., :3], expected, rtol=1e-6)
    assert simulate.throughput(found).shape == (3, 5)
    np.testing.assert_array_equal(replay.task, [0, 1, 0, 1])


@pytest.mark.parametrize(("levels", "size"), [(1, 0), (2, 4), (3, 8)])
def test_run_of_a_constant_equals_constants(replay, levels, size):
    params = constant_params(levels, size, CONFIG)
    found = simulate.run(replay, CONFIG, constant(), params, learned=False)
    every = simulate.constants(replay, CONFIG)
    index = (levels - 1, CONFIG.sizes.index(size))
    chex.assert_trees_all_close(found, jax.tree.map(lambda total: total[index], every))
    np.testing.assert_array_equal(found.levels, levels * found.cycles)
    np.testing.assert_array_equal(found.size, size * found.cycles)


@pytest.mark.parametrize("threshold", [-9.0, -2.0, 0.0])
def test_run_of_a_controller_that_watches_and_remembers(replay, threshold):
    found = simulate.run(replay, CONFIG, watching(), jnp.float32(threshold), learned=True)
    expected = [watching_by_hand(threshold, int(first)) for first in TRACE.first]
    np.testing.assert_allclose(columns(found), expected, rtol=1e-5)


def test_run_compiles_once_for_all_parameters(replay):
    controller = constant()
    simulate.run.clear_cache()  # another test may have compiled the same program
    before = simulate.run._cache_size()
    for levels in (1, 2, 3):
        params = constant_params(levels, 4, CONFIG)
        simulate.run(replay, CONFIG, controller, params, learned=True)
    assert simulate.run._cache_size() == before + 1


def test_build_refuses_what_does_not_fit():
    sizes = dataclasses.replace(CONFIG, sizes=(0, 1, 2, 4, 6))
    with pytest.raises(UserError, match="latency table has 3 levels"):
        simulate.build(TRACE, TABLE, sizes)
    with pytest.raises(UserError, match="trace has 3 levels"):
        simulate.build(TRACE, TABLE, dataclasses.replace(CONFIG, max_levels=4))
