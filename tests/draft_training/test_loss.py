"""Training-time test is drafting, unrolled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.draft_training import loss
from ltd_jax.models import draft, eagle3, target
from tests.cycle import tiny

TARGET, DRAFT = tiny.CONFIG.target, tiny.CONFIG.draft


def test_step_zero_and_one_of_the_unrolling_are_draft_passes():
    """Row i of step 1 equals a draft pass over rows 0..i and then one row on its own output."""
    model = tiny.pair(0).model
    params, config = model.draft, DRAFT
    tokens_T = jax.random.randint(jax.random.key(1), (14,), 0, TARGET.vocab_size)
    causal = jnp.tril(jnp.ones((14, 14), bool))
    _, feature_TE, _ = target.forward(model.target, TARGET, tokens_T, jnp.arange(14), causal, None)
    fused_TE = draft.fuse(params, config, feature_TE)
    rows, position = 6, 3
    query, key, value = eagle3.qkv(
        params, config, tokens_T[1 : 1 + rows], fused_TE[:rows], jnp.arange(rows)
    )
    hidden = eagle3.output(
        params, config, fused_TE[:rows], loss.chain_attention(query, [key], [value])
    )
    query1, key1, value1 = eagle3.qkv(
        params, config, tokens_T[2 : 2 + rows], hidden, jnp.arange(rows) + 1
    )
    mixed = loss.chain_attention(query1, [key, key1], [value, value1])
    # by hand for one row: keys of rows 0..position of step 0, and the row's own key of step 1
    K, C = config.kv_head_count, config.head_dim
    groups = config.head_count // K
    keys = jnp.concatenate([key[: position + 1], key1[position][None]])
    values = jnp.concatenate([value[: position + 1], value1[position][None]])
    for head in range(config.head_count):
        score = keys[:, head // groups] @ query1[position, head] * C**-0.5
        expected = jax.nn.softmax(score) @ values[:, head // groups]
        got = mixed[position].reshape(config.head_count, C)[head]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_window_must_hold_the_unrolling():
    model, short = tiny.pair(0).model, jnp.zeros((2, loss.UNROLL + 1), jnp.int32)
    with pytest.raises(ValueError, match="A window of 8 tokens is too short .* at least 9"):
        frozen = model.target, model.draft.target_token
        loss.DraftLoss(DRAFT, TARGET)(model.draft, frozen, short)
