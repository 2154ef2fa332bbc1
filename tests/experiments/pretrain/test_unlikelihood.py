"""Unlikelihood training makes the loops of a target's own texts rarer."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.pretrain import train_target, unlikelihood
from experiments.pretrain.train_target import NextTokenLoss
from experiments.pretrain.unlikelihood import UnlikelihoodLoss
from ltd_jax.draft_training import texts as own_texts
from ltd_jax.models import target
from tests.draft_training import small
from tests.draft_training.small import TARGET, TRAIN

ROUND = dataclasses.replace(TRAIN, tokens=40 * 192, window=95, batch_tokens=192, learning_rate=1e-3)


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
    looped_T = unlikelihood.find_looped(np.asarray(text), written)
    assert np.flatnonzero(looped_T).tolist() == expected


def test_the_loss_is_cross_entropy_plus_unlikelihood():
    params = target.init(jax.random.key(0), TARGET)
    random = np.random.default_rng(0)
    corpus_BT, own_BT = random.integers(0, TARGET.vocab_size, (2, 3, 11))
    looped_BT = random.random((3, 11)) < 0.4
    batch = unlikelihood.Batch(corpus_BT, own_BT, looped_BT)
    p_BT = np.exp(-np.asarray(train_target.cross_entropy(params, TARGET, own_BT)))
    usual, loss = NextTokenLoss(TARGET)(params, (), corpus_BT), UnlikelihoodLoss(TARGET)
    expected = usual - np.log(1 - p_BT)[looped_BT[:, 1:]].mean()
    assert float(loss(params, (), batch)) == pytest.approx(float(expected), rel=1e-5)
    none = batch._replace(looped_BT=np.zeros_like(looped_BT))
    assert float(loss(params, (), none)) == pytest.approx(float(usual), rel=1e-6)


@pytest.fixture(scope="module")
def looping(tmp_path_factory):
    """A target that has learned to write one period of ten tokens for ever."""
    config = dataclasses.replace(ROUND, tokens=80 * 192, long_share=0.0, learning_rate=2e-3)
    folder = tmp_path_factory.mktemp("looping")
    return train_target.train_target(TARGET, config, small.mixture(), folder)


def test_a_round_makes_looped_tokens_less_likely(looping, tmp_path, monkeypatch):
    """Than the same round without unlikelihood, on a corpus that is itself one loop."""
    trained, share = unlikelihood.train_round(looping, TARGET, ROUND, small.mixture(), 8, tmp_path)
    texts_BT = np.load(tmp_path / "own.npy").astype(np.int32)
    looped_BT = np.stack(
        [unlikelihood.find_looped(text, own_texts.PROMPT_TOKENS) for text in texts_BT]
    )[:, 1:]

    def probability(params):
        p_BT = np.exp(-np.asarray(train_target.cross_entropy(params, TARGET, texts_BT)))
        return p_BT[looped_BT].mean()

    nothing = lambda text_T, written: np.zeros(len(text_T), bool)
    monkeypatch.setattr(unlikelihood, "find_looped", nothing)
    control, _ = unlikelihood.train_round(
        looping, TARGET, ROUND, small.mixture(), 8, tmp_path / "c"
    )
    assert share > 0.3
    assert probability(trained) < 0.8 * probability(control)


def test_a_finished_round_is_read_back(looping, tmp_path):
    rounds = [
        unlikelihood.train_round(looping, TARGET, ROUND, small.mixture(), 8, tmp_path)
        for _ in range(2)
    ]
    jax.tree.map(np.testing.assert_array_equal, *[params for params, _ in rounds])
    assert rounds[0][1] == rounds[1][1]
