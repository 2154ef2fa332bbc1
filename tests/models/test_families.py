"""Every family says what transformers says (golden file; see golden/make_families.py)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.models import target
from ltd_jax.models.hf import weights as hf_weights
from tests.models.golden import families

GOLDEN = np.load(families.GOLDEN)
T = len(families.PROMPT)
LENGTH = T + families.NEW_TOKENS
FAMILIES = pytest.mark.parametrize("family", families.FAMILIES)


@pytest.fixture
def model(tmp_path, family):
    return hf_weights.load_target(families.write(tmp_path, family), jnp.float32)


@functools.partial(jax.jit, static_argnames="config")
def read(params, config, tokens_T):
    """Logits and features of a text that is padded to one length."""
    causal = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
    return target.forward(params, config, tokens_T, jnp.arange(LENGTH), causal, None)[:2]


def padded(tokens):
    return np.pad(np.asarray(tokens, np.int32), (0, LENGTH - len(tokens)))


@FAMILIES
def test_logits_and_features(model, family):
    config, params = model
    logits_TX, feature_TE = read(params, config, padded(families.PROMPT))
    np.testing.assert_allclose(logits_TX[:T], GOLDEN[f"{family}/logits"], atol=1e-4)
    np.testing.assert_allclose(feature_TE[:T], GOLDEN[f"{family}/features"], atol=1e-4)


@FAMILIES
def test_greedy_text(model, family):
    """64 tokens, every one from a pass over all tokens before it."""
    config, params = model
    text = list(families.PROMPT)
    while len(text) < LENGTH:
        logits_TX, _ = jax.device_get(read(params, config, padded(text)))
        text.append(int(logits_TX[len(text) - 1].argmax()))
    np.testing.assert_array_equal(text[T:], GOLDEN[f"{family}/greedy"])


@pytest.mark.parametrize("family", ["qwen2-sliding", "qwen3-sliding"])
def test_windows_change_the_text(model, family):
    config, params = model
    full = dataclasses.replace(config, sliding_layers=())
    logits_TX, _ = read(params, full, padded(families.PROMPT))
    assert np.abs(logits_TX[:T] - GOLDEN[f"{family}/logits"]).max() > 0.1


def test_the_golden_texts_are_varied():
    for family in families.FAMILIES:
        assert len(set(GOLDEN[f"{family}/greedy"].tolist())) > 4, family
