"""The target: passes with a cache are one pass, features are the streams that enter the layers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.models import kv_cache, target
from tests.models import folders
from tests.models.folders import target_params
from tests.oracle import target as oracle

TARGET = dataclasses.replace(folders.TARGET, layer_count=4, feature_layers=(1, 2, 3))
TOKENS = np.random.default_rng(3).integers(0, TARGET.vocab_size, 9)
VARIANTS = {
    "llama": TARGET,
    "qwen2": dataclasses.replace(TARGET, attention_bias=True, tie_embeddings=True),
    "qwen3": dataclasses.replace(TARGET, qk_norm=True),
}
forward = jax.jit(target.forward, static_argnames="config")


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def read(params, config, tokens, cache=None):
    """A causal pass over a piece of text."""
    T, start = len(tokens), 0 if cache is None else cache.length
    causal = jnp.tril(jnp.ones((T, T), bool))
    return forward(params, config, jnp.asarray(tokens), start + jnp.arange(T), causal, cache)


@functools.cache
def f64(config):
    """The weights as the oracle wants them."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), target_params(config))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_pieces_with_a_cache_are_one_pass(config):
    params = target_params(config)
    logits_TX, feature_TE, rows = read(params, config, TOKENS)
    cache = kv_cache.empty(config, 12, jnp.float32)
    found_logits, found_features = [], []
    for piece in np.split(TOKENS, (4, 5)):
        logits, features, new = read(params, config, piece, cache)
        cache = kv_cache.append(cache, new, jnp.int32(len(piece)))
        found_logits.append(logits)
        found_features.append(features)
    close(np.concatenate(found_logits), logits_TX)
    close(np.concatenate(found_features), feature_TE)
    close(cache.keys[-1][:, :9], rows.keys[-1])
    close(cache.values[0][:, :9], rows.values[0])


def test_logits_and_features_are_the_oracles():
    logits_TX, feature_TE, _ = read(target_params(TARGET), TARGET, TOKENS)
    expected_logits, expected_features = oracle.read(f64(TARGET), TARGET, TOKENS)
    assert logits_TX.dtype == jnp.float32 and feature_TE.shape == (9, 36)
    close(logits_TX, expected_logits)
    close(feature_TE, expected_features)


def test_features_are_the_streams_that_enter_the_chosen_layers():
    config = dataclasses.replace(TARGET, feature_layers=(0, 1, 3))
    params = target_params(TARGET)
    first, second, third = np.split(read(params, config, TOKENS)[1], 3, axis=1)
    np.testing.assert_array_equal(first, params.embedding[TOKENS])
    np.testing.assert_array_equal(second, np.split(read(params, TARGET, TOKENS)[1], 3, axis=1)[0])
    without_last = params.replace(
        layers=(*params.layers[:3], jax.tree.map(jnp.zeros_like, params.layers[3]))
    )  # a layer of zeros hands its stream on
    normed = oracle.layer.rms_norm(np.asarray(third), f64(TARGET).norm, TARGET.rms_norm_eps)
    close(read(without_last, TARGET, TOKENS)[0], normed @ f64(TARGET).head)


def test_a_tree_of_tokens():
    # rows: root, two children of the root, a child of the first child
    positions, tokens = np.array([0, 1, 1, 2]), TOKENS[:4]
    visible = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]], bool)
    arrays = map(jnp.asarray, (tokens, positions, visible))
    logits_TX, _, _ = forward(target_params(TARGET), TARGET, *arrays, None)
    close(logits_TX, oracle.forward(f64(TARGET), TARGET, tokens, positions, visible)[0])
    path = np.array([0, 1, 3])
    close(logits_TX[path], read(target_params(TARGET), TARGET, tokens[path])[0])


@pytest.mark.parametrize("name", ("q_bias", "v_bias", "q_norm"))
def test_family_weights_are_used(name):
    config = VARIANTS["qwen3" if name == "q_norm" else "qwen2"]
    params = target_params(config)
    first = params.layers[0]
    if name == "q_norm":
        first = first.replace(qk_norms=(2 + first.qk_norms[0], first.qk_norms[1]))
    else:
        added = [2.0 * (one == name) for one in ("q_bias", "k_bias", "v_bias")]
        biases = tuple(bias + two for bias, two in zip(first.qkv_bias, added, strict=True))
        first = first.replace(qkv_bias=biases)
    changed = params.replace(layers=(first, *params.layers[1:]))
    before, after = (read(one, config, TOKENS)[0] for one in (params, changed))
    assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_random_weights_have_the_shapes_of_the_config(config):
    found = jax.eval_shape(lambda: target.init(jax.random.key(0), config, jnp.bfloat16))
    logits_TX, feature_TE, rows = jax.eval_shape(lambda params: read(params, config, TOKENS), found)
    assert (logits_TX.shape, logits_TX.dtype) == ((9, 24), jnp.float32)
    assert (feature_TE.shape, feature_TE.dtype) == ((9, 36), jnp.bfloat16)
    assert {(leaf.shape, str(leaf.dtype)) for leaf in rows.keys} == {((2, 9, 4), "bfloat16")}
