"""The Griffin draft: rows at once are rows one at a time, and both are the oracle's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import PairConfig
from ltd_jax.models import cpu_layout, draft, griffin, kv_cache
from tests.cycle import varieties
from tests.oracle import griffin as oracle

CONFIG, T = varieties.GRIFFIN, 6
PARAMS = varieties.pair("griffin").model.draft
WEIGHTS = varieties.weights("griffin").draft
RANDOM = np.random.default_rng(4)
TOKENS = RANDOM.integers(0, CONFIG.vocab_size, T)
STATES = RANDOM.normal(size=(T, CONFIG.hidden_size)).astype(np.float32)
forward = jax.jit(draft.forward, static_argnames="config")


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def causal(rows, features, cache):
    """A causal pass over some rows of the text, into an empty block."""
    count = len(rows)
    return forward(
        PARAMS,
        CONFIG,
        jnp.asarray(TOKENS[rows]),
        jnp.asarray(features),
        jnp.asarray(rows),
        cache,
        draft.empty_block(CONFIG, count, jnp.float32),
        0,
        jnp.tril(jnp.ones((count, count), bool)),
    )


def empty_cache():
    return kv_cache.empty(CONFIG, T + 2, jnp.float32)


def test_a_chain_is_the_oracles_and_rows_one_at_a_time():
    hidden, _ = causal(np.arange(T), STATES, empty_cache())
    expected = oracle.forward(WEIGHTS, CONFIG, TOKENS, STATES, np.arange(T), np.tri(T) > 0)
    assert hidden.shape == (T, 2 * CONFIG.hidden_size)
    close(hidden, expected)
    close(draft.log_probs(PARAMS, CONFIG, hidden), oracle.log_probs(WEIGHTS, CONFIG, expected))
    cache = empty_cache()
    for row in range(T):
        one, rows = causal(np.array([row]), STATES[row : row + 1], cache)
        cache = kv_cache.append(cache, rows, jnp.int32(1))
        close(one[0], hidden[row])


def test_the_next_level_reads_the_second_half():
    hidden, _ = causal(np.arange(2), STATES[:2], empty_cache())
    E = CONFIG.hidden_size
    whole, _ = causal(np.array([2]), hidden[1:], empty_cache())
    half, _ = causal(np.array([2]), hidden[1:, E:], empty_cache())
    other, _ = causal(np.array([2]), hidden[1:, :E], empty_cache())
    np.testing.assert_array_equal(whole, half)
    assert not np.allclose(whole, other)


@pytest.mark.parametrize("name", ["griffin", "griffin, tied and biased"])
def test_packed_weights_say_the_same(name):
    config, params = varieties.config(name).draft, varieties.pair(name).model.draft
    given = (jnp.asarray(TOKENS), jnp.asarray(STATES), jnp.arange(T))
    given += (kv_cache.empty(config, T, jnp.float32), draft.empty_block(config, T, jnp.float32))
    seen = jnp.tril(jnp.ones((T, T), bool))
    plain, packed = (
        forward(weights, config, *given, 0, seen)[0]
        for weights in (params, cpu_layout.pack_draft(params))
    )
    close(packed, plain)


def test_fuse_takes_the_states_as_they_are():
    np.testing.assert_array_equal(draft.fuse(PARAMS, CONFIG, jnp.asarray(STATES)), STATES)


@pytest.mark.parametrize("name", ["griffin", "griffin, tied and biased"])
def test_random_weights_have_the_shapes_of_the_config(name):
    pair = varieties.pair(name)
    head = pair.model.target.head
    found = jax.eval_shape(
        lambda: griffin.init(
            jax.random.key(0), pair.config.draft, pair.model.target.embedding, head
        )
    )
    assert found == jax.eval_shape(lambda: pair.model.draft)


def test_a_pair_whose_target_gives_other_features_is_refused():
    with pytest.raises(ValueError, match="feature_layers"):
        PairConfig(varieties.TARGET, CONFIG, varieties.CYCLE)
    with pytest.raises(ValueError, match="feature_layers"):
        PairConfig(varieties.LAST_STATE, varieties.EAGLE3, varieties.CYCLE)
    assert dataclasses.replace(varieties.LAST_STATE).feature_size == 16
