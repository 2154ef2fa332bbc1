"""The classifiers as policies, with networks whose verdicts are known; and their files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import classifiers
from ltd_jax.baselines.classifiers import C2T, Disco, SpecDecPP
from ltd_jax.config import CycleConfig
from ltd_jax.files import Identity, UserError, hashable_fields
from ltd_jax.presets import PAPER_CYCLE
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
    found = classifiers.disco_features(score_WW, jnp.asarray((0.7, 0.8, 0.9)), jnp.int32(3))
    np.testing.assert_allclose(found, (0.5, 0.4, 0.3, 0.7, 0.3), rtol=1e-5)


@pytest.mark.parametrize(("threshold", "goes_on"), [(0.0, True), (0.7, True), (0.75, False)])
def test_disco_stops_below_its_threshold(threshold, goes_on):
    # the logit is twice the best probability: sigmoid(2 * 0.5) = 0.731
    network = only_feature(2, W + 2, 0, 2.0)
    disco = views.Asked(Disco(network=network, threshold=threshold, most_levels=D, size=2), CYCLE)
    view = views.level(np.log(np.full((W, W), 0.5)), 2)
    assert disco.keep_drafting((), view) == goes_on
    assert not disco.keep_drafting((), view.replace(levels=jnp.int32(D)))
    assert disco.choose_size((), views.tree(np.zeros((D, W, W)), D)) == 2


def survived(chances, threshold, any_row=False, least=2):
    """Levels that SpecDec++ drafts as a chain whose rows are accepted with these chances."""
    policy = SpecDecPP(
        network=reads_hidden(2, 1),
        threshold=threshold,
        least_levels=least,
        most_levels=CHAIN.max_levels,
        any_row=any_row,
        size=1,
    )
    specdec = views.Asked(policy, CHAIN)
    history, alive = specdec.init_history(), []
    for levels, chance in enumerate(chances, 1):
        hidden_WE = [[logit(chance)]] if chance < 1 else [[99.0]]
        view = views.level(np.zeros((1, 1)), levels, hidden_WE=hidden_WE, parent_W=(0,))
        history = specdec.observe_level(history, view)
        alive.append(float(history.sum()))
        if not specdec.keep_drafting(history, view):
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
    assert survived((1, 0.9, 0.6, 0.4, 0.9), 0.5, any_row=True)[0] == 4


def test_specdec_multiplies_along_the_path_and_adds_the_rows():
    policy = SpecDecPP(
        network=reads_hidden(2, 1), threshold=0.5, least_levels=1, most_levels=D, size=1
    )
    specdec = views.Asked(policy, CYCLE)
    score_WW = np.zeros((W, W))
    chance_LW = np.asarray([(0.5, 0.3, 0.1), (0.9, 0.8, 0.5)])
    parents = ((0, 1, 2), (1 * W + 2, 0, 2 * W))  # rows of level 3 hang under rows 1, 0, 2
    root = views.level(score_WW, 1, hidden_WE=np.zeros((W, 1)))
    history = specdec.observe_level(specdec.init_history(), root)
    for levels, (chance_W, parent_W) in enumerate(zip(chance_LW, parents, strict=True), 2):
        hidden_WE = [[logit(chance)] for chance in chance_W]
        view = views.level(score_WW, levels, hidden_WE=hidden_WE, parent_W=parent_W)
        history = specdec.observe_level(history, view)
    np.testing.assert_allclose(history, (0.3 * 0.9, 0.5 * 0.8, 0.1 * 0.5), rtol=1e-5)


def c2t(threshold, scores, parents, nodes=99, slope=1.0):
    """Levels, size and priorities after drafting as far as C2T wants."""
    network = only_feature(2, 3, 0, slope)
    policy = views.Asked(
        C2T(network=network, threshold=threshold, nodes=nodes, most_levels=D), CYCLE
    )
    history, levels, keep = policy.init_history(), 0, True
    while keep and levels < D:
        view = views.level(scores[levels], levels + 1, parent_W=parents[levels])
        history = policy.observe_level(history, view)
        keep = policy.keep_drafting(history, view)
        levels += 1
    drafted = np.arange(D)[:, None, None] < levels
    tree = views.tree(np.where(drafted, scores, -np.inf), levels, parent_DW=parents)
    return levels, policy.choose_size(history, tree), policy.priority(history, tree)


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
    levels, size, priority = c2t(0.0, *grown)
    assert (levels, size) == (D, CYCLE.sizes[-1])
    np.testing.assert_array_equal(priority, np.asarray(grown[0], np.float32))


def test_c2t_that_drops_everything_keeps_the_best_child_of_the_root(grown):
    levels, size, priority = c2t(1.1, *grown)
    assert size == 1 and levels == 2  # level 1 keeps its best, level 2 nothing
    assert np.argwhere(priority > -np.inf).tolist() == [[0, 0, 0]]


def test_c2t_leaves_out_what_hangs_under_a_node_that_was_left_out(grown):
    scores, parents = grown
    priority = c2t(0.63, *grown)[2]
    for level, row, child in np.argwhere(priority > -np.inf):
        assert priority[level, row, child] == np.float32(scores[level, row, child])
        if level:
            slot, index = divmod(int(parents[level, row]), W)
            assert priority[level - 1, slot, index] > -np.inf


def test_c2t_trees_are_nested_in_the_threshold(grown):
    kept = [c2t(threshold, *grown)[2] > -np.inf for threshold in (0.5, 0.6, 0.65, 0.7)]
    counts = [int(each.sum()) for each in kept]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) > 2
    for wide, narrow in zip(kept, kept[1:], strict=False):
        assert not np.any(narrow & ~wide)


def test_c2t_keeps_the_surest_nodes_of_a_level(grown):
    priority = c2t(0.0, *grown, nodes=2)[2]
    for level in range(D):
        kept = np.sort(priority[level][priority[level] > -np.inf])
        assert len(kept) <= 2
    best = -np.sort(-grown[0][0, 0])[:2]
    np.testing.assert_allclose(np.sort(priority[0][priority[0] > -np.inf])[::-1], best, rtol=1e-6)


def test_networks_are_what_the_docstrings_say():
    key, feature = jax.random.key(0), jax.random.normal(jax.random.key(1), (5, 4))
    weights = classifiers.Residual(6).init(key, feature)["params"]
    dense = lambda layer, x: x @ layer["kernel"] + layer["bias"][None]
    gate, straight = dense(weights["Dense_0"], feature), dense(weights["Dense_1"], feature)
    expected = dense(weights["Dense_2"], gate / (1 + jnp.exp(-gate)) + straight)[:, 0]
    found = classifiers.Residual(6).apply({"params": weights}, feature)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Disco, SpecDecPP, C2T])
def test_defaults_are_the_published_settings_for_the_papers_cycle(kind):
    assert kind(network={}) == kind.published(PAPER_CYCLE, network={})


def test_a_classifier_of_another_cycle_is_refused():
    wide = Disco(network=only_feature(2, W + 3, 0), size=2, most_levels=D)
    with pytest.raises(UserError, match="disco reads 6 numbers, but this cycle gives 5"):
        wide.check(CYCLE)


def test_specdec_needs_the_drafts_outputs():
    policy = SpecDecPP(network=reads_hidden(2, 1), size=1)
    view = views.level(np.zeros((1, 1)), 2).replace(hidden=None)
    with pytest.raises(UserError, match="no outputs of the draft, which SpecDec"):
        policy.observe_level(policy.init_history(CHAIN), view, CHAIN)


SAVED_CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 4), context=64)
HIDDEN = 6


@pytest.fixture(scope="module")
def trained():
    provenance = {"fingerprint": "f", "quality": {"disco": {"auc": 0.7}}}
    drawn = classifiers.init(jax.random.key(0), SAVED_CYCLE, HIDDEN, 4, provenance)
    return dataclasses.replace(drawn, power=np.asarray([1.0, 1.5, 2.0], np.float32))


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "classifiers.safetensors"
    classifiers.save(trained, path)
    return path


def test_what_was_saved_comes_back(path, trained):
    loaded = classifiers.load(path)
    jax.tree.map(np.testing.assert_array_equal, loaded.networks, trained.networks)
    assert not any(leaf.committed for leaf in jax.tree.leaves(loaded.networks))
    np.testing.assert_array_equal(loaded.power, trained.power)
    assert loaded.provenance["quality"]["disco"]["auc"] == 0.7
    assert (loaded.cycle, loaded.path) == (SAVED_CYCLE, path)


def test_another_pair_or_tree_is_refused(path):
    loaded = classifiers.load(path)
    here = Identity(pair="f", cycle=hashable_fields(dataclasses.asdict(SAVED_CYCLE)))
    other = lambda **change: dataclasses.replace(
        here, cycle=hashable_fields(dataclasses.asdict(dataclasses.replace(SAVED_CYCLE, **change)))
    )
    classifiers.check(loaded, here)
    classifiers.check(loaded, other(sizes=(0, 2)))
    with pytest.raises(UserError, match="trained for pair f, not g; train them again"):
        classifiers.check(loaded, dataclasses.replace(here, pair="g"))
    with pytest.raises(UserError, match="trained for max_levels 3, not 2; train them again"):
        classifiers.check(loaded, other(max_levels=2))


def test_a_file_that_is_none_gets_one_sentence(path, tmp_path):
    with pytest.raises(UserError, match=r"no file of classifiers .*nowhere; .* train them again"):
        classifiers.load(tmp_path / "nowhere")
    content = path.read_bytes()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is no file of classifiers or is damaged"):
        classifiers.load(broken)
    broken.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged: its weights are not what was saved"):
        classifiers.load(broken)


def test_classifiers_that_are_no_numbers_are_not_written(trained, tmp_path):
    for change, place in (
        ({"power": np.asarray([1.0, np.nan, 2.0], np.float32)}, r"power\[1\] is nan"),
        ({"provenance": {"quality": {"c2t": {"auc": float("nan")}}}}, "quality.c2t.auc is nan"),
    ):
        broken = dataclasses.replace(trained, **change)
        with pytest.raises(UserError, match=place):
            classifiers.save(broken, tmp_path / "c.safetensors")
