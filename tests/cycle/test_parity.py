"""Whole cycles of every variety of draft are those of the published algorithm, step by step.

The twin builds EAGLE's tree as its authors do (tests/oracle): a flat list of candidates, parents
by offset sums, paths from leaves. Compared are the tree, the chosen nodes, what was accepted and
what the next cycle starts from.
"""

import jax
import numpy as np
import pytest

from ltd_jax.cycle import expand, prefill, select, step
from ltd_jax.policies.policy import Constant
from tests.cycle import varieties
from tests.oracle import cycle as oracle_cycle
from tests.oracle import target as oracle_target
from tests.oracle import tree as oracle_tree

CYCLE = varieties.CYCLE
W, D, SIZE = CYCLE.beam_width, CYCLE.max_levels, CYCLE.sizes[0]
PROMPTS, CYCLES = ([3, 1, 4, 1, 5], [0, 2]), 6


@jax.jit
def examined(model, policy, state):
    """One cycle with the tree and the candidates that it had, which the library keeps to itself."""
    tree = expand.expand(model, policy, (), state.pending, state.draft_cache)[0].tree
    chosen = select.select(tree, state.root, SIZE, model.config.cycle)
    return tree, chosen, step.cycle(model, policy, state)


@pytest.mark.parametrize("name", varieties.PAIRS)
def test_cycles_are_those_of_the_published_algorithm(name):
    pair, both = varieties.pair(name), varieties.weights(name)
    policy = Constant(D, SIZE).traced()
    accepted = []
    for prompt in PROMPTS:
        state = prefill.prefill(pair, np.array(prompt))
        text = [*prompt, int(state.root)]
        for _ in range(CYCLES):
            tree, chosen, (state, result) = examined(pair.model, policy, state)
            assert_same_tree(tree, chosen, both, pair.config, text)
            tokens, features = oracle_cycle.cycle(both, pair.config, text, D, SIZE)
            count = len(tokens)
            assert result.token[:count].tolist() == tokens and result.committed == count
            np.testing.assert_allclose(state.pending.feature[:count], features, atol=1e-4)
            text += tokens
            accepted.append(count - 1)
        new = text[len(prompt) :]  # which are plain decoding's, with windows, too
        assert new == oracle_target.continuation(both.target, pair.config.target, prompt, len(new))
    assert sum(accepted) >= 3 and 0 in accepted, "the comparison must see both outcomes"


def assert_same_tree(tree, chosen, both, config, text):
    """All scores, tokens and parents; and the nodes that are verified, with who sees whom."""
    features = oracle_target.read(both.target, config.target, text)[1]
    reader = oracle_cycle.reader_of(both, config, text, features)
    offsets = both.draft.target_token - np.arange(config.draft.draft_vocab_size)
    flat = oracle_tree.grow(reader, offsets, W, D)
    score, token, parent = oracle_tree.dense(flat, W, D)
    np.testing.assert_allclose(tree.log_prob, score, atol=1e-4)
    np.testing.assert_array_equal(np.where(score > -np.inf, tree.token, 0), token)
    np.testing.assert_array_equal(tree.parent[1:], parent[1:])
    best = oracle_tree.select(flat, text[-1], SIZE, W)
    assert chosen.token.tolist() == best.token
    assert chosen.parent.tolist() == best.parent
    assert chosen.depth.tolist() == best.depth
    np.testing.assert_array_equal(chosen.mask, best.mask)


def test_the_varieties_differ():
    """Each pair says something else of one text, so that no comparison is empty."""
    text, outputs = [3, 1, 4, 1, 5, 2], set()
    for name in varieties.PAIRS:
        both, config = varieties.weights(name), varieties.config(name)
        features = oracle_target.read(both.target, config.target, text)[1]
        reader = oracle_cycle.reader_of(both, config, text, features)
        outputs.add(tuple(np.round(reader.outputs()[-1][:4], 6)))
    assert len(outputs) == len(varieties.PAIRS)
