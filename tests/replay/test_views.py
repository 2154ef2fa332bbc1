"""What a controller sees in the replay is what it sees in live decoding, along a decoded text."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.cycle import expand, prefill
from ltd_jax.decoding import generate
from ltd_jax.policies.policy import Controller, LevelView
from ltd_jax.replay import record, simulate
from ltd_jax.replay.record import Prompt
from tests.cycle import stepping, tiny
from tests.replay import synthetic

NEW_TOKENS = 24
CYCLE = dataclasses.replace(tiny.CONFIG.cycle, sizes=(0, 6))  # few: each is compiled
CONFIG = dataclasses.replace(tiny.CONFIG, cycle=CYCLE)
W, D, E = CYCLE.beam_width, CYCLE.max_levels, tiny.CONFIG.draft.hidden_size
ORIGIN = {"tasks": ["a"], "fingerprint": "f", "prompts": "p", "new_tokens": NEW_TOKENS}
PROMPT_T = np.asarray(tiny.prompts(0)[2], np.int32)


def nothing_seen():
    row, none = jnp.zeros((D, W)), jnp.zeros(D)
    blocks = jnp.zeros((D, W, W)), jnp.zeros((D, W, E))
    count = none.astype(jnp.int32)
    return LevelView(blocks[0], count, count, row, blocks[1], none, row.astype(jnp.int32))


def keeper():
    """Keeps every level's view of the newest cycle; drafts more where the target was sure."""
    put = lambda level: lambda rows, row: rows.at[level].set(row)
    return Controller(
        init=nothing_seen,
        keep_drafting=lambda params, state, view: (
            view.levels < 2 + 3 * (view.root_entropy < params)
        ),
        choose_size=lambda params, state, view: jnp.int32(view.entropy[0, 0] < params),
        update=lambda state, outcome: state,
        notice=lambda params, state, view: jax.tree.map(put(view.levels - 1), state, view),
    )


KEEPER = keeper()


@pytest.fixture(scope="module")
def pair():
    return dataclasses.replace(tiny.pair(0), config=CONFIG)


@pytest.fixture(scope="module")
def threshold(replay):
    """About half of all roots come from surer distributions, and none from one just as sure."""
    entropy_P = jnp.sort(replay.root_entropy)
    middle = len(entropy_P) // 2
    return jnp.mean(entropy_P[middle : middle + 2])


@pytest.fixture(scope="module")
def replay(pair):
    found = [Prompt(PROMPT_T, 0)]
    trace = record.record(pair, found, NEW_TOKENS, ORIGIN, with_hidden=True)
    assert trace.hidden.dtype == np.float16
    return simulate.build(trace, synthetic.table(CYCLE), CYCLE)


@jax.jit
def look(params, threshold, state):
    """The tree's view of the cycle that starts at a state."""
    memory, pending, cache = state.memory, state.pending, state.draft_cache
    draft = (params.draft, CONFIG, KEEPER, threshold, memory, pending, cache)
    expansion, _ = expand.expand(*draft)
    return expand.tree_view(expansion, state.target_cache.length, pending.root_entropy)


@jax.jit
def look_back(replay, threshold, position):
    """What is drafted at a position in the replay, the tree's view and the size that is chosen."""
    drafted = simulate.draft(replay, position, KEEPER, threshold, KEEPER.init())
    view = simulate.tree_view(replay, position, drafted.levels)
    return drafted, view, KEEPER.choose_size(threshold, drafted.state, view)


def live_cycles(pair, threshold):
    """Per cycle: its first position, its level views, its tree view and its outcome."""
    state, position = prefill.prefill(pair, KEEPER, PROMPT_T), 0
    while position < NEW_TOKENS - 1 - CYCLE.path_length:
        seen = look(pair.params, threshold, state)
        state, result = stepping.cycle(pair.params, pair.config, KEEPER, threshold, state)
        yield position, *jax.device_get((state.memory, seen, result))
        position += int(result.committed)


def test_live_and_replayed_views_are_equal(pair, replay, threshold):
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-3)  # hidden is kept in f16
    settings = set()
    for position, memory, seen, result in live_cycles(pair, threshold):
        drafted, view, size = jax.device_get(look_back(replay, threshold, jnp.int32(position)))
        assert (drafted.levels, size) == (result.levels, result.size)
        jax.tree.map(close, seen, view)
        levels = int(result.levels)
        first = lambda leaf, levels=levels: leaf[:levels]
        jax.tree.map(close, jax.tree.map(first, memory), jax.tree.map(first, drafted.state))
        settings.add((levels, int(size)))
    assert len({levels for levels, _ in settings}) > 1


def test_entropies_are_of_whole_distributions(pair, replay):
    hidden_DWE = np.asarray(replay.hidden[3], np.float64)
    weights = tiny.weights(0).draft
    normed = hidden_DWE / np.sqrt((hidden_DWE**2).mean(-1, keepdims=True) + 1e-5) * weights.norm
    logits_DWY = normed @ weights.head
    p_DWY = np.exp(logits_DWY - logits_DWY.max(-1, keepdims=True))
    p_DWY /= p_DWY.sum(-1, keepdims=True)
    expected_DW = -(p_DWY * np.log(p_DWY)).sum(-1)
    np.testing.assert_allclose(replay.entropy[3], expected_DW, atol=2e-2)
    assert np.all(np.asarray(replay.root_entropy) > 0)
    assert np.all(np.asarray(replay.root_entropy) <= np.log(tiny.CONFIG.target.vocab_size))


def test_a_walk_takes_the_levels_of_live_decoding(pair, replay, threshold):
    totals = simulate.run(replay, CYCLE, KEEPER, threshold, learned=False)
    bursts = generate.generate(pair, KEEPER, threshold, PROMPT_T, NEW_TOKENS)
    live = list(bursts)[1:]
    assert float(totals.cycles[0]) == len(live)
    assert float(totals.levels[0]) == sum(burst.levels for burst in live)
    assert float(totals.size[0]) == sum(burst.size for burst in live)
    assert float(totals.committed[0]) == sum(len(burst.tokens) for burst in live)
