import jax
import numpy as np
import pytest

from ltd_jax.cycle import prefill
from ltd_jax.cycle.step import PlainState
from tests.cycle import menu, stepping, tiny
from tests.oracle import cycle as oracle

SEED = 3
CYCLE = tiny.CONFIG.cycle
SETTINGS = ((5, 12), (3, 1), (1, 12), (4, 0))  # the third asks for more nodes than there are


@pytest.fixture(scope="module")
def pair():
    return tiny.pair(SEED)


def run(pair, prompt, chosen, cycle_count):
    """The state before and the result of every cycle behind a prompt, and the last state."""
    state = prefill.with_history(pair, chosen, prefill.prefill(pair, np.array(prompt)))
    rows = []
    for _ in range(cycle_count):
        before = jax.tree.map(np.array, state)
        state, result = stepping.cycle(pair.model, chosen, state)
        rows.append((before, result))
    return rows, jax.device_get(state)


@pytest.mark.parametrize("levels, size", SETTINGS)
def test_cycles_equal_the_oracles_one_by_one(pair, levels, size):
    prompt = tiny.prompts(SEED)[1]
    rows, last = run(pair, prompt, menu.policy(menu.FIXED, levels, size), 6)
    states = [before for before, _ in rows[1:]] + [last]
    text = [*prompt, int(rows[0][0].root)]
    for (_, result), after in zip(rows, states, strict=True):
        tokens, features = oracle.cycle(tiny.weights(SEED), tiny.CONFIG, text, levels, size)
        count = len(tokens)
        assert result.token[:count].tolist() == tokens
        assert (result.committed, result.accepted) == (count, count - 1)
        assert (result.levels, CYCLE.sizes[result.size_index]) == (levels, size)
        assert after.root == tokens[-1]
        assert after.pending.count == count
        assert after.pending.token[:count].tolist() == tokens
        np.testing.assert_allclose(after.pending.feature[:count], features, atol=1e-3)
        assert after.target_cache.length == len(text) + count - 1
        assert after.draft_cache.length + after.pending.count == after.target_cache.length
        text += tokens


def test_some_cycles_accept_nothing_and_some_everything(pair):
    prompts, most = tiny.prompts(SEED), menu.policy(menu.FIXED, 5, 12)
    accepted = [
        int(result.accepted) for prompt in prompts for _, result in run(pair, prompt, most, 10)[0]
    ]
    assert np.mean(accepted) > 1
    assert min(accepted) == 0 and max(accepted) == CYCLE.max_levels


def test_the_policy_remembers_every_outcome(pair):
    rows, last = run(pair, tiny.prompts(SEED)[0], menu.policy(menu.DRAWN), 8)
    history = menu.START
    for before, result in rows:
        assert before.history == history
        levels, size = menu.drawn_levels(history), menu.drawn_size(history)
        assert (result.levels, result.size_index) == (levels, size)
        history = menu.remember(history, levels, size, int(result.accepted))
    assert last.history == history
    assert len({int(result.levels) for _, result in rows}) >= 3
    assert len({int(result.size_index) for _, result in rows}) >= 3


def test_the_policy_sees_the_committed_length(pair):
    rows, _ = run(pair, tiny.prompts(SEED)[1], menu.policy(menu.EARLY, 5, 1), 12)
    early = [before.target_cache.length < menu.SHORT for before, _ in rows]
    assert True in early and False in early
    for is_early, (_, result) in zip(early, rows, strict=True):
        expected = (CYCLE.max_levels, 1) if is_early else (1, 0)
        assert (result.levels, CYCLE.sizes[result.size_index]) == expected


def test_plain_steps_give_the_targets_continuation(pair):
    prompt, text = tiny.prompts(SEED)[2], tiny.texts(SEED)[2]
    state = prefill.prefill(pair, np.array(prompt))
    plain, found = PlainState(state.target_cache, state.root), []
    for _ in range(tiny.KNOWN_TOKENS):
        found.append(int(plain.root))
        plain = stepping.plain(pair.model, plain)
    assert tuple(found) == text[len(prompt) :]
    assert int(plain.cache.length) == len(text)
