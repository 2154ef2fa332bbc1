"""Acceptance probabilities of recorded trees: products of the target's own probabilities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.proofs import distribution
from ltd_jax.config import CycleConfig, SamplingConfig
from ltd_jax.cycle import select
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.files import UserError
from ltd_jax.models import target
from ltd_jax.replay import record, sampled
from ltd_jax.replay import trace as traces
from ltd_jax.replay.record import Prompt
from tests.oracle import sample as oracle

X, NEW = 10, 12
CYCLE = CycleConfig(beam_width=3, max_levels=3, sizes=(0, 2, 7), context=32, prefill_chunk=8)
PROMPTS = [Prompt(np.array(tokens, np.int32), 0) for tokens in ([7, 1], [3, 3, 9, 1])]
HOT = SamplingConfig(temperature=1.2, repetition_penalty=1.4, top_k=6)


@pytest.fixture(scope="module")
def plain_pair():
    return distribution.random_pair(X, CYCLE, seed=4)


def recorded(pair):
    """A trace with acceptance probabilities."""
    origin = {"tasks": ["a"], "fingerprint": "f", "prompts": "p", "new_tokens": NEW}
    return sampled.add_accept_prob(pair, PROMPTS, record.record(pair, PROMPTS, NEW, origin))


@pytest.fixture(scope="module")
def hot(plain_pair):
    pair = plain_pair.sampled(HOT, seed=3)
    return pair, recorded(pair)


def chance_behind(pair, tokens):
    """The target's processed probabilities behind some tokens, by reading them in a row."""
    padded = np.zeros(CYCLE.context, np.int32)
    padded[: len(tokens)] = tokens
    logits = _logits(pair.model, padded)[len(tokens) - 1]
    config = pair.config.sampling
    warped = oracle.scores(
        np.asarray(logits, float).tolist(),
        sorted(set(tokens)),
        config.temperature,
        config.repetition_penalty,
        config.top_p,
        config.top_k,
    )
    return oracle.probabilities(warped)


@jax.jit
def _logits(model, tokens_S):
    S = tokens_S.shape[0]
    causal = jnp.tril(jnp.ones((S, S), bool))
    positions_S = jnp.arange(S)
    return target.forward(model.target, model.config.target, tokens_S, positions_S, causal, None)[0]


def test_the_probability_is_the_product_along_the_path(hot):
    pair, trace = hot
    texts = record.texts_of(pair, [prompt.token for prompt in PROMPTS], NEW)
    for position in (0, 5, NEW, len(trace.tokens_left) - 4):
        index = int(trace.text[position])
        place = position - int(trace.text_start[index])
        before = [*PROMPTS[index].token.tolist(), *texts[index][: place + 1].tolist()]
        nodes = {-1: ((), 1.0)}
        for level in range(CYCLE.max_levels):
            for slot in range(3 if level else 1):
                above = (level - 1, int(trace.parent[position, level, slot])) if level else -1
                path, product = nodes[above]
                chance = chance_behind(pair, [*before, *path])
                for child in range(3):
                    token = int(trace.token[position, level, slot, child])
                    nodes[level, 3 * slot + child] = ((*path, token), product * chance[token])
                    found = trace.accept_prob[position, level, slot, child]
                    assert found == pytest.approx(product * chance[token], abs=1e-5)
        assert (trace.accept_prob[position, 0, 1:] == 0).all()


def test_expected_is_one_and_the_sum_over_the_chosen_nodes(hot):
    _, trace = hot
    found = traces.expected(trace, CYCLE)
    for position in (0, 7, NEW + 2):
        for levels in range(1, CYCLE.max_levels + 1):
            drafted = np.arange(CYCLE.max_levels)[:, None, None] < levels
            score = np.where(drafted, trace.log_prob[position], -np.inf)
            tree = DraftTree(
                jnp.asarray(score), trace.token[position], jnp.asarray(trace.parent[position])
            )
            for index, size in enumerate(CYCLE.sizes):
                chosen = chosen_nodes(tree, size)
                wanted = 1 + trace.accept_prob[position].reshape(-1)[chosen].sum()
                assert found[position, levels - 1, index] == pytest.approx(wanted, abs=1e-5)


