import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from ltd_jax.config import CycleConfig
from ltd_jax.cycle import prefill, select, verify
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.models import kv_cache
from tests.cycle import tiny
from tests.oracle import cycle as oracle_cycle
from tests.oracle import tree as oracle

SMALL = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 9), context=16)
SIZES = (0, 2, 9, 30)  # the last is more than a tree of three levels has
SEED = 3
PAIR = dataclasses.replace(tiny.CONFIG, cycle=dataclasses.replace(tiny.CONFIG.cycle, sizes=(0, 12)))


@jax.jit
def judged(tree, root, choice_TT):
    """Candidates and verdicts of every size; the target's choices come as one row per size."""
    found = []
    for size, choice_T in zip(SIZES, choice_TT, strict=True):
        candidates = select.select(tree, root, size, SMALL)
        verdict = verify.accept_greedy(candidates, choice_T[: size + 1], SMALL.path_length)
        found.append((candidates, verdict))
    return found


def choices(random, candidates):
    """A target that mostly agrees with one of the children of a node, absent ones included."""
    choice_T = random.integers(0, 5, len(candidates.token))
    for row in range(1, len(candidates.token)):
        if random.random() < 0.6:
            choice_T[candidates.parent[row]] = candidates.token[row]
    return choice_T.astype(np.int32)


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(seed=strategies.integers(0, 10**6), levels=strategies.integers(1, 4))
def test_greedy_acceptance_finds_the_oracles_longest_path(seed, levels):
    random, width = np.random.default_rng(seed), SMALL.beam_width
    flat = oracle.drawn(random, width, levels, (0.0, -0.5, -1.0), 5)
    score, token, parent = oracle.dense(flat, width, SMALL.max_levels)
    tree = DraftTree(*map(jnp.asarray, (np.float32(score), np.int32(token), np.int32(parent))))
    blank = [np.zeros(size + 1, np.int32) for size in SIZES]
    chosen = [one for one, _ in jax.device_get(judged(tree, np.int32(4), blank))]
    choice_TT = [choices(random, one) for one in chosen]
    for (one, verdict), choice_T in zip(
        jax.device_get(judged(tree, np.int32(4), choice_TT)), choice_TT, strict=True
    ):
        rows = np.flatnonzero(one.present)
        node = {row: place for place, row in enumerate(rows)}
        path, next_token = oracle.evaluate_posterior(
            one.token[rows].tolist(),
            [node[above] for above in one.parent[rows]],
            choice_T[rows].tolist(),
        )
        assert verdict.accepted == len(path) - 1
        assert verdict.path[: len(path)].tolist() == rows[path].tolist()
        assert verdict.next_token == next_token


@pytest.fixture(scope="module")
def verified():
    """Both sizes verified at several places of a text, with the cache before and the oracle's."""
    pair, text = tiny.pair(SEED), tiny.texts(SEED)[1]
    pair = dataclasses.replace(pair, model=pair.model.replace(config=PAIR))
    run = jax.jit(verify.verify)
    found = []
    for root in (8, 13, 20, 27, 33):
        flat = oracle.grow(tiny.reader(SEED, text[: root + 1]), tiny.offsets(SEED), 4, 5)
        score, token, parent = oracle.dense(flat, 4, 5)
        tree = DraftTree(np.float32(score), np.int32(token), np.int32(parent))
        cache = prefill.prefill(pair, np.array(text[:root])).target_cache
        for index, size in enumerate(PAIR.cycle.sizes):
            one = run(pair.model, tree, np.int32(text[root]), np.int32(index), cache)
            found.append((root, oracle.select(flat, text[root], size, 4), one, cache))
    return found


def test_verify_equals_the_oracles_tree_pass(verified):
    text, weights = tiny.texts(SEED)[1], tiny.weights(SEED).target
    for root, chosen, one, _ in verified:
        logits, features = oracle_cycle.tree_pass(weights, tiny.CONFIG.target, text[:root], chosen)
        path, next_token = oracle.evaluate_posterior(
            chosen.token, chosen.parent, logits.argmax(-1).tolist()
        )
        accepted = len(path) - 1
        assert int(one.accepted) == accepted
        expected = [chosen.token[node] for node in path[1:]] + [next_token]
        assert one.token[: accepted + 1].tolist() == expected
        assert tuple(expected) == text[root + 1 : root + 2 + accepted]
        np.testing.assert_allclose(one.feature[: accepted + 1], features[path], atol=1e-3)


def test_accepted_rows_are_those_of_reading_the_text(verified):
    text, pair = tiny.texts(SEED)[1], tiny.pair(SEED)
    for root, _, one, cache in verified:
        committed = int(one.accepted) + 1
        longer = kv_cache.append(cache, one.rows, jnp.int32(committed))
        end = root + committed
        read = prefill.prefill(pair, np.array(text[:end])).target_cache
        assert int(longer.length) == end
        both = zip(longer.keys + longer.values, read.keys + read.values, strict=True)
        for found, expected in both:
            np.testing.assert_allclose(found[:, :end], expected[:, :end], atol=1e-4)


def test_the_places_accept_anything_from_nothing_to_many(verified):
    accepted = {int(one.accepted) for _, _, one, _ in verified}
    assert len(accepted) >= 3 and max(accepted) >= 2
