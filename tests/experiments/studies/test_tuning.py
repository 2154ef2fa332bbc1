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


def rate(simulator, policy, overhead=profile.FREE):
    """Tokens per second, the decisions' own time counted."""
    totals = simulate.run(profile.with_overhead(simulator, overhead), policy)
    return float(simulate.throughput(totals))


@pytest.mark.parametrize("name", ["ddd", "svip", "gammatune+", "tiers", "cost-aware"])
def test_tuning_finds_the_best_of_the_grid(simulator, name):
    published = catalogue.find(name).published(CONFIG, Needs(costs=costs_of(TABLE)))
    best = tuning.tune(simulator, name, published, profile.FREE)
    grid = tuning.list_settings(name, published, CONFIG)
    most = max(rate(simulator, policy) for policy in grid[::6])
    assert rate(simulator, best) >= most * (1 - 1e-5)
    assert len(grid) <= 25


def test_what_decides_for_itself_pays_for_it(simulator):
    ddd = catalogue.find("ddd").published(CONFIG, Needs())
    dear = Overhead(1e-3, 5e-3)
    assert rate(simulator, ddd, dear) < rate(simulator, ddd)
    for_dear, for_free = (tuning.tune(simulator, "ddd", ddd, cost) for cost in (dear, profile.FREE))
    assert rate(simulator, for_dear, dear) >= rate(simulator, for_free, dear)


def test_what_has_no_grid_stays_as_published(simulator):
    published = catalogue.find("c2t-as-run").published(CONFIG, Needs())
    assert tuning.tune(simulator, "c2t-as-run", published, profile.FREE) is published
