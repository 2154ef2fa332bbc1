"""Windows are a function of seed and step, and come from streams by their weights."""

import dataclasses

import numpy as np
import pytest

from ltd_jax.config import DraftConfig
from ltd_jax.draft_training import pack
from ltd_jax.draft_training.pack import Mixture

MIXTURE = Mixture((np.arange(30), np.arange(100, 140)), (0.25, 0.75))


def test_windows_are_cut_out_of_one_stream():
    window_BT = pack.sample_windows(MIXTURE, rows=400, window=8, seed=0, step=0)
    assert window_BT.shape == (400, 9) and window_BT.dtype == np.int32
    assert (np.diff(window_BT) == 1).all()
    assert (window_BT[:, 0] >= 100).mean() == pytest.approx(0.75, abs=0.07)


def test_windows_are_a_function_of_seed_and_step():
    draw = lambda seed, step: pack.sample_windows(MIXTURE, rows=4, window=8, seed=seed, step=step)
    assert np.array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(2, 2))


def test_a_stream_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="has 30 tokens, too few for windows of 30"):
        pack.sample_windows(MIXTURE, rows=1, window=30, seed=0, step=0)
    assert pack.sample_windows(MIXTURE, rows=1, window=29, seed=0, step=0).shape == (1, 30)


def test_every_stream_has_a_weight():
    with pytest.raises(ValueError, match="2 streams but 1 weights"):
        dataclasses.replace(MIXTURE, weights=(1.0,))


def test_the_draft_speaks_of_the_most_frequent_tokens():
    config = DraftConfig(
        vocab_size=10,
        draft_vocab_size=3,
        hidden_size=4,
        target_hidden_size=4,
        intermediate_size=4,
        head_count=1,
        kv_head_count=1,
        head_dim=4,
    )
    streams = (np.array([7, 7, 7, 1, 2, 2]), np.array([1, 1, 9, 2]))
    assert pack.frequent_tokens(streams, config).tolist() == [1, 2, 7]
