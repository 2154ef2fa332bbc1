"""A simulator under many tables gives each text what the simulator of its table alone gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import cost_conditioned, domain_randomization
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.policies import networks
from ltd_jax.policies.networks import Learned
from ltd_jax.replay import optimum, simulate
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,))
TEXTS = (24, 17, 20)


@pytest.fixture(scope="module")
def simulator():
    trace = synthetic.trace(CONFIG, text_tokens=TEXTS, agreement=0.9)
    return simulate.build(trace, synthetic.table(CONFIG), CONFIG)


@pytest.fixture(scope="module")
def three():
    return [synthetic.table(CONFIG, seed=seed, contexts=(9,)) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def under(simulator, three):
    return domain_randomization.under_tables(simulator, three, copies=4, seed=0)


def test_every_text_stands_under_one_table(under):
    first = np.asarray(under.simulator.text_start)
    assert first.tolist() == [61 * copy + start for copy in range(4) for start in (0, 24, 41)]
    tables = np.split(under.table_index, first[1:])
    assert all(len(set(part.tolist())) == 1 for part in tables)
    counts = np.bincount([part[0] for part in tables])
    assert counts.tolist() == [4, 4, 4]  # as often as each other


def test_totals_are_those_of_the_texts_own_table_in_its_own_units(simulator, three, under):
    policy = networks.init(jax.random.key(2), CONFIG, WIDTHS)
    together = simulate.run(under.simulator, policy)
    for index, table in enumerate(three):
        alone = simulate.with_latency(simulator, table)
        rate = optimum.best_constant(alone).tokens_per_second
        totals = simulate.run(alone, policy)
        table_of_text = under.table_index[np.asarray(under.simulator.text_start)]
        for place in np.flatnonzero(table_of_text == index):
            text = place % len(TEXTS)
            assert together.committed[place] == totals.committed[text]
            expected = float(totals.seconds[text]) * rate
            assert float(together.seconds[place]) == pytest.approx(expected, rel=1e-5)


def test_a_best_constant_gives_one_token_per_unit_of_time(simulator, three):
    only = domain_randomization.under_tables(simulator, three[:1], copies=1, seed=0).simulator
    alone = simulate.with_latency(simulator, three[0])
    best = optimum.best_constant(alone)
    decisions = best.levels * float(alone.depth_seconds) + float(alone.size_seconds)
    totals = simulate.run(only, best.policy, charge_decisions=False)
    paid = totals.seconds.sum() - totals.cycles.sum() * decisions * best.tokens_per_second
    assert float(totals.committed.sum() / paid) == pytest.approx(1, rel=1e-4)


def test_folded_policies_choose_as_the_cost_conditioned_ones(three):
    cost = cost_conditioned.costs_of(three[0])
    wide = cost_conditioned.init(jax.random.key(0), CONFIG, WIDTHS)
    folded = cost_conditioned.fold_costs(wide, cost)
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
                getattr(wide, name), cost_conditioned.with_costs(jnp.asarray(cost), seen_O)
            ),
            rtol=1e-4,
            atol=1e-6,
        )
    assert isinstance(folded, Learned)


def test_costs_are_told_in_plain_steps(three):
    cost = cost_conditioned.costs_of(three[0])
    described = domain_randomization.table_of(domain_randomization.costs_of(three[0]), CONFIG)
    assert np.all((cost >= 0) & (cost < 1)) and cost.dtype == np.float32
    np.testing.assert_allclose(cost_conditioned.costs_of(described), cost, rtol=1e-5)


def test_a_described_table_is_the_described_one():
    cost = domain_randomization.Costs(0.2, 0.1, 1.0, 0.01, 0.02, 0.001, 0.002)
    table = domain_randomization.table_of(cost, CONFIG)
    np.testing.assert_allclose(table.draft_seconds[0], [0.2, 0.3, 0.4])
    np.testing.assert_allclose(table.verify_seconds[0], [1.0, 1.01, 1.02, 1.06, 1.14])
    np.testing.assert_allclose(domain_randomization.costs_of(table), cost)


def test_drawn_tables_lie_in_the_range_of_the_known_ones(three):
    drawn = domain_randomization.draw_tables(three, CONFIG, 40, seed=1)
    known = np.maximum(
        [domain_randomization.costs_of(table) for table in three], domain_randomization.LEAST
    )
    found = np.asarray([domain_randomization.costs_of(table) for table in drawn])
    assert np.all(found >= known.min(axis=0) / domain_randomization.MARGIN * (1 - 1e-9))
    assert np.all(found <= known.max(axis=0) * domain_randomization.MARGIN * (1 + 1e-9))
    assert len({tuple(each) for each in found}) == 40
