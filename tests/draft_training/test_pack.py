"""Windows are a function of seed and step, and come from streams by their weights."""

import dataclasses

import numpy as np
import pytest

from ltd_jax.config import DraftConfig
from ltd_jax.draft_training import pack
from ltd_jax.draft_training.pack import Conversation, Mixture
from ltd_jax.draft_training.talk import ANSWER, FORCED, Spoken
from ltd_jax.files import UserError

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
    with pytest.raises(UserError, match="Stream 1 has token 70000, but the vocabulary has 10"):
        pack.frequent_tokens((*streams[:1], np.array([70_000], np.uint32)), config)


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [
        (2, "uint16"),
        (65_536, "uint16"),
        (65_537, "uint32"),
        (152_064, "uint32"),
    ],
)
def test_token_ids_are_stored_in_a_type_that_holds_them(vocab_size, dtype):
    found = pack.token_dtype(vocab_size)
    assert found == dtype
    largest = np.array([vocab_size - 1])
    assert largest.astype(found) == largest


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([3, 10], "X has token 10, but the vocabulary has 10 tokens"),
        ([-1, 3], "X has token -1"),
        ([1.0, 2.0], "X is of float64; token ids are integers"),
        ([False, True], "X is of bool"),
    ],
)
def test_tokens_of_another_vocabulary_are_refused(tokens, words):
    with pytest.raises(UserError, match=words):
        pack.known_tokens(np.array(tokens), 10, "X")


@pytest.mark.parametrize("tokens", [[], [0, 9]])
def test_tokens_of_the_vocabulary_are_kept(tokens):
    tokens_T = np.array(tokens, np.uint32)
    assert pack.known_tokens(tokens_T, 10, "X") is tokens_T


def talks(lengths):
    random = np.random.default_rng(0)
    draw = lambda n: random.integers(0, 50, n).astype(np.int32)
    return [Conversation(draw(n), random.integers(0, 3, n).astype(np.uint8)) for n in lengths]


def test_windows_hold_whole_conversations_and_no_token_twice():
    given = talks([3, 30, 12, 20, 9, 8, 30, 5, 2])
    windows = pack.fill(given, 32)
    assert windows.count == 4 and windows.token.shape == (4, 32)
    found = []
    for row in range(windows.count):
        for text in range(1, windows.text[row].max() + 1):
            here = windows.text[row] == text
            assert windows.position[row][here].tolist() == list(range(here.sum()))
            found.append((windows.token[row][here].tolist(), windows.kind[row][here].tolist()))
    assert sorted(found) == sorted((one.token.tolist(), one.kind.tolist()) for one in given)


def test_a_conversation_longer_than_a_window_becomes_several_texts():
    (long,) = talks([70])
    windows = pack.fill([long], 32)
    assert windows.count == 3 and np.count_nonzero(windows.text) == 70
    assert (windows.position[:, 0] == 0).all()


def test_every_epoch_takes_each_window_once():
    windows = pack.fill(talks([30] * 10), 32)
    named = lambda part: [row.tobytes() for row in part.token]
    take = lambda step, seed=0: named(pack.sample_packed(windows, rows=4, seed=seed, step=step))
    both = sum((take(step) for step in range(5)), [])
    assert sorted(both) == sorted(named(windows) * 2)
    assert sorted(both[:10]) == sorted(named(windows)) and both[:10] != both[10:]
    assert take(3) == take(3) and take(3) != take(3, seed=1)


def test_conversations_are_cut_out_of_a_round():
    token = np.arange(24, dtype=np.int32).reshape(12, 2)
    first = np.zeros((12, 2), bool)
    first[[0, 5], 0] = first[[0, 9], 1] = True
    kind = np.full((12, 2), ANSWER, np.uint8)
    kind[:3] = FORCED
    spoken = Spoken(token, kind, first, np.zeros((12, 2), bool))
    found = list(pack.conversations(spoken, least_answer=6))
    assert [one.token.tolist() for one in found] == [
        token[5:, 0].tolist(),
        token[:9, 1].tolist(),
    ]
    assert len(pack.without_doubles([*found, *found])) == 2
