"""Tuning the compared methods on a simulator: the same budget for all."""

import pytest

from experiments.studies import tuning
from ltd_jax.baselines import catalogue
from ltd_jax.baselines.catalogue import Needs
from ltd_jax.baselines.cost_aware import costs_of
from ltd_jax.config import CycleConfig
from ltd_jax.replay import profile, simulate
from ltd_jax.replay.profile import Overhead
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
TRACE = synthetic.trace(CONFIG, seed=4, text_tokens=(30, 21), agreement=0.9)
TABLE = synthetic.table(CONFIG)


@pytest.fixture(scope="module")
def simulator():
    return simulate.build(TRACE, TABLE, CONFIG)


def free(name, policy):
    """Deciding costs nothing."""
    return profile.FREE


@pytest.mark.parametrize("name", ["ddd", "svip", "gammatune+", "tiers", "cost-aware"])
def test_tuning_finds_the_best_of_the_grid(simulator, name):
    baseline, needs = catalogue.find(name), Needs(costs=costs_of(TABLE))
    first = tuning.at_published(simulator, baseline, needs, free)
    best = tuning.tune(simulator, first)
    unpriced, rates = profile.with_overhead(simulator, profile.FREE), []
    grid = tuning.list_settings(name, first.policy, CONFIG)
    for policy in grid[::6]:
        totals = simulate.run(unpriced, policy, charge_decisions=True)
        rates.append(float(simulate.throughput(totals)))
    assert best.tokens_per_second >= max(rates) * (1 - 1e-5)
    assert len(grid) <= tuning.BUDGET


def test_what_decides_for_itself_pays_for_it(simulator):
    ddd = catalogue.find("ddd")
    cheap = tuning.at_published(simulator, ddd, Needs(), free)
    dear = tuning.at_published(simulator, ddd, Needs(), lambda *_: Overhead(1e-3, 5e-3))
    assert dear.tokens_per_second < cheap.tokens_per_second


def test_what_has_no_grid_stays_as_published(simulator):
    first = tuning.at_published(simulator, catalogue.find("c2t-as-run"), Needs(), free)
    assert tuning.tune(simulator, first) is first
