"""Every family says what transformers says (golden file; see golden/make_families.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.models import target
from ltd_jax.models.hf import weights as hf_weights
from tests.models.golden import families

GOLDEN = np.load(families.GOLDEN)
T = len(families.PROMPT)
FAMILIES = pytest.mark.parametrize("family", families.FAMILIES)


@pytest.fixture
def model(tmp_path, family):
    return hf_weights.load_target(families.write(tmp_path, family), jnp.float32)


@FAMILIES
def test_logits_and_features(model, family):
    config, params = model
    logits_TX, feature_TE, _ = target.forward(
        params,
        config,
        jnp.asarray(families.PROMPT),
        jnp.arange(T),
        jnp.tril(jnp.ones((T, T), bool)),
        None,
    )
    np.testing.assert_allclose(logits_TX, GOLDEN[f"{family}/logits"], atol=1e-4)
    np.testing.assert_allclose(feature_TE, GOLDEN[f"{family}/features"], atol=1e-4)


@FAMILIES
def test_greedy_text(model, family):
    """64 tokens, every one from a pass over all tokens before it (padded to one length)."""
    config, params = model
    length = T + families.NEW_TOKENS
    causal = jnp.tril(jnp.ones((length, length), bool))

    @jax.jit
    def write(params, tokens_T, place):
        logits, _, _ = target.forward(params, config, tokens_T, jnp.arange(length), causal, None)
        return tokens_T.at[place].set(jnp.argmax(logits[place - 1]).astype(jnp.int32))

    tokens_T = jnp.zeros((length,), jnp.int32).at[:T].set(jnp.asarray(families.PROMPT))
    for place in range(T, length):
        tokens_T = write(params, tokens_T, place)
    np.testing.assert_array_equal(tokens_T[T:], GOLDEN[f"{family}/greedy"])


def test_the_golden_texts_are_varied():
    for family in families.FAMILIES:
        assert len(set(GOLDEN[f"{family}/greedy"].tolist())) > 4, family