def chosen_nodes(tree, size):
    """Flat indices of the verified nodes, found again by marking every node's token."""
    marked = jnp.arange(tree.token.size).reshape(tree.token.shape)
    candidates = select.select(dataclasses.replace(tree, token=marked), jnp.int32(0), size, CYCLE)
    return np.asarray(candidates.token)[np.asarray(candidates.present)][1:]


def test_draws_have_the_expected_mean():
    """Accepted tokens of live texts, counted by the trace, against 1 + the sum of probabilities."""
    pair = distribution.random_pair(X, CYCLE, seed=4).sampled(HOT, seed=1)
    texts = distribution.drawn(pair, PROMPTS[0].token, 20_000)
    root = int(np.bincount(texts[:, 0]).argmax())
    ours = texts[texts[:, 0] == root]
    origin = {"tasks": ["a"], "fingerprint": "f", "prompts": "p", "new_tokens": 3}
    one = record.record_text(pair, PROMPTS[0], ours[0], origin)
    tokens = np.pad([*PROMPTS[0].token, *ours[0]], (0, CYCLE.context - 5)).astype(np.int32)
    tree = DraftTree(one.log_prob, one.token, one.parent)
    probable = sampled.accept_prob(pair, tokens, one.length, tree, np.array([2, 1], np.int32))
    one = dataclasses.replace(one, accept_prob=probable)
    rows = np.zeros(len(ours), int)
    columns = {name: getattr(one, name)[rows] for name in traces.ARRAYS} | {
        "accept_prob": None,
        "continuation": np.pad(ours[:, 1:], ((0, 0), (0, 1)), constant_values=-1),
        "tokens_left": np.ones(len(ours), np.int32),
        "text": np.arange(len(ours), dtype=np.int32),
    }
    again = dataclasses.replace(one, **columns)
    committed = np.minimum(traces.accepted(again, CYCLE).astype(int) + 1, 2)
    wanted = traces.expected(one, CYCLE)[0]
    deviation = committed.std(axis=0) / len(ours) ** 0.5 + 1e-9
    assert len(ours) > 2000 and wanted.max() > 1.2
    assert np.max(np.abs(committed.mean(axis=0) - wanted) / deviation) < 4.5


def test_without_chance_the_expected_tokens_are_the_tokens(plain_pair):
    pair = plain_pair.sampled(SamplingConfig(repetition_penalty=1.5))
    text = record.texts_of(pair, [PROMPTS[1].token], NEW)[0]
    pair = dataclasses.replace(pair, stop_tokens=(int(text[8]),))
    trace = recorded(pair)
    committed = np.minimum(traces.accepted(trace, CYCLE) + 1, trace.tokens_left[:, None, None])
    np.testing.assert_allclose(traces.expected(trace, CYCLE), committed, atol=1e-5)
    assert committed.max() > 1


def test_a_trace_without_probabilities_is_refused(hot):
    with pytest.raises(
        UserError, match="no acceptance probabilities; record it again with `accept_prob`"
    ):
        traces.expected(dataclasses.replace(hot[1], accept_prob=None), CYCLE)


def test_trees_of_one_level():
    cycle = dataclasses.replace(CYCLE, max_levels=1, sizes=(0, 2))
    pair = distribution.random_pair(X, cycle, seed=4).sampled(HOT, seed=3)
    trace = recorded(pair)
    text = record.texts_of(pair, [PROMPTS[0].token], NEW)[0]
    chance = chance_behind(pair, [*PROMPTS[0].token.tolist(), int(text[0])])
    for child in range(cycle.beam_width):
        token = int(trace.token[0, 0, 0, child])
        assert trace.accept_prob[0, 0, 0, child] == pytest.approx(chance[token], abs=1e-5)
