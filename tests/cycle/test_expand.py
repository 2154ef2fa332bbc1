import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.cycle import expand, prefill
from ltd_jax.cycle import tree as trees
from ltd_jax.cycle.expand import PendingTokens
from tests.cycle import menu, tiny
from tests.oracle import target as oracle_target
from tests.oracle import tree as oracle

SEED = 3
CYCLE = tiny.CONFIG.cycle
W, D = CYCLE.beam_width, CYCLE.max_levels
PLACES = ((0, 4, 1), (1, 16, 3), (2, 30, 6), (2, 19, 1))  # prompt, root's place, pending tokens


@jax.jit
def expanded(model, policy, history, pending, cache):
    """The drafting of one cycle."""
    return expand.expand(model, policy, history, pending, cache)


@jax.jit
def full_tree(model, pending, cache):
    """The tree of all levels."""
    hidden_E, cache = expand.extend(model, pending, cache)
    return expand.full_expansion(model, hidden_E, cache).tree


@jax.jit
def caught_up(model, pending, cache):
    """The catch-up pass alone."""
    return expand.extend(model, pending, cache)


@pytest.fixture(scope="module")
def pair():
    return tiny.pair(SEED)


def before(pair, prompt, root, count):
    """What the draft holds when `count` tokens up to the root are pending; and the text."""
    text = tiny.texts(SEED)[prompt][: root + 1]
    cache = prefill.prefill(pair, np.array(text[: root + 1 - count])).draft_cache
    features = oracle_target.read(tiny.weights(SEED).target, tiny.CONFIG.target, text)[1]
    rows = slice(root + 1 - count, root + 1)
    return text, pending_of(text[rows], features[root - count : root]), cache


def pending_of(tokens, features, noise=0.0):
    """Tokens and features in front of rows full of noise."""
    count, width = len(tokens), features.shape[1]
    token = np.full(CYCLE.path_length, 9, np.int32)
    feature = np.full((CYCLE.path_length, width), noise, np.float32)
    token[:count], feature[:count] = tokens, features
    return PendingTokens(jnp.asarray(token), jnp.asarray(feature), jnp.int32(count), jnp.float32(0))


def assert_same_tree(tree, flat, levels):
    """Scores within 1e-4; tokens and parents the same wherever there is a node."""
    score, token, parent = oracle.dense(flat, W, D)
    np.testing.assert_allclose(tree.log_prob, score, atol=1e-4)
    np.testing.assert_array_equal(np.where(score > -np.inf, tree.token, 0), token)
    np.testing.assert_array_equal(tree.parent[1:levels], parent[1:levels])


@pytest.mark.parametrize("place", PLACES)
def test_the_full_tree_is_the_oracles(pair, place):
    text, pending, cache = before(pair, *place)
    tree = full_tree(pair.model, pending, cache)
    flat = oracle.grow(tiny.reader(SEED, text), tiny.offsets(SEED), W, D)
    assert_same_tree(tree, flat, D)


@pytest.mark.parametrize("levels", range(1, D + 1))
def test_a_constant_loop_gives_the_first_levels_of_the_full_tree(pair, levels):
    text, pending, cache = before(pair, *PLACES[1])
    fixed = menu.policy(menu.FIXED, levels)
    expansion, _ = expanded(pair.model, fixed, jnp.int32(0), pending, cache)
    tree, full = expansion.tree, full_tree(pair.model, pending, cache)
    assert int(expansion.levels) == levels
    np.testing.assert_allclose(tree.log_prob[:levels], full.log_prob[:levels], atol=1e-5)
    np.testing.assert_array_equal(tree.token[:levels], full.token[:levels])
    np.testing.assert_array_equal(tree.parent[:levels], full.parent[:levels])
    assert np.all(tree.log_prob[levels:] == trees.NO_NODE)
    flat = oracle.grow(tiny.reader(SEED, text), tiny.offsets(SEED), W, levels)
    assert_same_tree(tree, flat, levels)


def test_the_loop_stops_where_the_newest_level_tells_it_to(pair):
    watchful, found = menu.policy(menu.WATCHFUL), []
    for place in PLACES:
        _, pending, cache = before(pair, *place)
        expansion, _ = expanded(pair.model, watchful, jnp.int32(0), pending, cache)
        best_D = np.asarray(full_tree(pair.model, pending, cache).log_prob).max(axis=(1, 2))
        expected = 1
        while expected < D and best_D[expected - 1] > menu.LEAST_LOG_PROB:
            expected += 1
        found.append(int(expansion.levels))
        assert found[-1] == expected
    assert len(set(found)) > 1


def test_no_controller_drafts_beyond_the_most_levels(pair):
    _, pending, cache = before(pair, *PLACES[0])
    endless = menu.policy(menu.FIXED, 99)
    expansion, _ = expanded(pair.model, endless, jnp.int32(0), pending, cache)
    assert int(expansion.levels) == D


def test_the_shortest_catch_up_that_holds_a_path():
    assert CYCLE.catch_up_rows == (2, D + 1)  # PLACES need both
    assert CycleConfig(max_levels=3, short_catch_ups=(2, 4, 9)).catch_up_rows == (2, 4)
    for wrong in ((4, 2), (2, 2), (0,)):
        with pytest.raises(ValueError, match="short_catch_ups .* must be distinct, ascending"):
            CycleConfig(short_catch_ups=wrong)


def test_catching_up_at_once_equals_one_token_at_a_time(pair):
    text, pending, cache = before(pair, *PLACES[2])
    count, start = int(pending.count), int(cache.length)
    hidden_E, at_once = caught_up(pair.model, pending, cache)
    for row in range(count):
        one = pending_of(pending.token[row : row + 1], pending.feature[row : row + 1])
        last_E, cache = caught_up(pair.model, one, cache)
    assert int(at_once.length) == int(cache.length) == start + count == len(text) - 1
    np.testing.assert_allclose(hidden_E, last_E, atol=1e-4)
    filled = slice(0, start + count)
    np.testing.assert_allclose(at_once.keys[0][:, filled], cache.keys[0][:, filled], atol=1e-4)
    np.testing.assert_allclose(at_once.values[0][:, filled], cache.values[0][:, filled], atol=1e-4)


def test_rows_behind_the_pending_ones_mean_nothing(pair):
    _, pending, cache = before(pair, *PLACES[1])
    count = int(pending.count)
    noisy = pending_of(pending.token[:count], pending.feature[:count], noise=50.0)
    hidden_E, _ = caught_up(pair.model, pending, cache)
    np.testing.assert_array_equal(hidden_E, caught_up(pair.model, noisy, cache)[0])
