"""The classifiers as rules, with networks whose verdicts are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import classifiers
from ltd_jax.baselines.classifiers import DiscoParams, NodeParams, SurvivalParams
from ltd_jax.config import CycleConfig
from tests.policies import views

W, D = 3, 4
CYCLE = CycleConfig(beam_width=W, max_levels=D, sizes=(0, 1, 2, 4, 9), context=64)
CHAIN = CycleConfig(beam_width=1, max_levels=7, sizes=(0, 1), context=64)


def logit(p):
    return float(np.log(p / (1 - p)))


def only_feature(width, features, chosen, slope=1.0):
    """A perceptron whose logit is slope * feature (which must not be negative)."""
    return {
        "params": {
            "Dense_0": {
                "kernel": jnp.zeros((features, width)).at[chosen, 0].set(1.0),
                "bias": jnp.zeros(width),
            },
            "Dense_1": {
                "kernel": jnp.zeros((width, 1)).at[0, 0].set(slope),
                "bias": jnp.zeros(1),
            },
        }
    }


def reads_hidden(width, features):
    """A residual head whose logit is the first feature."""
    zeros = {"kernel": jnp.zeros((features, width)), "bias": jnp.zeros(width)}
    straight = zeros | {"kernel": zeros["kernel"].at[0, 0].set(1.0)}
    last = {"kernel": jnp.zeros((width, 1)).at[0, 0].set(1.0), "bias": jnp.zeros(1)}
    return {"params": {"Dense_0": zeros, "Dense_1": straight, "Dense_2": last}}


def test_disco_sees_the_best_probabilities_the_entropy_and_the_level():
    score_WW = np.log([[0.5, 0.2, 0.1], [0.4, 0.3, 0.05], [0.01, 0.01, 0.01]])
    found = classifiers.disco_features(views.level(score_WW, 3, entropy_W=(0.7, 0.8, 0.9)))
    np.testing.assert_allclose(found, (0.5, 0.4, 0.3, 0.7, 0.3), rtol=1e-5)


@pytest.mark.parametrize(("threshold", "goes_on"), [(0.0, True), (0.7, True), (0.75, False)])
def test_disco_stops_below_its_threshold(threshold, goes_on):
    # the logit is twice the best probability: sigmoid(2 * 0.5) = 0.731
    params = DiscoParams(
        only_feature(2, W + 2, 0, 2.0), jnp.float32(threshold), jnp.int32(D), jnp.int32(2)
    )
    rule = views.compiled(classifiers.disco(2))
    view = views.level(np.log(np.full((W, W), 0.5)), 2)
    assert bool(rule.keep_drafting(params, (), view)) == goes_on
    assert not bool(rule.keep_drafting(params, (), view.replace(levels=jnp.int32(D))))


def survived(chances, threshold, aggregate="sum", least=2):
    """Levels that SpecDec++ drafts as a chain whose rows are accepted with these chances."""
    rule = views.compiled(classifiers.survival(CHAIN, 2, aggregate))
    params = SurvivalParams(
        reads_hidden(2, 1),
        jnp.float32(threshold),
        jnp.int32(least),
        jnp.int32(CHAIN.max_levels),
        jnp.int32(1),
    )
    state, alive = rule.init(), []
    for levels, chance in enumerate(chances, 1):
        hidden_WE = [[logit(chance)]] if chance < 1 else [[99.0]]
        view = views.level(np.zeros((1, 1)), levels, hidden_WE=hidden_WE, parent_W=(0,))
        state = rule.notice(params, state, view)
        alive.append(float(state.sum()))
        if not bool(rule.keep_drafting(params, state, view)):
            break
    return levels, alive


def test_specdec_follows_the_paper_on_a_chain():
    chances = (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.9)
    levels, alive = survived(chances, 0.7)
    assert levels == 6
    np.testing.assert_allclose(alive, np.cumprod(chances)[:6], rtol=1e-5)
    assert alive[-1] == pytest.approx(0.1512, abs=1e-4)
    levels, alive = survived(chances, 0.3)
    assert levels == 4 and alive[-1] == pytest.approx(0.504, abs=1e-4)


def test_specdec_keeps_its_least_levels_and_never_stops_a_sure_draft():
    assert survived((1, 0.01, 0.9, 0.9), 0.3, least=3)[0] == 3
    assert survived((1,) * 7, 0.3)[0] == 7


def test_specdec_any_stops_where_no_row_is_likely():
    assert survived((1, 0.9, 0.6, 0.4, 0.9), 0.5, "any")[0] == 4


def test_specdec_multiplies_along_the_path_and_adds_the_rows():
    rule = views.compiled(classifiers.survival(CYCLE, 2, "sum"))
    params = SurvivalParams(
        reads_hidden(2, 1), jnp.float32(0.5), jnp.int32(1), jnp.int32(D), jnp.int32(1)
    )
    score_WW = np.zeros((W, W))
    chance_LW = np.asarray([(0.5, 0.3, 0.1), (0.9, 0.8, 0.5)])
    parents = ((0, 1, 2), (1 * W + 2, 0, 2 * W))  # rows of level 3 hang under rows 1, 0, 2
    root = views.level(score_WW, 1, hidden_WE=np.zeros((W, 1)))
    state = rule.notice(params, rule.init(), root)
    for levels, (chance_W, parent_W) in enumerate(zip(chance_LW, parents, strict=True), 2):
        hidden_WE = [[logit(chance)] for chance in chance_W]
        view = views.level(score_WW, levels, hidden_WE=hidden_WE, parent_W=parent_W)
        state = rule.notice(params, state, view)
    np.testing.assert_allclose(state, (0.3 * 0.9, 0.5 * 0.8, 0.1 * 0.5), rtol=1e-5)


def c2t(threshold, scores, parents, nodes=99, slope=1.0):
    """Sizes, levels and what is ranked after drafting as far as C2T wants."""
    rule = views.compiled(classifiers.node_classifier(CYCLE, 2))
    network = only_feature(2, 3, 0, slope)
    params = NodeParams(network, jnp.float32(threshold), jnp.int32(nodes), jnp.int32(D))
    state, levels, keep = rule.init(), 0, True
    while keep and levels < D:
        view = views.level(scores[levels], levels + 1, parent_W=parents[levels])
        state = rule.notice(params, state, view)
        keep = bool(rule.keep_drafting(params, state, view))
        levels += 1
    drafted = np.arange(D)[:, None, None] < levels
    tree = views.tree(np.where(drafted, scores, -np.inf), levels, parent_DW=parents)
    rank = np.asarray(rule.rank(params, state, tree))
    return levels, CYCLE.sizes[int(rule.choose_size(params, state, tree))], rank


@pytest.fixture
def grown():
    """Scores and parents of four levels."""
    random = np.random.default_rng(0)
    scores, parents = np.full((D, W, W), -np.inf), np.zeros((D, W), np.int32)
    frontier = np.zeros(1)
    for level in range(D):
        step = -np.sort(random.exponential(0.5, (len(frontier), W)))
        scores[level, : len(frontier)] = frontier[:, None] + step
        best = np.argsort(-scores[level].reshape(-1), kind="stable")[:W]
        frontier = scores[level].reshape(-1)[best]
        if level + 1 < D:
            parents[level + 1] = best
    return scores, parents


def test_c2t_that_drops_nothing_verifies_the_whole_tree(grown):
    levels, size, rank = c2t(0.0, *grown)
    assert (levels, size) == (D, CYCLE.sizes[-1])
    np.testing.assert_array_equal(rank, np.asarray(grown[0], np.float32))


def test_c2t_that_drops_everything_keeps_the_best_child_of_the_root(grown):
    levels, size, rank = c2t(1.1, *grown)
    assert size == 1 and levels == 2  # level 1 keeps its best, level 2 nothing
    assert np.argwhere(rank > -np.inf).tolist() == [[0, 0, 0]]


def test_c2t_leaves_out_what_hangs_under_a_node_that_was_left_out(grown):
    scores, parents = grown
    rank = c2t(0.63, *grown)[2]
    for level, row, child in np.argwhere(rank > -np.inf):
        assert rank[level, row, child] == np.float32(scores[level, row, child])
        if level:
            slot, index = divmod(int(parents[level, row]), W)
            assert rank[level - 1, slot, index] > -np.inf


def test_c2t_trees_are_nested_in_the_threshold(grown):
    kept = [c2t(threshold, *grown)[2] > -np.inf for threshold in (0.5, 0.6, 0.65, 0.7)]
    counts = [int(each.sum()) for each in kept]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) > 2
    for wide, narrow in zip(kept, kept[1:], strict=False):
        assert not np.any(narrow & ~wide)


def test_c2t_keeps_the_surest_nodes_of_a_level(grown):
    rank = c2t(0.0, *grown, nodes=2)[2]
    for level in range(D):
        kept = np.sort(rank[level][rank[level] > -np.inf])
        assert len(kept) <= 2
    best = -np.sort(-grown[0][0, 0])[:2]
    np.testing.assert_allclose(np.sort(rank[0][rank[0] > -np.inf])[::-1], best, rtol=1e-6)


def test_networks_are_what_the_docstrings_say():
    key, feature = jax.random.key(0), jax.random.normal(jax.random.key(1), (5, 4))
    weights = classifiers.Residual(6).init(key, feature)["params"]
    dense = lambda layer, x: x @ layer["kernel"] + layer["bias"][None]
    gate, straight = dense(weights["Dense_0"], feature), dense(weights["Dense_1"], feature)
    expected = dense(weights["Dense_2"], gate / (1 + jnp.exp(-gate)) + straight)[:, 0]
    found = classifiers.Residual(6).apply({"params": weights}, feature)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
