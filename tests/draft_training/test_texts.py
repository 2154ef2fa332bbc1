"""A target's own texts are its plain decoding, and are written once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.draft_training import texts as own_texts
from ltd_jax.files import UserError
from ltd_jax.models import target
from tests.cycle import tiny
from tests.draft_training import small

CONFIG = tiny.CONFIG.target


def slow_greedy(params, prompt, new):
    """Token by token, every pass over the whole text; what is behind its end is not seen."""
    T = len(prompt) + new
    mask = jnp.tril(jnp.ones((T, T), bool))
    run = jax.jit(lambda tokens: target.forward(params, CONFIG, tokens, jnp.arange(T), mask, None))
    tokens = np.zeros(T, np.int32)
    tokens[: len(prompt)] = prompt
    for end in range(len(prompt), T):
        logits_TX, _, _ = run(tokens)
        tokens[end] = jnp.argmax(logits_TX[end - 1])
    return tokens.tolist()


def test_own_texts_are_plain_greedy_decoding():
    params = tiny.pair(0).model.target
    prompt_BP = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (3, 8)).astype(np.int32)
    written_BT = own_texts.continue_greedily(params, CONFIG, jnp.asarray(prompt_BP), 12)
    expected = [slow_greedy(params, prompt.tolist(), 12) for prompt in prompt_BP]
    np.testing.assert_array_equal(written_BT, expected)


def test_saved_texts_are_written_once(tmp_path, monkeypatch):
    params, file, shares = tiny.pair(0).model.target, tmp_path / "own.npy", []
    prompt_BP = own_texts.sample_prompts(small.mixture().streams, 3, seed=0)
    assert prompt_BP.shape == (3, own_texts.PROMPT_TOKENS)
    monkeypatch.setattr(own_texts, "TEXTS_AT_ONCE", 2)
    read = lambda prompt_BP, new: own_texts.load_or_write(
        file, params, CONFIG, prompt_BP, new, progress=shares.append
    )
    first_BT = read(prompt_BP, 5)
    assert first_BT.shape == (3, own_texts.PROMPT_TOKENS + 5) and first_BT.dtype == np.uint16
    assert shares == [pytest.approx(2 / 3), 1]
    whole_BT = own_texts.continue_greedily(params, CONFIG, jnp.asarray(prompt_BP), 5)
    np.testing.assert_array_equal(first_BT, whole_BT)
    monkeypatch.delattr(own_texts, "continue_greedily")
    np.testing.assert_array_equal(first_BT, read(prompt_BP, 5))
    with pytest.raises(UserError, match=r"own\.npy holds other texts"):
        read(prompt_BP[::-1], 5)
    with pytest.raises(UserError, match=r"own\.npy holds other texts"):
        read(prompt_BP, 6)


def test_tokens_above_65535_are_stored_whole(tmp_path, monkeypatch):
    """A vocabulary as Llama 3's: what was written comes back, and a smaller one refuses it."""
    large = dataclasses.replace(CONFIG, vocab_size=128_256)
    prompt_BP = np.array([[70_000, 3]], np.int32)
    written_BT = np.array([[70_000, 3, 128_255, 65_536]], np.int32)
    monkeypatch.setattr(own_texts, "continue_greedily", lambda *_: written_BT)
    file = tmp_path / "own.npy"
    found_BT = own_texts.load_or_write(file, None, large, prompt_BP, 2)
    np.testing.assert_array_equal(found_BT, written_BT)
    assert found_BT.dtype == np.uint32
    with pytest.raises(UserError, match="A prompt has token 70000, but the vocabulary has"):
        own_texts.load_or_write(file, None, CONFIG, prompt_BP, 2)
    small = dataclasses.replace(CONFIG, vocab_size=100_000)
    with pytest.raises(UserError, match=r"own\.npy has token 128255, but .* has 100000"):
        own_texts.load_or_write(file, None, small, prompt_BP, 2)


def test_a_target_that_gives_no_numbers_writes_no_texts(tmp_path):
    params = tiny.pair(0).model.target
    prompt_BP = own_texts.sample_prompts(small.mixture().streams, 2, seed=0)
    broken = params.replace(norm=params.norm * jnp.nan)
    with pytest.raises(UserError, match="logits are NaN or infinite in float32"):
        own_texts.load_or_write(tmp_path / "own.npy", broken, CONFIG, prompt_BP, 5)
    assert not list(tmp_path.iterdir())
