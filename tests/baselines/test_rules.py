"""The rules against their published ones, on sequences worked out by hand (golden decisions)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import catalogue, rules
from ltd_jax.baselines.classifiers import Parts
from ltd_jax.config import CycleConfig
from ltd_jax.policies.policy import Outcome
from tests.policies import views

CYCLE = CycleConfig(beam_width=2, max_levels=12, sizes=(0, 1, 4, 8), context=64)


def made(name, cycle=CYCLE, **numbers):
    """A method and its params, with some numbers replaced."""
    family = catalogue.find(name)
    given = {key: value if isinstance(value, tuple) else (value,) for key, value in numbers.items()}
    rule, params = family.build(cycle, catalogue.setting_of(family, cycle, given), Parts())
    return views.compiled(rule), params


def beam(mass, width=10):
    """A level of `width` rows whose best nodes all have the same probability."""
    return np.full((width, width), np.log(mass))


@pytest.mark.parametrize(
    ("levels", "largest", "expected"),
    [(12, 240, (8, 60)), (8, 80, (8, 60)), (8, 40, (8, 40)), (6, 24, (5, 16)), (3, 8, (3, 8))],
)
def test_eagle3s_constants_as_far_as_a_cycle_has_them(levels, largest, expected):
    sizes = tuple(size for size in (0, 4, 8, 16, 24, 40, 60, 80, 240) if size <= largest)
    cycle = CycleConfig(beam_width=10, max_levels=levels, sizes=sizes, context=512)
    assert catalogue.eagle3_default(cycle) == expected


@pytest.mark.parametrize(("mass", "goes_on"), [(0.08, True), (0.07, False)])
def test_ddd_stops_where_the_beam_is_unlikely(mass, goes_on):
    # log(10 * 0.08) = -0.2231, log(10 * 0.07) = -0.3567, threshold -0.3
    rule, params = made("ddd")
    assert float(rules.frontier_mass(jnp.asarray(beam(mass)))) == pytest.approx(
        np.log(10 * mass), abs=1e-5
    )
    for levels in (5, 7, 9):
        assert bool(rule.keep_drafting(params, (), views.level(beam(mass), levels))) == goes_on
    for levels in (1, 4, 6, 8, 10, 11):
        assert bool(rule.keep_drafting(params, (), views.level(beam(mass), levels)))


@pytest.mark.parametrize(("threshold", "stops_at"), [(-np.inf, 12), (np.inf, 5)])
def test_ddd_at_its_limits(threshold, stops_at):
    rule, params = made("ddd", threshold=threshold)
    kept = [
        bool(rule.keep_drafting(params, (), views.level(beam(1e-3), levels)))
        for levels in range(1, 13)
    ]
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
    rule, params = made("svip")
    score_WW = np.asarray([[-2.0, -3.0], [-1.0, -4.0]])  # the best node is in row 1
    view = views.level(score_WW, 3, entropy_W=(9.0, entropy))
    assert bool(rule.keep_drafting(params, (), view)) == goes_on


def played(rule, params, accepted, cycle, drafted=None):
    """Levels that a rule drafts in every cycle, when so many tokens are accepted."""
    state, found = rule.init(), []
    for count in accepted:
        score_WW = jnp.zeros(
            (cycle.beam_width, cycle.beam_width)
        )  # surely accepted, says the draft
        levels = 0
        keep = True
        while keep and levels < cycle.max_levels:
            levels += 1
            view = views.level(score_WW, levels)
            state = rule.notice(params, state, view)
            keep = bool(rule.keep_drafting(params, state, view))
        found.append((levels, state))
        outcome = (levels if drafted is None else drafted, 0, count)
        state = rule.update(state, Outcome(*(jnp.int32(value) for value in outcome)))
    return found


def test_gammatune_follows_the_paper():
    rule, params = made("gammatune", start=3, share=0.3, step=2, least=1, most=10)
    found = played(rule, params, (3, 2, 3, 0), CYCLE)
    assert [levels for levels, _ in found] == [3, 5, 3, 5]
    np.testing.assert_allclose([state.mean for _, state in found], (3, 3, 2.7, 2.7), rtol=1e-6)


def test_gammatune_with_the_settings_of_ltd():
    rule, params = made("gammatune", step=2)
    assert [float(getattr(params, key)) for key in ("start", "least", "most")] == [8, 4, 12]
    found = played(rule, params, (3, 2, 5, 5, 6, 0), CYCLE)
    assert [levels for levels, _ in found] == [8, 7, 6, 6, 6, 8]
    means = (8, 7, 6, 5.8, 5.64, 5.64)
    np.testing.assert_allclose([state.mean for _, state in found], means, rtol=1e-6)


def test_gammatune_never_grows_beyond_its_most():
    rule, params = made("gammatune", start=3, step=2, least=1, most=4)
    assert [levels for levels, _ in played(rule, params, (3, 4, 4), CYCLE)] == [3, 4, 4]


def test_gammatune_always_drafts_a_level():
    rule, params = made("gammatune", start=3, share=1.0, step=2, least=0, most=4)
    assert [levels for levels, _ in played(rule, params, (0, 0, 0), CYCLE)] == [3, 1, 1]


def test_gammatune_plus_stops_where_the_best_node_itself_is_unlikely():
    rule, params = made("gammatune+", start=6)
    above = views.level(np.log([[0.9, 0.05], [1e-9, 1e-9]]), 1)
    state = rule.notice(params, rule.init(), above)
    assert bool(rule.keep_drafting(params, state, above))
    for own, goes_on in ((0.41, True), (0.39, False)):
        below = views.level(np.log([[0.9 * own, 1e-3], [1e-3, 1e-4]]), 2, parent_W=(0, 1))
        after = rule.notice(params, state, below)
        assert float(after.confidence) == pytest.approx(own, rel=1e-5)
        assert bool(rule.keep_drafting(params, after, below)) == goes_on


def test_tiers_go_up_as_sglang_does():
    tiers = {"levels": (1, 3, 7), "sizes": (1, 4, 8)}
    rule, params = made("tiers", **tiers, start=1, every=1, warm_up=0)
    found = played(rule, params, (3, 3, 3, 3, 0), CYCLE)
    assert [levels for levels, _ in found] == [3, 3, 3, 3, 7]
    means = (2, 2.2, 2.36, 2.488, 2.5904)
    np.testing.assert_allclose([state.mean for _, state in found], means, rtol=1e-6)
    sizes = [CYCLE.sizes[int(rule.choose_size(params, state, None))] for _, state in found]
    assert sizes == [4, 4, 4, 4, 8]


def test_tiers_go_down_as_sglang_does():
    tiers = {"levels": (1, 3, 7), "sizes": (1, 4, 8)}
    rule, params = made("tiers", **tiers, start=1, every=1, warm_up=0)
    found = played(rule, params, (0,) * 10 + (1,), CYCLE)
    assert [levels for levels, _ in found] == [3] * 10 + [1]
    assert float(found[-1][1].mean) == pytest.approx(2 * 0.8**10, rel=1e-5)


def test_tiers_wait_for_the_warm_up_and_between_changes():
    tiers = {"levels": (1, 2, 3), "sizes": (1, 4, 8)}
    rule, params = made("tiers", **tiers, start=0, every=2, warm_up=3, up=-9.0, down=-9.0)
    found = [levels for levels, _ in played(rule, params, (0,) * 9, CYCLE)]
    assert found == [1, 1, 1, 1, 1, 2, 2, 3, 3]


def test_settings_share_one_compiled_rule():
    for name, key in (("ddd", "threshold"), ("svip", "threshold"), ("gammatune", "share")):
        (rule, one), (other, two) = made(name), made(name, **{key: 0.11})
        assert rule is other
        assert jax.tree.structure(one) == jax.tree.structure(two)
        assert [leaf.shape for leaf in jax.tree.leaves(one)] == [
            leaf.shape for leaf in jax.tree.leaves(two)
        ]
