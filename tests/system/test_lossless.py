"""The project's promise: speculative decoding gives the target's own text, token by token."""

import jax
import numpy as np
import pytest

from ltd_jax.cycle import prefill, step
from ltd_jax.decoding import generate
from tests.cycle import menu, stepping, tiny

SEEDS = (3, 4)  # of weights and prompts
NEW_TOKENS = 70
POLICIES = {
    "deepest and widest": menu.policy(menu.FIXED, 5, 12),
    "shallow": menu.policy(menu.FIXED, 2, 12),
    "one node": menu.policy(menu.FIXED, 1, 1),
    "nothing verified": menu.policy(menu.FIXED, 4, 0),
    "drawn from its history": menu.policy(menu.DRAWN),
    "watching the log-probabilities": menu.policy(menu.WATCHFUL),
}
PLACES = [(seed, prompt) for seed in SEEDS for prompt in range(len(tiny.PROMPT_TOKENS))]


@pytest.fixture(scope="module")
def plain_texts():
    """What plain decoding says after every prompt of every pair."""
    texts = {}
    for seed, prompt in PLACES:
        pair, prompt_T = tiny.pair(seed), np.array(tiny.prompts(seed)[prompt])
        steps = generate.generate_plain(pair, prompt_T, NEW_TOKENS)
        texts[seed, prompt] = [token for one in steps for token in one.tokens]
    return texts


def test_plain_decoding_is_the_oracles(plain_texts):
    for (seed, prompt), text in plain_texts.items():
        expected = tiny.texts(seed)[prompt][len(tiny.prompts(seed)[prompt]) :]
        assert tuple(text[: tiny.KNOWN_TOKENS]) == expected


@pytest.mark.parametrize("name", POLICIES)
def test_speculative_decoding_gives_the_same_text(plain_texts, name):
    accepted = []
    for seed, prompt in PLACES:
        pair, prompt_T = tiny.pair(seed), np.array(tiny.prompts(seed)[prompt])
        steps = list(generate.generate(pair, POLICIES[name], prompt_T, NEW_TOKENS))
        text = [token for one in steps for token in one.tokens]
        assert text == plain_texts[seed, prompt]
        accepted += [one.accepted for one in steps[1:]]
    assert np.mean(accepted) > 0.3 or name == "nothing verified"


def test_the_random_pairs_say_different_and_varied_things(plain_texts):
    assert len({tuple(text) for text in plain_texts.values()}) == len(PLACES)
    assert all(len(set(text)) > 5 for text in plain_texts.values())


@pytest.mark.parametrize("name", ["deepest and widest", "drawn from its history"])
@pytest.mark.parametrize("prompt", [0, 2])
def test_caches_are_those_of_reading_the_text(name, prompt):
    """Tree passes, rejected nodes and catch-up passes leave no trace behind."""
    pair, prompt_T = tiny.pair(SEEDS[0]), np.array(tiny.prompts(SEEDS[0])[prompt])
    policy = POLICIES[name]
    state = prefill.with_history(pair, policy, prefill.prefill(pair, prompt_T))
    text = [*prompt_T.tolist(), int(state.root)]
    for _ in range(9):
        state, result = stepping.cycle(pair.model, policy, state)
        text += result.token[: int(result.committed)].tolist()
    plain = plain_target_cache(pair, prompt_T, len(text) - 1)
    assert_same_slots(state.target_cache, plain, len(text) - 1)
    read = prefill.prefill(pair, np.array(text))
    behind = int(state.pending.count)
    assert_same_slots(state.draft_cache, read.draft_cache, len(text) - 1 - behind)


def plain_target_cache(pair, prompt_T, length):
    """The target's cache after plain steps up to a length."""
    plain = step.plain_of(prefill.prefill(pair, prompt_T))
    while int(plain.cache.length) < length:
        plain = stepping.plain(pair.model, plain)
    return plain.cache


def assert_same_slots(cache, expected, length):
    """A cache of just `length` tokens, equal to the other one's first."""
    assert int(cache.length) == length
    for found, wanted in zip(jax.tree.leaves(cache)[:-1], jax.tree.leaves(expected), strict=False):
        np.testing.assert_allclose(found[:, :length], wanted[:, :length], atol=1e-4)
