"""What a policy sees in the simulator is what it sees in live decoding, along a decoded text."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ltd_jax.cycle import expand, prefill
from ltd_jax.decoding import generate
from ltd_jax.policies.policy import LevelView, Policy
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


@struct.dataclass
class Keeper(Policy):
    """Keeps every level's view of the newest cycle; drafts more where the target was sure."""

    threshold: float

    @property
    def needs_root_entropy(self):
        return True

    def init_history(self, config):
        return nothing_seen()

    def observe_level(self, history, view, config):
        put = lambda rows, row: rows.at[view.levels - 1].set(row)
        return jax.tree.map(put, history, view)

    def keep_drafting(self, history, view, config):
        return view.levels < 2 + 3 * (view.root_entropy < self.threshold)

    def choose_size(self, history, view, config):
        return jnp.int32(view.entropy[0, 0] < self.threshold)


@pytest.fixture(scope="module")
def pair():
    pair = tiny.pair(0)
    return dataclasses.replace(pair, model=pair.model.replace(config=CONFIG))


@pytest.fixture(scope="module")
def keeper(simulator):
    """About half of all roots come from surer distributions, and none from one just as sure."""
    entropy_P = jnp.sort(simulator.root_entropy)
    middle = len(entropy_P) // 2
    return Keeper(jnp.mean(entropy_P[middle : middle + 2]))


@pytest.fixture(scope="module")
def simulator(pair):
    trace = record.record(pair, [Prompt(PROMPT_T, 0)], NEW_TOKENS, ORIGIN, with_hidden=True)
    assert trace.hidden.dtype == np.float16
    return simulate.build(trace, synthetic.table(CYCLE), CYCLE)


@jax.jit
def look(model, policy, state):
    """The tree's view of the cycle that starts at a state."""
    expansion, _ = expand.expand(model, policy, state.history, state.pending, state.draft_cache)
    return expand.tree_view(expansion, state.target_cache.length, state.pending.root_entropy)


@jax.jit
def look_again(simulator, policy, position):
    """What is drafted at a position in the simulator, the tree's view and the size chosen."""
    levels, history = simulate.draft(simulator, policy, position, nothing_seen())
    view = simulate.tree_view(simulator, position, levels)
    return levels, history, view, policy.choose_size(history, view, CYCLE)


def live_cycles(pair, policy):
    """Per cycle: its first position, its level views, its tree view and its outcome."""
    state, position = prefill.with_history(pair, policy, prefill.prefill(pair, PROMPT_T)), 0
    while position < NEW_TOKENS - 1 - CYCLE.path_length:
        seen = look(pair.model, policy, state)
        state, result = stepping.cycle(pair.model, policy, state)
        yield position, *jax.tree.map(np.array, (state.history, seen, result))
        position += int(result.committed)


def test_live_and_simulated_views_are_equal(pair, simulator, keeper):
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-3)  # hidden is kept in f16
    settings = set()
    for position, live_history, seen, result in live_cycles(pair, keeper):
        levels, history, view, size_index = jax.device_get(
            look_again(simulator, keeper, jnp.int32(position))
        )
        assert (levels, size_index) == (result.levels, result.size_index)
        jax.tree.map(close, seen, view)
        first = lambda leaf, levels=levels: leaf[:levels]
        jax.tree.map(close, jax.tree.map(first, live_history), jax.tree.map(first, history))
        settings.add((int(levels), int(size_index)))
    assert len({levels for levels, _ in settings}) > 1


def test_entropies_are_of_whole_distributions(pair, simulator):
    hidden_DWE = np.asarray(simulator.hidden[3], np.float64)
    weights = tiny.weights(0).draft
    normed = hidden_DWE / np.sqrt((hidden_DWE**2).mean(-1, keepdims=True) + 1e-5) * weights.norm
    logits_DWY = normed @ weights.head
    p_DWY = np.exp(logits_DWY - logits_DWY.max(-1, keepdims=True))
    p_DWY /= p_DWY.sum(-1, keepdims=True)
    expected_DW = -(p_DWY * np.log(p_DWY)).sum(-1)
    np.testing.assert_allclose(simulator.entropy[3], expected_DW, atol=2e-2)
    assert np.all(np.asarray(simulator.root_entropy) > 0)
    assert np.all(np.asarray(simulator.root_entropy) <= np.log(tiny.CONFIG.target.vocab_size))


def test_a_walk_takes_the_levels_of_live_decoding(pair, simulator, keeper):
    totals = simulate.run(simulator, keeper, charge_decisions=False)
    live = list(generate.generate(pair, keeper, PROMPT_T, NEW_TOKENS))[1:]
    assert float(totals.cycles[0]) == len(live)
    assert float(totals.levels[0]) == sum(step.levels for step in live)
    assert float(totals.size[0]) == sum(step.size for step in live)
    assert float(totals.committed[0]) == sum(len(step.tokens) for step in live)
