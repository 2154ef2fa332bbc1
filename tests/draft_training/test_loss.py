"""Training-time test is drafting, unrolled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.draft_training import loss, pack
from ltd_jax.draft_training.talk import ANSWER, FORCED, USER
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
    seen = causal[:rows, :rows]
    query, key, value = eagle3.qkv(
        params, config, tokens_T[1 : 1 + rows], fused_TE[:rows], jnp.arange(rows)
    )
    hidden = eagle3.output(
        params, config, fused_TE[:rows], loss.chain_attention(query, [key], [value], seen)
    )
    query1, key1, value1 = eagle3.qkv(
        params, config, tokens_T[2 : 2 + rows], hidden, jnp.arange(rows) + 1
    )
    mixed = loss.chain_attention(query1, [key, key1], [value, value1], seen)
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


def frozen_of(model, scale=1.0):
    E = TARGET.hidden_size * DRAFT.feature_count
    return loss.Frozen(model.target, model.draft.target_token, jnp.full((E,), scale))


def same_width(model):
    """A draft as wide as its target, so that they share an embedding."""
    config = dataclasses.replace(DRAFT, hidden_size=TARGET.hidden_size)
    key, token = jax.random.key(0), model.draft.target_token
    params = draft.init(key, config, model.target.embedding, token)
    return config, params.replace(embedding=None, target_token=None)


def test_texts_of_one_window_do_not_see_each_other():
    """Two texts in a window give what each gives in a window of its own."""
    model = tiny.pair(0).model
    config, params = same_width(model)
    random = np.random.default_rng(1)
    talks = [
        pack.Conversation(random.integers(0, TARGET.vocab_size, n).astype(np.int32), kind)
        for n, kind in ((19, np.arange(19) % 3), (13, np.full(13, ANSWER)))
    ]
    together = pack.fill(talks, 40)
    assert together.count == 1 and (together.text[0, 32:] == 0).all()
    by_step = jax.jit(loss.DraftLoss(config, TARGET).by_step)
    whole = by_step(params, frozen_of(model), together)
    start = 0
    for one in talks:
        alone = by_step(params, frozen_of(model), pack.fill([one], 40))
        here = slice(start, start + len(one.token))
        for part, own in zip(whole[:2], alone[:2], strict=True):
            own_rows = own[0, :, : len(one.token)]
            found = part[0, :, here]
            width = min(found.shape[1], own_rows.shape[1])
            np.testing.assert_allclose(found[:, :width], own_rows[:, :width], atol=2e-5)
            assert np.abs(own_rows).max() > 0
        start += len(one.token)


@pytest.mark.parametrize("row", [0, 5, 9])
def test_the_unrolling_is_what_live_drafting_would_be_asked(row):
    """A draft pass over rows 0..i, then row by row on the text and on its own output."""
    model = tiny.pair(0).model
    config, params = same_width(model)
    token_T = np.random.default_rng(4).integers(0, TARGET.vocab_size, 22).astype(np.int32)
    own = params.replace(embedding=model.target.embedding, target_token=model.draft.target_token)
    first = live_steps(model.target, own, config, token_T, row, 1)[0]
    token_T[row + 2] = own.target_token[np.argmax(first[1])]  # so that one guess is right
    window = pack.one_text_each(token_T[None])
    found = loss.DraftLoss(config, TARGET).by_step(params, frozen_of(model), window)
    cross, worth, hit = (np.asarray(part[0, :, row]) for part in found)
    assert hit[0]
    for step, (wanted_X, log_prob_Y) in enumerate(
        live_steps(model.target, own, config, token_T, row, loss.UNROLL)
    ):
        wanted_Y = wanted_X[own.target_token]
        known = bool(wanted_Y.max() >= wanted_X.max())
        expected = -jnp.sum(jax.nn.softmax(wanted_Y) * log_prob_Y)
        np.testing.assert_allclose(cross[step], known * expected, rtol=1e-4, atol=1e-5)
        assert worth[step] == known
        guess = own.target_token[jnp.argmax(log_prob_Y)]
        assert hit[step] == (guess == token_T[row + 2 + step])


def live_steps(teacher, own, config, token_T, row, steps):
    """The target's logits and the draft's log-probabilities of each step, by draft passes."""
    T = len(token_T)
    causal_TT = jnp.tril(jnp.ones((T, T), bool))
    logits_TX, feature_TE, _ = target.forward(
        teacher, TARGET, token_T, jnp.arange(T), causal_TT, None
    )
    hidden_TE = draft.fuse(own, config, feature_TE[: row + 1])
    place_T = jnp.arange(row + 1)  # of the rows that a pass writes, and their rotary positions
    block, slots = draft.empty_block(config, T, jnp.float32), jnp.arange(T)
    found = []
    for step in range(steps):
        read_T = jnp.asarray(token_T)[place_T + 1]
        hidden_TE, block = draft.forward(
            own,
            config,
            read_T,
            hidden_TE,
            place_T,
            None,
            block,
            place_T[0],
            slots[None] <= place_T[:, None],
        )
        hidden_TE, place_T = hidden_TE[-1:], place_T[-1:] + 1
        log_prob_Y = jax.nn.log_softmax(eagle3.logits(own, config, hidden_TE)[0])
        found.append((logits_TX[row + 1 + step], log_prob_Y))
    return found


def test_only_what_the_target_said_is_learned():
    model = tiny.pair(0).model
    config, params = same_width(model)
    token = np.random.default_rng(2).integers(0, TARGET.vocab_size, 30).astype(np.int32)
    kind = np.asarray([FORCED] * 8 + [USER] * 7 + [ANSWER] * 15)
    window = pack.fill([pack.Conversation(token, kind)], 30)
    _, worth, _ = loss.DraftLoss(config, TARGET).by_step(params, frozen_of(model), window)
    rows = 30 - 1 - loss.UNROLL
    for step in range(loss.UNROLL):
        predicted = kind[2 + step : 2 + step + rows]
        expected = np.asarray([0.0, 0.1, 1.0])[predicted]
        known = np.asarray(worth[0, step]) > 0
        np.testing.assert_allclose(np.asarray(worth[0, step])[known], expected[known], rtol=1e-6)
        assert not known[predicted == FORCED].any()
    assert (np.asarray(worth) == 1).any()


def test_the_scale_of_features_is_folded_into_the_draft():
    model = tiny.pair(0).model
    config, params = same_width(model)
    windows = pack.one_text_each(np.random.default_rng(3).integers(0, TARGET.vocab_size, (2, 24)))
    scale = loss.feature_scale(model.target, TARGET, windows)
    assert scale.shape == (3 * TARGET.hidden_size,) and len(set(scale.tolist())) == 3
    raw, scaled = frozen_of(model), frozen_of(model).replace(scale=scale)
    value = jax.jit(loss.DraftLoss(config, TARGET))
    inside = loss.folded(params, raw, 1 / scale).replace(embedding=None, target_token=None)
    plain, divided = value(params, raw, windows), value(inside, scaled, windows)
    np.testing.assert_allclose(plain, divided, rtol=1e-5)
    back = loss.folded(inside, raw, scale)
    np.testing.assert_allclose(back.fuse, params.fuse, rtol=1e-6)


def test_a_window_must_hold_the_unrolling():
    model = tiny.pair(0).model
    config, params = same_width(model)
    short = pack.one_text_each(np.zeros((2, loss.UNROLL + 1), np.int32))
    with pytest.raises(ValueError, match="A window of 8 tokens is too short .* at least 9"):
        loss.DraftLoss(config, TARGET)(params, frozen_of(model), short)
