"""A replay under many tables gives each text what the replay of its table alone gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import many_tables, observing_policies, synthetic_tables
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.policies import networks
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import optimum, simulate
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,))
TEXTS = (24, 17, 20)


@pytest.fixture(scope="module")
def replay():
    trace = synthetic.trace(CONFIG, text_tokens=TEXTS, agreement=0.9)
    return simulate.build(trace, synthetic.table(CONFIG), CONFIG)


@pytest.fixture(scope="module")
def three():
    return [synthetic.table(CONFIG, seed=seed, contexts=(9,)) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def under(replay, three):
    return many_tables.spread(replay, three, CONFIG, copies=4, seed=0)


def test_every_text_stands_under_one_table(under):
    first = np.asarray(under.replay.first)
    assert first.tolist() == [61 * copy + start for copy in range(4) for start in (0, 24, 41)]
    tables = np.split(under.table, first[1:])
    assert all(len(set(part.tolist())) == 1 for part in tables)
    counts = np.bincount([part[0] for part in tables])
    assert counts.tolist() == [4, 4, 4]  # as often as each other


def test_totals_are_those_of_the_texts_own_table_in_its_own_units(replay, three, under):
    learned = networks.learned(CONFIG, WIDTHS)
    params = networks.init_learned(jax.random.key(2), CONFIG, WIDTHS)
    found = simulate.run(under.replay, CONFIG, learned, params, learned=True)
    for index, table in enumerate(three):
        alone = simulate.with_latency(replay, table, CONFIG)
        rate = optimum.best_constant(alone, CONFIG).tokens_per_second
        totals = simulate.run(alone, CONFIG, learned, params, learned=True)
        for place in np.flatnonzero(under.table[np.asarray(under.replay.first)] == index):
            text = place % len(TEXTS)
            assert found.committed[place] == totals.committed[text]
            expected = float(totals.seconds[text]) * rate
            assert float(found.seconds[place]) == pytest.approx(expected, rel=1e-5)


def test_a_best_constant_gives_one_token_per_unit_of_time(replay, three):
    only = many_tables.spread(replay, three[:1], CONFIG, copies=1, seed=0).replay
    best = optimum.best_constant(simulate.with_latency(replay, three[0], CONFIG), CONFIG)
    free = simulate.with_latency(replay, three[0], CONFIG)
    decisions = best.levels * float(free.depth_seconds) + float(free.size_seconds)
    setting = policy_module.constant_params(best.levels, best.size, CONFIG)
    totals = simulate.run(only, CONFIG, policy_module.constant(), setting, learned=False)
    paid = totals.seconds.sum() - totals.cycles.sum() * decisions * best.tokens_per_second
    assert float(totals.committed.sum() / paid) == pytest.approx(1, rel=1e-4)


def test_specialised_policies_choose_as_the_observing_ones(three):
    cost = many_tables.costs_of(three[0])
    wide = observing_policies.init(jax.random.key(0), CONFIG, WIDTHS)
    folded = observing_policies.specialised(wide, cost)
    depth_O, size_O = (
        jax.random.uniform(jax.random.key(1), blank.shape)
        for blank in networks.blank_observations(CONFIG, WIDTHS)
    )
    for actor, name, seen_O in (
        (networks.depth_actor(WIDTHS), "depth", depth_O),
        (networks.size_actor(CONFIG, WIDTHS), "size", size_O),
    ):
        np.testing.assert_allclose(
            actor.apply(getattr(folded, name), seen_O),
            actor.apply(
                getattr(wide, name), observing_policies.with_costs(jnp.asarray(cost), seen_O)
            ),
            rtol=1e-4,
            atol=1e-6,
        )
    assert isinstance(folded, LearnedParams)


def test_costs_are_told_in_plain_steps(three):
    cost = many_tables.costs_of(three[0])
    described = synthetic_tables.table_of(synthetic_tables.costs(three[0]), CONFIG)
    assert np.all((cost >= 0) & (cost < 1)) and cost.dtype == np.float32
    np.testing.assert_allclose(many_tables.costs_of(described), cost, rtol=1e-5)


def test_a_described_table_is_the_described_one():
    cost = synthetic_tables.Costs(0.2, 0.1, 1.0, 0.01, 0.02, 0.001, 0.002)
    table = synthetic_tables.table_of(cost, CONFIG)
    np.testing.assert_allclose(table.draft_seconds[0], [0.2, 0.3, 0.4])
    np.testing.assert_allclose(table.verify_seconds[0], [1.0, 1.01, 1.02, 1.06, 1.14])
    np.testing.assert_allclose(synthetic_tables.costs(table), cost)


def test_drawn_tables_lie_in_the_range_of_the_known_ones(three):
    drawn = synthetic_tables.draw(three, CONFIG, 40, seed=1)
    known = np.maximum([synthetic_tables.costs(table) for table in three], synthetic_tables.LEAST)
    found = np.asarray([synthetic_tables.costs(table) for table in drawn])
    assert np.all(found >= known.min(axis=0) / synthetic_tables.MARGIN * (1 - 1e-9))
    assert np.all(found <= known.max(axis=0) * synthetic_tables.MARGIN * (1 + 1e-9))
    assert len({tuple(each) for each in found}) == 40
