"""The draft: rows at once are rows one at a time, and both are the oracle's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.models import draft, kv_cache
from tests.models.folders import DRAFT, draft_params
from tests.oracle import draft as oracle

RANDOM = np.random.default_rng(4)
TOKENS = RANDOM.integers(0, DRAFT.vocab_size, 7)
FEATURES = RANDOM.normal(size=(7, DRAFT.hidden_size)).astype(np.float32)
PARAMS = draft_params()
WEIGHTS = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS)
forward = jax.jit(draft.forward, static_argnames="config")


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def causal(rows, cache):
    """A causal pass over some rows of the text, into an empty block."""
    T = len(rows)
    return forward(
        PARAMS,
        DRAFT,
        jnp.asarray(TOKENS[rows]),
        jnp.asarray(FEATURES[rows]),
        jnp.asarray(rows),
        cache,
        draft.empty_block(DRAFT, T, jnp.float32),
        0,
        jnp.tril(jnp.ones((T, T), bool)),
    )


def empty_cache():
    return kv_cache.empty(DRAFT, 10, jnp.float32)


def test_rows_at_once_are_rows_one_at_a_time():
    hidden_TE, rows = causal(np.arange(7), empty_cache())
    cache = empty_cache()
    for row in range(7):
        hidden_1E, new = causal(np.array([row]), cache)
        cache = kv_cache.append(cache, new, jnp.int32(1))
        close(hidden_1E[0], hidden_TE[row])
    close(cache.keys[0][:, :7], rows.keys[0])
    close(cache.values[0][:, :7], rows.values[0])


def test_a_chain_is_the_oracles():
    hidden_TE, _ = causal(np.arange(7), empty_cache())
    close(hidden_TE, oracle.forward(WEIGHTS, DRAFT, TOKENS, FEATURES, np.arange(7), np.tri(7) > 0))


def test_tree_rows_in_a_block_behind_the_cache():
    # a chain of 3 committed rows; the block: rows 0 and 1 (siblings), then row 2 below row 1
    _, committed = causal(np.arange(3), empty_cache())
    cache = kv_cache.append(empty_cache(), committed, jnp.int32(3))
    block = draft.empty_block(DRAFT, 4, jnp.float32)
    positions = np.array([0, 1, 2, 3, 3, 4])
    visible = np.tri(6, dtype=bool)
    visible[4, 3] = visible[5, 3] = False
    found = []
    for start, rows in ((0, [3, 4]), (2, [5])):
        seen_TB = np.zeros((len(rows), 4), bool)
        seen_TB[:, :3] = visible[rows, 3:]
        arrays = (TOKENS[rows], FEATURES[rows], positions[rows])
        hidden, block = forward(
            PARAMS, DRAFT, *map(jnp.asarray, arrays), cache, block, start, jnp.asarray(seen_TB)
        )
        found.append(hidden)
    expected = oracle.forward(WEIGHTS, DRAFT, TOKENS[:6], FEATURES[:6], positions, visible)
    close(np.concatenate(found), expected[3:])
    assert not block.keys[0][:, 3].any()


def test_log_probs():
    hidden_TE = jnp.asarray(FEATURES)
    log_prob_TY = draft.log_probs(PARAMS, DRAFT, hidden_TE)
    close(log_prob_TY, oracle.log_probs(WEIGHTS, DRAFT, FEATURES))
    close(jnp.exp(log_prob_TY).sum(-1), np.ones(7))
    assert log_prob_TY.dtype == jnp.float32 and (log_prob_TY <= 0).all()


def test_log_probs_of_a_sure_draft_are_not_positive():
    sure = PARAMS.replace(head=1e4 * PARAMS.head)
    assert (draft.log_probs(sure, DRAFT, jnp.asarray(FEATURES)) <= 0).all()


def test_fuse_takes_three_features():
    features = RANDOM.normal(size=(2, 36)).astype(np.float32)
    close(draft.fuse(PARAMS, DRAFT, jnp.asarray(features)), features @ WEIGHTS.fuse)


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_random_weights_have_the_shapes_of_the_config(dtype):
    embedding = jnp.zeros((DRAFT.vocab_size, DRAFT.hidden_size), dtype)
    found = jax.eval_shape(
        lambda: draft.init(jax.random.key(0), DRAFT, embedding, jnp.arange(8, dtype=jnp.int32))
    )
    expected = jax.eval_shape(lambda: draft_params(dtype=dtype))
    assert found == expected
