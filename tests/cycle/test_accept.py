"""The walk down a verified tree: decisions of a plain-Python twin, and the target's own law."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig, SamplingConfig
from ltd_jax.cycle import accept, sample, select
from ltd_jax.cycle.sample import SamplingState
from ltd_jax.cycle.tree import DraftTree
from tests.cycle import tiny
from tests.oracle import sample as oracle
from tests.oracle import tree as oracle_tree

X, LENGTH, ROOT = 6, 17, 4
SMALL = CycleConfig(beam_width=3, max_levels=3, sizes=(0, 9), context=16)
SETTINGS = {
    "cold": SamplingConfig(temperature=0.7),
    "hot": SamplingConfig(temperature=1.3, top_p=0.9, top_k=5),
    "penalty": SamplingConfig(temperature=1.0, repetition_penalty=1.3),
}
DRAWS = 20_000  # one number for all tests, so that they share what is compiled
SHAPES = ((0, 3), (1, 1), (2, 3), (4, 2), (9, 3))  # nodes and levels; 0 = the root alone
SIZE = SMALL.sizes[-1]
RULES = {"coupled": accept.coupled, "sequential": accept.sequential}


def pair_of(config):
    teacher = dataclasses.replace(tiny.CONFIG.target, vocab_size=X)
    student = dataclasses.replace(tiny.CONFIG.draft, vocab_size=X, draft_vocab_size=X)
    return dataclasses.replace(
        tiny.CONFIG, target=teacher, draft=student, cycle=SMALL, sampling=config
    )


_select = jax.jit(lambda tree, root: select.select(tree, root, SIZE, SMALL))


def tree_of(seed, nodes, levels):
    """The first nodes of a drawn tree, and random logits after every row."""
    random = np.random.default_rng(seed)
    flat = oracle_tree.drawn(random, 3, levels, (0.0, -0.5, -1.0), X)
    score, token, parent = oracle_tree.dense(flat, 3, SMALL.max_levels)
    tree = DraftTree(*map(jnp.asarray, (np.float32(score), np.int32(token), np.int32(parent))))
    candidates = jax.device_get(_select(tree, jnp.int32(ROOT)))
    present_T = candidates.present & (np.arange(SIZE + 1) <= nodes)
    logits_TX = np.float32(1.3 * random.normal(size=(SIZE + 1, X)))
    return candidates.replace(present=present_T), logits_TX


def start(config, key):
    seen = jnp.zeros((X,), bool).at[jnp.array([ROOT, 1])].set(True)
    return SamplingState(key, seen if config.repetition_penalty != 1 else None)


def walks(config, candidates, logits, keys, draw=None):
    """One walk per key, side by side."""
    return jax.device_get(_walks(config, draw, candidates, logits, keys).replace(sampling=None))


@functools.partial(jax.jit, static_argnames=("config", "draw"))
def _walks(config, draw, candidates, logits, keys):
    one = lambda key: accept.accept_sampled(
        pair_of(config), candidates, logits, jnp.int32(LENGTH), start(config, key), draw
    )
    return jax.vmap(one)(keys)


def children_of(candidates):
    """The distinct children of a row, in the order of rows."""
    rows = range(1, len(candidates.token))
    return lambda row: [
        (int(candidates.token[child]), child)
        for child in rows
        if candidates.present[child] and candidates.parent[child] == row
    ]


def chance_of(config, candidates, logits):
    """The target's probabilities after a row that was reached along a path."""

    def chance(row, path):
        seen = {ROOT, 1, *(int(candidates.token[node]) for node in path)}
        warped = oracle.scores(
            np.asarray(logits[row], float).tolist(),
            sorted(seen),
            config.temperature,
            config.repetition_penalty,
            config.top_p,
            config.top_k,
        )
        return oracle.probabilities(warped)

    return chance


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("rule", RULES)
def test_decisions_are_the_twins_with_the_same_random_numbers(name, rule):
    config, rejections = SETTINGS[name], 0
    candidates, logits = tree_of(3, 9, 3)
    keys = jax.random.split(jax.random.key(8), DRAWS)
    found, chance = (
        walks(config, candidates, logits, keys, RULES[rule]),
        chance_of(config, candidates, logits),
    )
    for index, numbers in enumerate(zip(*jax.device_get(random_numbers(keys[:150])), strict=True)):

        def draw(depth, chance, children, numbers=numbers):
            nonlocal rejections
            noise, uniforms, rest = (one[depth].tolist() for one in numbers)
            if rule == "coupled":
                return oracle.test_children(chance, [], [], noise)[0]
            token, rejected = oracle.test_children(chance, children, uniforms, rest)
            rejections += rejected
            return token

        path, token = oracle.walk(chance, children_of(candidates), draw)
        accepted = int(found.accepted[index])
        assert found.path[index][1 : accepted + 1].tolist() == path
        assert int(found.next_token[index]) == token
    assert 30 < found.accepted.sum() and (rejections > 30 or rule == "coupled")


@jax.jit
def random_numbers(keys):
    """Per key and depth: noise of a draw; uniforms of tests and noise of the draw behind."""

    def at(key, depth):
        here = jax.random.fold_in(key, LENGTH + 1 + depth)
        tests, rest = jax.random.split(here)
        noise = lambda key: jax.random.gumbel(key, (X,), jnp.float32)
        return noise(here), jax.random.uniform(tests, (3,)), noise(rest)

    depths = jnp.arange(SMALL.path_length)
    return jax.vmap(lambda key: jax.vmap(lambda depth: at(key, depth))(depths))(keys)


