"""Norm, attention and feed-forward against numpy and hand-made numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from ltd_jax.models import kv_cache, layers, target
from tests.cycle import tiny
from tests.oracle import layer as oracle

RANDOM = np.random.default_rng(0)


def draw(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", ((5, 12), (5, 3, 12)))
def test_rms_norm(shape):
    x, weight = draw(*shape), draw(12)
    close(
        layers.rms_norm(jnp.asarray(x), jnp.asarray(weight), 0.1), oracle.rms_norm(x, weight, 0.1)
    )


def test_rms_norm_takes_its_statistics_in_f32():
    x = jnp.full((1, 4096), 3.0, jnp.bfloat16)
    found = layers.rms_norm(x, jnp.ones(4096, jnp.bfloat16), 0.0)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, np.ones((1, 4096)))


@pytest.mark.parametrize(
    ("backend", "dtype", "expected"),
    [
        ("gpu", jnp.float32, jax.lax.Precision.HIGHEST),
        ("tpu", jnp.float32, jax.lax.Precision.HIGHEST),
        ("gpu", jnp.bfloat16, None),
        ("cpu", jnp.float32, None),
    ],
)
def test_f32_is_multiplied_in_full_on_accelerators(monkeypatch, backend, dtype, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    pair, config = tiny.pair(0), tiny.CONFIG.target
    cache = kv_cache.empty(config, 16, dtype)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), pair.model.target)
    token_T, causal_TT = jnp.zeros(3, jnp.int32), jnp.tril(jnp.ones((3, 3), bool))
    passing = lambda *args: target.forward(args[0], config, *args[1:])
    program = jax.make_jaxpr(passing)(params, token_T, jnp.arange(3), causal_TT, cache)
    found = [eqn.params["precision"] for eqn in products(program.jaxpr)]
    assert len(found) >= 6 * config.layer_count
    assert all((each and each[0]) == expected for each in found)


def products(jaxpr):
    """All products of a program and of the programs in it."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn
        for inner in core.jaxprs_in_params(eqn.params):
            yield from products(inner)


def naive_attention(query, key, value, visible):
    """Query rows and heads one by one; key and value [K, S, C], visible [T, S]."""
    T, H, C = query.shape
    mixed = np.zeros((T, H, C))
    for row in range(T):
        for head in range(H):
            shared = head // (H // key.shape[0])
            seen = np.flatnonzero(visible[row])
            score = np.array([query[row, head] @ key[shared, s] for s in seen]) / np.sqrt(C)
            weight = np.exp(score - score.max())
            mixed[row, head] = weight @ value[shared, seen] / weight.sum()
    return mixed.reshape(T, H * C)


def test_attention_to_a_block():
    query, key, value = draw(3, 4, 6), draw(2, 5, 6), draw(2, 5, 6)
    visible = np.array([[1, 0, 0, 0, 0], [1, 0, 1, 0, 1], [0, 1, 1, 1, 1]], bool)
    found = layers.attention(*map(jnp.asarray, (query, key, value, visible)))
    close(found, naive_attention(query, key, value, visible))


@pytest.mark.parametrize("length", (1, 4, 7))
def test_attention_to_the_past_and_a_block(length):
    query, key, value = draw(3, 4, 6), draw(2, 5, 6), draw(2, 5, 6)
    past_key, past_value = draw(2, 7, 6), draw(2, 7, 6)
    visible = np.array([[1, 0, 0, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
    past = (jnp.asarray(past_key), jnp.asarray(past_value), jnp.int32(length))
    found = layers.attention(*map(jnp.asarray, (query, key, value, visible)), past)
    seen_past = np.broadcast_to(np.arange(7) < length, (3, 7))
    expected = naive_attention(
        query,
        np.concatenate([past_key, key], axis=1),
        np.concatenate([past_value, value], axis=1),
        np.concatenate([seen_past, visible], axis=1),
    )
    close(found, expected)


def test_an_empty_past_changes_nothing():
    query, key, value = map(jnp.asarray, (draw(3, 4, 6), draw(2, 3, 6), draw(2, 3, 6)))
    visible = jnp.tril(jnp.ones((3, 3), bool))
    past = (jnp.asarray(draw(2, 7, 6)), jnp.asarray(draw(2, 7, 6)), jnp.int32(0))
    expected = layers.attention(query, key, value, visible)
    np.testing.assert_array_equal(layers.attention(query, key, value, visible, past), expected)


def test_a_row_that_sees_nothing_is_finite():
    query, key, value = map(jnp.asarray, (draw(2, 4, 6), draw(2, 3, 6), draw(2, 3, 6)))
    assert jnp.isfinite(layers.attention(query, key, value, jnp.zeros((2, 3), bool))).all()


def test_feed_forward():
    x, gate, up, down = draw(3, 4), draw(4, 6), draw(4, 6), draw(6, 4)
    found = layers.feed_forward(jnp.asarray(x), (gate, up), jnp.asarray(down))
    swish = (x @ gate) / (1 + np.exp(-(x @ gate)))
    close(found, (swish * (x @ up)) @ down)
