"""A target's own texts are its plain decoding; unlikelihood training makes their loops rarer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pretrain import train_target, unlikelihood
from ltd_jax.draft_training import texts as own_texts
from ltd_jax.files import UserError
from ltd_jax.models import target
from tests.cycle import tiny
from tests.pretrain.test_training import SHORT, streams

CONFIG = tiny.CONFIG.target
ROUND = dataclasses.replace(
    SHORT, tokens=40 * 192, sequence=95, batch_tokens=192, learning_rate=1e-3
)


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
    params = tiny.pair(0).params.target
    prompts_BP = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (3, 8)).astype(np.int32)
    written_BT = own_texts.greedy(params, CONFIG, jnp.asarray(prompts_BP), 12)
    expected = [slow_greedy(params, prompt.tolist(), 12) for prompt in prompts_BP]
    np.testing.assert_array_equal(written_BT, expected)


def test_saved_texts_are_written_once(tmp_path, monkeypatch):
    params = tiny.pair(0).params.target
    prompts_BP = own_texts.prompts(streams(), 3, seed=0)
    assert prompts_BP.shape == (3, own_texts.PROMPT)
    monkeypatch.setattr(own_texts, "BATCH", 2)
    first_BT = own_texts.saved(tmp_path / "own.npy", params, CONFIG, prompts_BP, 5)
    assert first_BT.shape == (3, own_texts.PROMPT + 5)
    whole_BT = own_texts.greedy(params, CONFIG, jnp.asarray(prompts_BP), 5)
    np.testing.assert_array_equal(first_BT, whole_BT)
    monkeypatch.delattr(own_texts, "greedy")
    again_BT = own_texts.saved(tmp_path / "own.npy", params, CONFIG, prompts_BP, 5)
    np.testing.assert_array_equal(first_BT, again_BT)
    with pytest.raises(UserError, match=r"own\.npy holds other texts"):
        own_texts.saved(tmp_path / "own.npy", params, CONFIG, prompts_BP[::-1], 5)


@pytest.mark.parametrize(
    ("text", "written", "expected"),
    [
        ([5, 1, 2, 3, 4, 1, 2, 3, 4, 1, 9], 0, [5, 6, 7, 8, 9]),  # from the second period on
        ([5, 1, 2, 3, 4, 1, 2, 3, 4, 1, 9], 7, [7, 8, 9]),  # the prompt is not the target's fault
        ([1, 2, 1, 2, 3], 0, []),  # too short for a loop
        ([1, 2, 3] * 8, 0, list(range(3, 24))),  # periods 3, 6, 9 and 12, three of each
        (list(range(20)) * 6, 0, list(range(20, 120))),  # periods 20, 40 and 60
        (list(range(40)) * 6, 0, list(range(40, 160))),  # only where the loop begins
        (list(range(40)) * 6, 60, list(range(60, 180))),
        (list(range(64)) * 2, 0, list(range(64, 128))),  # longer than what is reported
    ],
)
def test_looped_tokens(text, written, expected):
    found = unlikelihood.looped(np.asarray(text), written)
    assert np.flatnonzero(found).tolist() == expected


def test_the_loss_is_cross_entropy_plus_unlikelihood():
    params = target.init(jax.random.key(0), CONFIG)
    random = np.random.default_rng(0)
    corpus_BT, own_BT = random.integers(0, CONFIG.vocab_size, (2, 3, 11))
    looped_BT = random.random((3, 11)) < 0.4
    batch = unlikelihood.Batch(corpus_BT, own_BT, looped_BT)
    p_BT = np.exp(-np.asarray(train_target.cross_entropy(params, CONFIG, own_BT)))
    expected = (
        train_target.loss(params, CONFIG, corpus_BT) - np.log(1 - p_BT)[looped_BT[:, 1:]].mean()
    )
    assert float(unlikelihood.loss(params, CONFIG, batch)) == pytest.approx(
        float(expected), rel=1e-5
    )
    none = batch._replace(looped_BT=np.zeros_like(looped_BT))
    assert float(unlikelihood.loss(params, CONFIG, none)) == pytest.approx(
        float(train_target.loss(params, CONFIG, corpus_BT)), rel=1e-6
    )


@pytest.fixture(scope="module")
def looping(tmp_path_factory):
    """A target that has learned to write one period of ten tokens for ever."""
    config = dataclasses.replace(ROUND, tokens=80 * 192, long_share=0.0, learning_rate=2e-3)
    folder = tmp_path_factory.mktemp("looping")
    return train_target.train_target(CONFIG, config, streams(), folder)


def test_a_round_makes_looped_tokens_less_likely(looping, tmp_path, monkeypatch):
    """Than the same round without unlikelihood, on a corpus that is itself one loop."""
    trained, share = unlikelihood.train_round(looping, CONFIG, ROUND, streams(), 8, tmp_path)
    texts_BT = np.load(tmp_path / "own.npy").astype(np.int32)
    looped_BT = np.stack([unlikelihood.looped(text, own_texts.PROMPT) for text in texts_BT])[:, 1:]

    def probability(params):
        p_BT = np.exp(-np.asarray(train_target.cross_entropy(params, CONFIG, texts_BT)))
        return p_BT[looped_BT].mean()

    nothing = lambda text_T, written: np.zeros(len(text_T), bool)
    monkeypatch.setattr(unlikelihood, "looped", nothing)
    control, _ = unlikelihood.train_round(looping, CONFIG, ROUND, streams(), 8, tmp_path / "c")
    assert share > 0.3
    assert probability(trained) < 0.8 * probability(control)


def test_a_finished_round_is_read_back(looping, tmp_path):
    rounds = [
        unlikelihood.train_round(looping, CONFIG, ROUND, streams(), 8, tmp_path) for _ in range(2)
    ]
    jax.tree.map(np.testing.assert_array_equal, *[params for params, _ in rounds])
    assert rounds[0][1] == rounds[1][1]