def outcomes(config, candidates, logits):
    """Every end of a walk, (accepted rows, token), with its probability, the target's own."""
    chance, children = chance_of(config, candidates, logits), children_of(candidates)

    def behind(row, path, so_far):
        inner = dict(children(row))
        for token, share in enumerate(chance(row, path)):
            if token in inner:
                yield from behind(inner[token], (*path, inner[token]), so_far * share)
            else:
                yield (path, token), so_far * share

    return dict(behind(0, (), 1.0))


def p_value(counts, law):
    """Chi-square; impossible outcomes must not occur."""
    keys = [key for key, share in law.items() if share > 0]
    draws = sum(counts.values())
    assert sum(counts.get(key, 0) for key in keys) == draws
    wanted = np.array([draws * law[key] for key in keys])
    observed = np.array([counts.get(key, 0) for key in keys])
    statistic = float(((observed - wanted) ** 2 / wanted)[wanted > 5].sum())
    freedom = int((wanted > 5).sum()) - (wanted > 5).all()
    return float(jax.scipy.special.gammaincc(freedom / 2, statistic / 2))


def counted(found):
    """How often a walk ended how."""
    counts = {}
    ends = zip(found.accepted, found.path, found.next_token, strict=True)
    for accepted, path, token in ends:
        key = (tuple(path[1 : accepted + 1].tolist()), int(token))
        counts[key] = counts.get(key, 0) + 1
    return counts


def p_values(rule, names=tuple(SETTINGS)):
    """Of every setting and shape of the tree."""
    found = []
    for number, name in enumerate(names):
        config = SETTINGS[name]
        for nodes, levels in SHAPES:
            candidates, logits = tree_of(100 * nodes + number, nodes, levels)
            keys = jax.random.split(jax.random.key(10 * number + nodes), DRAWS)
            done = walks(config, candidates, logits, keys, rule)
            law = outcomes(config, candidates, logits)
            assert math.isclose(sum(law.values()), 1)
            found.append(p_value(counted(done), law))
    return np.sort(found)


@pytest.mark.parametrize("rule", RULES)
def test_walks_have_the_targets_own_law(rule):
    found = p_values(RULES[rule])
    assert uniform(found), found


def uniform(p_values_sorted):
    """Kolmogorov-Smirnov at a level of about 0.1 %, and no value that is a refutation alone."""
    count = len(p_values_sorted)
    above = np.arange(1, count + 1) / count - p_values_sorted
    below = p_values_sorted - np.arange(count) / count
    return max(above.max(), below.max()) < 1.95 / count**0.5 and p_values_sorted[0] > 1e-4


def without_renormalising(score_X, children, key, config):
    """The wrong rule: a test of p over q = 1 in which the rejected ones leave no trace."""
    chance_X, (tests, rest) = sample.probabilities(score_X), jax.random.split(key)
    width = children.token.shape[0]
    if not width:
        return sample.draw(score_X, key, config)
    passes_W = children.present & (jax.random.uniform(tests, (width,)) < chance_X[children.token])
    rejected_X = jnp.zeros((X,), bool).at[children.token].max(children.present)
    left = sample.draw(jnp.where(rejected_X, sample.NEG_INF, score_X), rest, config)
    return jnp.where(passes_W.any(), children.token[jnp.argmax(passes_W)], left)


def test_a_wrong_rule_fails_the_same_test():
    found = p_values(without_renormalising, ("cold",))
    assert not uniform(found) and found[1] < 1e-6  # trees in which a node has several children


@pytest.mark.parametrize("rule", RULES)
def test_a_node_is_reached_with_the_product_of_the_targets_probabilities(rule):
    """So a cycle's expected accepted tokens are the sum of these products over its nodes."""
    config, draws = SETTINGS["penalty"], DRAWS
    candidates, logits = tree_of(11, 9, 3)
    keys = jax.random.split(jax.random.key(2), draws)
    found = walks(config, candidates, logits, keys, RULES[rule])
    chance, product = chance_of(config, candidates, logits), {0: ((), 1.0)}
    for row in range(1, 10):
        above, so_far = product[int(candidates.parent[row])]
        inner = chance(int(candidates.parent[row]), above)
        product[row] = ((*above, row), so_far * inner[int(candidates.token[row])])
        on_path = (found.path[:, 1:] == row) & (np.arange(1, 4) <= found.accepted[:, None])
        share, wanted = on_path.any(axis=1).mean(), product[row][1]
        assert abs(share - wanted) < 4.5 * (wanted * (1 - wanted) / draws) ** 0.5 + 1e-9
    total = sum(share for _, share in product.values()) - 1
    assert found.accepted.mean() == pytest.approx(total, abs=4.5 * 3 / draws**0.5)


def test_a_child_that_is_certain_is_always_taken():
    candidates, _ = tree_of(3, 9, 3)
    sure = np.full((10, X), -80.0, np.float32)
    for row in range(10):
        below = [int(token) for token, _ in children_of(candidates)(row)]
        sure[row, below[-1] if below else 0] = 80.0
    keys = jax.random.split(jax.random.key(0), DRAWS)
    for rule in RULES.values():
        found = walks(SETTINGS["cold"], candidates, sure, keys, rule)
        assert len(set(map(tuple, found.path.tolist()))) == 1 and found.accepted.min() > 0


def test_the_texts_tokens_are_marked_as_seen():
    config = SETTINGS["penalty"]
    candidates, logits = tree_of(3, 9, 3)
    keys = jax.random.split(jax.random.key(1), DRAWS)
    found = _walks(config, accept.sequential, candidates, logits, keys)
    seen, ends = np.asarray(found.sampling.seen), found.replace(sampling=None)
    ends, token = jax.device_get(ends), np.asarray(candidates.token)
    for row in range(40):
        path = token[ends.path[row][1 : ends.accepted[row] + 1]]
        assert set(np.flatnonzero(seen[row])) == {ROOT, 1, ends.next_token[row], *path}
