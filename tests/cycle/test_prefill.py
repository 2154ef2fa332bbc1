import numpy as np
import pytest

from ltd_jax.cycle import prefill
from ltd_jax.files import UserError
from tests.cycle import tiny
from tests.oracle import target as oracle_target

SEED = 3
CHUNK = tiny.CONFIG.cycle.prefill_chunk
TEXT = tiny.texts(SEED)[2]
LONGEST = 3 * CHUNK + 1


@pytest.fixture(scope="module")
def pair():
    return tiny.pair(SEED)


@pytest.fixture(scope="module")
def whole(pair):
    return prefill.prefill(pair, np.array(TEXT[:LONGEST]))


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, LONGEST])
def test_a_prompt_of_any_length_leaves_the_same_state(pair, whole, count):
    state = prefill.prefill(pair, np.array(TEXT[:count]))
    logits, features = oracle_target.read(
        tiny.weights(SEED).target, tiny.CONFIG.target, TEXT[:count]
    )
    assert int(state.root) == int(state.pending.token[0]) == logits[-1].argmax()
    assert int(state.pending.count) == 1
    np.testing.assert_allclose(state.pending.feature[0], features[-1], atol=1e-4)
    assert state.history == ()
    assert_same_slots(state.target_cache, whole.target_cache, count)
    assert_same_slots(state.draft_cache, whole.draft_cache, count - 1)


def assert_same_slots(cache, longer, count):
    """The cache holds `count` tokens, the same as the longer cache's first."""
    assert int(cache.length) == count <= int(longer.length)
    pairs = zip(cache.keys + cache.values, longer.keys + longer.values, strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one[:, :count], other[:, :count], atol=1e-4)


@pytest.mark.parametrize(
    "prompt_tokens, new_tokens, sentence",
    [
        (0, 5, "The prompt has no tokens"),
        (90, 7, "90 tokens and 7 more .* the context holds 96"),
        (97, 0, "97 tokens"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(pair, prompt_tokens, new_tokens, sentence):
    with pytest.raises(UserError, match=sentence):
        prefill.check_room(pair, prompt_tokens, new_tokens)


def test_a_full_context_fits(pair):
    prefill.check_room(pair, 90, 6)
