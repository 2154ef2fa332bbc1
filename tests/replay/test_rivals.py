"""The compared methods in the replay: tuning, and ranks other than scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import catalogue, train
from ltd_jax.baselines.classifiers import Parts
from ltd_jax.baselines.cost_aware import Costs
from ltd_jax.config import CycleConfig
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay import profile, simulate
from ltd_jax.replay.profile import Overhead
from tests.oracle import replay as oracle
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
TRACE = synthetic.trace(CONFIG, seed=4, text_tokens=(30, 21), agreement=0.9)
TABLE = synthetic.table(CONFIG)


@pytest.fixture(scope="module")
def replay():
    return simulate.build(TRACE, TABLE, CONFIG)


def only_row_zero():
    """Verifies four nodes, of which only those along first slots are eligible."""
    keep = jnp.zeros((3, 2, 2), bool).at[:, 0].set(True)
    return policy_module.constant()._replace(
        rank=lambda params, state, view: jnp.where(keep, view.score, -jnp.inf)
    )


def accepted_by_hand(position, levels, size):
    """What is accepted where nodes in other slots than the first are left out."""
    score = TRACE.score[position].copy()
    score[:, 1] = -np.inf
    score[levels:] = -np.inf
    scores = TRACE.score.copy()
    scores[position] = score
    masked = dataclasses.replace(TRACE, score=scores)
    return oracle.accepted(masked, CONFIG, position, levels, CONFIG.sizes[size])


@pytest.mark.parametrize(("levels", "size"), [(1, 1), (3, 2), (3, 4)])
def test_accepted_by_rank_equals_walking_the_masked_tree(replay, levels, size):
    rule = only_row_zero()

    @jax.jit
    @jax.vmap
    def found(position):
        view = simulate.tree_view(replay, position, jnp.int32(levels))
        rank_DWW = rule.rank((), (), view)
        return simulate.accepted_by_rank(replay, position, rank_DWW, jnp.int32(CONFIG.sizes[size]))

    count = len(TRACE.remaining)
    expected = [accepted_by_hand(position, levels, size) for position in range(count)]
    assert found(jnp.arange(count)).tolist() == expected
    assert len(set(expected)) > 1


def test_ranking_by_scores_changes_nothing(replay):
    setting = policy_module.constant_params(3, 4, CONFIG)
    same = policy_module.constant()._replace(rank=lambda params, state, view: view.score)
    one = simulate.run(replay, CONFIG, policy_module.constant(), setting, learned=False)
    two = simulate.run(replay, CONFIG, same, setting, learned=False)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def free(name, rule, params):
    """Deciding costs nothing."""
    return profile.FREE


def costs():
    cycle_LDV = TABLE.cycle_seconds
    draft = cycle_LDV[:, :, 0] - cycle_LDV[:, :1, 0]
    return Costs(TABLE.contexts, draft, cycle_LDV[:, 0], float(TABLE.plain_seconds.mean()))


@pytest.mark.parametrize("name", ["ddd", "svip", "gammatune+", "tiers", "cost-aware"])
def test_tuning_finds_the_best_of_the_grid(replay, name):
    family, parts = catalogue.find(name), Parts(costs=costs())
    first = train.at_published(replay, CONFIG, family, parts, free)
    best = train.tune(replay, CONFIG, first, parts)
    unpriced, rates = profile.with_overhead(replay, profile.FREE), []
    for given in family.grid(CONFIG)[::6]:
        rule, params = family.build(CONFIG, first.setting | given, parts)
        totals = simulate.run(unpriced, CONFIG, rule, params, learned=True)
        rates.append(float(simulate.throughput(totals)))
    assert best.tokens_per_second >= max(rates) * (1 - 1e-5)
    assert len(family.grid(CONFIG)) <= catalogue.BUDGET


def test_what_decides_for_itself_pays_for_it(replay):
    family = catalogue.find("ddd")
    cheap = train.at_published(replay, CONFIG, family, Parts(), free)
    dear = train.at_published(replay, CONFIG, family, Parts(), lambda *_: Overhead(1e-3, 5e-3))
    assert dear.tokens_per_second < cheap.tokens_per_second
