"""Single cycles beside the totals of the same controller, and replays under other tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay import optimum, simulate
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)


@pytest.fixture(scope="module")
def replay():
    trace = synthetic.trace(CONFIG, text_tokens=(24, 17, 20), agreement=0.9)
    return simulate.build(trace, synthetic.table(CONFIG), CONFIG)


def same_totals(found, expected):
    for name in ("committed", "seconds", "cycles", "levels", "size"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)


def test_a_walk_has_the_cycles_that_a_run_sums_up(replay):
    surest = lambda score: jnp.max(score)  # log-probability
    changing = policy_module.constant()._replace(
        keep_drafting=lambda params, state, view: surest(view.score) > params,
        choose_size=lambda params, state, view: view.levels + (surest(view.score[0]) > params),
    )
    found = simulate.list_cycles(replay, CONFIG, changing, jnp.float32(-0.5))
    expected = simulate.run(replay, CONFIG, changing, jnp.float32(-0.5), learned=False)
    same_totals(simulate.totals_of(replay, CONFIG, found), expected)
    assert len(np.unique(found.size)) > 1 and len(np.unique(found.levels)) > 1
    assert found.position[0] == 0 and set(np.asarray(replay.first)) <= set(found.position)


def test_following_the_optimum_takes_its_time(replay):
    best = optimum.dynamic_programme(replay)
    totals = simulate.totals_of(replay, CONFIG, simulate.follow(replay, best.levels, best.size))
    rate = float(simulate.throughput(totals))
    assert rate == pytest.approx(best.tokens_per_second, rel=1e-5)


def test_a_controller_remembers_along_a_text(replay):
    counting = policy_module.constant()._replace(
        init=lambda: jnp.int32(0),
        keep_drafting=lambda params, state, view: view.levels < 1 + state % 3,
        choose_size=lambda params, state, view: view.levels,
        update=lambda state, outcome: state + 1,
    )
    found = simulate.list_cycles(replay, CONFIG, counting, ())
    first = np.isin(found.position, np.asarray(replay.first))
    text = np.cumsum(first) - 1
    turn = np.arange(len(text)) - np.flatnonzero(first)[text]
    np.testing.assert_array_equal(found.levels, 1 + turn % 3)
    expected = simulate.run(replay, CONFIG, counting, (), learned=False)
    same_totals(simulate.totals_of(replay, CONFIG, found), expected)


def test_entropy_of_choices():
    assert simulate.choice_entropy(np.array([3, 3, 3])) == 0
    assert simulate.choice_entropy(np.array([1, 2, 1, 2])) == pytest.approx(np.log(2))


def test_retimed_is_as_if_built_with_the_other_table(replay):
    trace = synthetic.trace(CONFIG, text_tokens=(24, 17, 20), agreement=0.9)
    table = synthetic.table(CONFIG, seed=5, contexts=(4, 20, 60))
    found, built = (
        simulate.with_latency(replay, table, CONFIG),
        simulate.build(trace, table, CONFIG),
    )
    jax.tree.map(np.testing.assert_array_equal, found, built)
    assert found.score is replay.score
    other = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 2), context=64)
    with pytest.raises(UserError, match="fit the table"):
        simulate.with_latency(replay, table, other)
