"""Environments over tables do under each table what the environment of that table alone does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.policies import controller, networks, observing
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import cycles, environment, optimum, retime, synthetic_tables, tables
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,))


@pytest.fixture(scope="module")
def replay():
    trace = synthetic.trace(CONFIG, text_tokens=(24, 17, 20), agreement=0.9)
    return cycles.build(trace, synthetic.table(CONFIG), CONFIG)


@pytest.fixture(scope="module")
def two():
    return [synthetic.table(CONFIG, seed=seed) for seed in (1, 2)]


def test_a_step_is_that_of_its_table(replay, two):
    stacked = tables.stack(replay, two, CONFIG)
    inner = environment.size_environment(CONFIG, "renewal", "random")
    outer = tables.over_tables(inner)
    step, alone = jax.jit(outer.step), jax.jit(inner.step)
    key = jax.random.key(5)
    for index in (0, 1):
        only = tables.at(stacked, jnp.int32(index))
        place = inner.reset(only, key)
        done = step(stacked, tables.TablePlace(jnp.int32(index), place), jnp.int32(4), key)
        expected = alone(only, place, jnp.int32(4), jax.random.split(key)[1])
        for name in ("reward", "committed", "seconds", "terminated"):
            assert getattr(done, name) == getattr(expected, name)
        seen = outer.observe(stacked, done.state)
        assert seen.shape == (outer.observation_width,) == done.next_observation.shape
        cost = stacked.cost[int(done.state.table)]
        np.testing.assert_array_equal(seen[-observing.COST_COUNT :], cost)


def test_the_table_changes_where_an_episode_ends(replay, two):
    stacked = tables.stack(replay, two, CONFIG)
    outer = tables.over_tables(environment.depth_environment(CONFIG, "renewal", 1))
    start = outer.reset(stacked, jax.random.key(1))
    keys = jax.random.split(jax.random.key(0), 32)
    step = jax.jit(jax.vmap(outer.step, (None, None, None, 0)))
    after = lambda action: step(stacked, start, jnp.int32(action), keys).state.table
    assert set(np.asarray(after(0)).tolist()) == {0, 1}  # a stop ends the episode
    assert set(np.asarray(after(1)).tolist()) == {int(start.table)}


def test_a_best_constant_gives_one_token_per_unit_of_time(replay, two):
    stacked = tables.stack(replay, two, CONFIG)
    for index, table in enumerate(two):
        best = optimum.best_constant(retime.retimed(replay, table, CONFIG), CONFIG)
        setting = controller.constant_params(best.levels, best.size, CONFIG)
        scaled = tables.at(stacked, jnp.int32(index)).replay
        totals = cycles.run(scaled, CONFIG, controller.constant(), setting, learned=False)
        assert float(cycles.throughput(totals)) == pytest.approx(1, rel=1e-5)


def test_specialised_policies_choose_as_the_observing_ones(two):
    cost = tables.costs_of(two[0])
    actor = networks.size_actor(CONFIG, WIDTHS)
    observation = jax.random.uniform(jax.random.key(1), (7,))
    wide = actor.init(jax.random.key(0), observing.with_costs(observation, cost))
    folded = observing.specialised(LearnedParams(depth=None, size=wide), cost)
    np.testing.assert_allclose(
        actor.apply(folded.size, observation),
        actor.apply(wide, observing.with_costs(observation, cost)),
        rtol=1e-5,
        atol=1e-7,
    )
    assert folded.depth is None


def test_ratios_are_throughputs_under_every_table(replay, two):
    stacked = tables.stack(replay, two, CONFIG)
    narrow = networks.init_learned(jax.random.key(0), CONFIG, WIDTHS)
    grown = LearnedParams(
        depth=_with_cost_inputs(narrow.depth), size=_with_cost_inputs(narrow.size)
    )
    learned = networks.learned(CONFIG, WIDTHS)
    found = tables.ratios(stacked, CONFIG, learned, grown)
    for index in (0, 1):  # the costs have weight 0: the same choices
        scaled = tables.at(stacked, jnp.int32(index)).replay
        totals = cycles.run(scaled, CONFIG, learned, narrow, learned=True)
        assert float(found[index]) == pytest.approx(float(cycles.throughput(totals)), rel=1e-5)


def _with_cost_inputs(actor):
    """The same network with further inputs that count for nothing."""
    first = actor["params"]["Dense_0"]
    zeros = jnp.zeros((observing.COST_COUNT, first["kernel"].shape[1]))
    kernel = jnp.concatenate([first["kernel"], zeros])
    return {"params": actor["params"] | {"Dense_0": first | {"kernel": kernel}}}


def test_tables_of_other_contexts_do_not_stack(replay, two):
    other = synthetic.table(CONFIG, contexts=(8, 33))
    with pytest.raises(ValueError, match="same contexts"):
        tables.stack(replay, [two[0], other], CONFIG)


def test_costs_are_told_in_plain_steps(two):
    cost = tables.costs_of(two[0])
    doubled = synthetic_tables.table_of(synthetic_tables.costs(two[0]), CONFIG)
    assert np.all((cost >= 0) & (cost < 1)) and cost.dtype == jnp.float32
    np.testing.assert_allclose(tables.costs_of(doubled), cost, rtol=0.02)


def test_a_described_table_is_the_described_one():
    cost = synthetic_tables.Costs(0.2, 0.1, 1.0, 0.01, 0.02, 0.001, 0.002)
    table = synthetic_tables.table_of(cost, CONFIG)
    np.testing.assert_allclose(table.draft_seconds[0], [0.2, 0.3, 0.4])
    np.testing.assert_allclose(table.verify_seconds[0], [1.0, 1.01, 1.02, 1.06, 1.14])
    np.testing.assert_allclose(synthetic_tables.costs(table), cost)


def test_drawn_tables_lie_in_the_range_of_the_known_ones(two):
    drawn = synthetic_tables.draw(two, CONFIG, 40, seed=1)
    known = np.maximum([synthetic_tables.costs(table) for table in two], synthetic_tables.LEAST)
    found = np.asarray([synthetic_tables.costs(table) for table in drawn])
    assert np.all(found >= known.min(axis=0) / synthetic_tables.MARGIN * (1 - 1e-9))
    assert np.all(found <= known.max(axis=0) * synthetic_tables.MARGIN * (1 + 1e-9))
    assert len({tuple(each) for each in found}) == 40
