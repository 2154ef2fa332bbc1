"""The rules against their published ones, on sequences worked out by hand (golden decisions)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import tuning
from ltd_jax.baselines import catalogue, rules
from ltd_jax.baselines.catalogue import Needs
from ltd_jax.baselines.rules import DDD, SVIP, GammaTune, Tiers
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import Outcome
from ltd_jax.presets import PAPER_CYCLE
from tests.policies import views

CYCLE = CycleConfig(beam_width=2, max_levels=12, sizes=(0, 1, 4, 8), context=64)
TREE = views.tree(np.zeros((12, 2, 2)), 12)


def asked(name, cycle=CYCLE, **settings):
    """A method at its published settings, some of them replaced."""
    policy = catalogue.find(name).published(cycle, Needs())
    return views.Asked(policy.replace(**settings), cycle)


def beam(mass, width=2):
    """A level of `width` rows whose best nodes all have the same probability."""
    return np.full((width, width), np.log(mass))


@pytest.mark.parametrize("kind", [DDD, SVIP, GammaTune, Tiers])
def test_defaults_are_the_published_settings_for_the_papers_cycle(kind):
    assert kind() == kind.published(PAPER_CYCLE)


@pytest.mark.parametrize(("mass", "goes_on"), [(0.08, True), (0.07, False)])
def test_ddd_stops_where_the_beam_is_unlikely(mass, goes_on):
    # log(10 * 0.08) = -0.2231, log(10 * 0.07) = -0.3567, threshold -0.3
    ddd = asked("ddd")
    wide = beam(mass, width=10)
    mass_found = jax.nn.logsumexp(rules.frontier(jnp.asarray(wide)))
    assert float(mass_found) == pytest.approx(np.log(10 * mass), abs=1e-5)
    for levels in (5, 7, 9):
        assert ddd.keep_drafting((), views.level(wide, levels)) == goes_on
    for levels in (1, 4, 6, 8, 10, 11):
        assert ddd.keep_drafting((), views.level(wide, levels))


@pytest.mark.parametrize(("threshold", "stops_at"), [(-np.inf, 12), (np.inf, 5)])
def test_ddd_at_its_limits(threshold, stops_at):
    ddd = asked("ddd", threshold=threshold)
    kept = [ddd.keep_drafting((), views.level(beam(1e-3), levels)) for levels in range(1, 13)]
    assert kept.index(False) + 1 == stops_at


@pytest.mark.parametrize(
    ("distribution", "entropy", "goes_on"),
    [
        ((0.9, 0.05, 0.05), 0.3944, True),  # sqrt(0.15 * 0.3944) = 0.2432
        ((0.85, 0.1, 0.05), 0.5182, True),  # 0.2788
        ((0.8, 0.1, 0.1), 0.6390, False),  # 0.3096
        ((1.0,), 0.0, True),
        ((0.125,) * 8, 2.0794, False),
    ],
)
def test_svip_stops_where_the_draft_is_unsure(distribution, entropy, goes_on):
    p = np.asarray(distribution)
    assert -(p * np.log(p)).sum() == pytest.approx(entropy, abs=1e-4)
    score_WW = np.asarray([[-2.0, -3.0], [-1.0, -4.0]])  # the best node is in row 1
    view = views.level(score_WW, 3, entropy_W=(9.0, entropy))
    assert asked("svip").keep_drafting((), view) == goes_on


def played(policy, accepted, drafted=None):
    """Levels that a method drafts in every cycle, when so many tokens are accepted.

    Returns (levels, history after drafting) of each.
    """
    cycle, history, cycles = policy.config, policy.init_history(), []
    for count in accepted:
        score_WW = np.zeros((cycle.beam_width,) * 2)  # surely accepted, says the draft
        levels, keep = 0, True
        while keep and levels < cycle.max_levels:
            levels += 1
            view = views.level(score_WW, levels)
            history = policy.observe_level(history, view)
            keep = policy.keep_drafting(history, view)
        cycles.append((levels, history))
        outcome = (levels if drafted is None else drafted, 0, count)
        outcome = Outcome(*(jnp.int32(value) for value in outcome))
        history = policy.update_history(history, outcome)
    return cycles


def test_gammatune_follows_the_paper():
    policy = asked("gammatune", start=3, share=0.3, step=2.0, least_levels=1, most_levels=10)
    cycles = played(policy, (3, 2, 3, 0))
    assert [levels for levels, _ in cycles] == [3, 5, 3, 5]
    np.testing.assert_allclose([history.mean for _, history in cycles], (3, 3, 2.7, 2.7), rtol=1e-6)


def test_gammatune_with_the_settings_of_ltd():
    published = catalogue.find("gammatune").published(CYCLE, Needs())
    assert (published.start, published.least_levels, published.most_levels) == (8, 4, 12)
    cycles = played(asked("gammatune", step=2.0), (3, 2, 5, 5, 6, 0))
    assert [levels for levels, _ in cycles] == [8, 7, 6, 6, 6, 8]
    means = (8, 7, 6, 5.8, 5.64, 5.64)
    np.testing.assert_allclose([history.mean for _, history in cycles], means, rtol=1e-6)


def test_gammatune_never_grows_beyond_its_most():
    policy = asked("gammatune", start=3, step=2.0, least_levels=1, most_levels=4)
    assert [levels for levels, _ in played(policy, (3, 4, 4))] == [3, 4, 4]


def test_gammatune_always_drafts_a_level():
    policy = asked("gammatune", start=3, share=1.0, step=2.0, least_levels=0, most_levels=4)
    assert [levels for levels, _ in played(policy, (0, 0, 0))] == [3, 1, 1]


def test_gammatune_plus_stops_where_the_best_node_itself_is_unlikely():
    policy = asked("gammatune+", start=6)
    above = views.level(np.log([[0.9, 0.05], [1e-9, 1e-9]]), 1)
    history = policy.observe_level(policy.init_history(), above)
    assert policy.keep_drafting(history, above)
    for own, goes_on in ((0.41, True), (0.39, False)):
        below = views.level(np.log([[0.9 * own, 1e-3], [1e-3, 1e-4]]), 2, parent_W=(0, 1))
        after = policy.observe_level(history, below)
        assert float(after.confidence) == pytest.approx(own, rel=1e-5)
        assert policy.keep_drafting(after, below) == goes_on


def test_tiers_go_up_as_sglang_does():
    policy = asked("tiers", levels=(1, 3, 7), sizes=(1, 4, 8), start=1, every=1, warm_up=0)
    cycles = played(policy, (3, 3, 3, 3, 0))
    assert [levels for levels, _ in cycles] == [3, 3, 3, 3, 7]
    means = (2, 2.2, 2.36, 2.488, 2.5904)
    np.testing.assert_allclose([history.mean for _, history in cycles], means, rtol=1e-6)
    sizes = [policy.choose_size(history, TREE) for _, history in cycles]
    assert sizes == [4, 4, 4, 4, 8]


def test_tiers_go_down_as_sglang_does():
    policy = asked("tiers", levels=(1, 3, 7), sizes=(1, 4, 8), start=1, every=1, warm_up=0)
    cycles = played(policy, (0,) * 10 + (1,))
    assert [levels for levels, _ in cycles] == [3] * 10 + [1]
    assert float(cycles[-1][1].mean) == pytest.approx(2 * 0.8**10, rel=1e-5)


def test_tiers_wait_for_the_warm_up_and_between_changes():
    tiers = {"levels": (1, 2, 3), "sizes": (1, 4, 8)}
    policy = asked("tiers", **tiers, start=0, every=2, warm_up=3, up=-9.0, down=-9.0)
    cycles = [levels for levels, _ in played(policy, (0,) * 9)]
    assert cycles == [1, 1, 1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("name", ["ddd", "svip", "gammatune", "gammatune+", "tiers"])
def test_settings_share_one_compiled_method(name):
    baseline = catalogue.find(name)
    published = baseline.published(CYCLE, Needs())
    grid = tuning.list_settings(name, published, CYCLE)
    one, *others = [policy.traced() for policy in (published, *grid)]
    for two in others:
        assert jax.tree.structure(one) == jax.tree.structure(two)
        shapes = [
            [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(each)] for each in (one, two)
        ]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (DDD(size=4, checks=(5, 13)), "checks is 13 but must be a whole number .* at most 12"),
        (DDD(size=4, most_levels=13), "most_levels is 13 but must be a whole number of at least 1"),
        (SVIP(size=3), r"size 3 is not one of the compiled sizes \(0, 1, 4, 8\)"),
        (SVIP(size=4, scale=-1.0), "scale is -1 but must be a number of at least 0"),
        (GammaTune(size=4, start=0), "start is 0 but must be a whole number of at least 1"),
        (GammaTune(size=4, share=1.5), "share is 1.5 but must be a number .* at most 1"),
        (Tiers(sizes=(1, 4, 8), start=3), "start is 3 but the tiers are numbered 0 to 2"),
        (Tiers(sizes=(1, 4)), "levels must rise and have one size each"),
        (Tiers(sizes=(1, 4, 7)), "size 7 is not one of the compiled sizes"),
    ],
)
def test_impossible_settings_are_refused(policy, words):
    with pytest.raises(UserError, match=words):
        policy.check(CYCLE)
