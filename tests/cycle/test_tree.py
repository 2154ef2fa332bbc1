import hypothesis
import jax
import numpy as np
from hypothesis import strategies

from ltd_jax.config import CycleConfig
from ltd_jax.cycle import tree as trees
from ltd_jax.cycle.tree import DraftTree
from tests.oracle import tree as oracle

CONFIG = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 2), context=16)
SHAPE = (CONFIG.max_levels, CONFIG.beam_width, CONFIG.beam_width)
parent_index = jax.jit(trees.parent_index)


def test_an_empty_tree_has_no_nodes():
    tree = trees.empty(CONFIG)
    assert np.all(tree.log_prob == trees.NO_NODE)
    assert tree.log_prob.shape == tree.token.shape == SHAPE
    assert tree.parent.shape == SHAPE[:2]


def test_a_written_level_leaves_the_others_alone():
    score_WW, token_WW = np.full(SHAPE[1:], -1.0, np.float32), np.arange(9, dtype=np.int32)
    parent_W = np.array([5, 7, 1], np.int32)
    tree = trees.write_level(
        trees.empty(CONFIG), np.int32(2), score_WW, token_WW.reshape(3, 3), parent_W
    )
    np.testing.assert_array_equal(tree.log_prob[2], score_WW)
    np.testing.assert_array_equal(tree.token[2].reshape(-1), token_WW)
    np.testing.assert_array_equal(tree.parent[2], parent_W)
    others = np.array([0, 1, 3])
    assert np.all(tree.log_prob[others] == trees.NO_NODE)
    assert not np.any(tree.parent[others])


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(seed=strategies.integers(0, 10**6), levels=strategies.integers(1, 4))
def test_parents_equal_the_offset_arithmetic_of_the_flat_list(seed, levels):
    random, width = np.random.default_rng(seed), CONFIG.beam_width
    flat = oracle.drawn(random, width, levels, (0.0, -1.0, -0.5), 8)
    score, token, parent = oracle.dense(flat, width, CONFIG.max_levels)
    parent[0] = random.integers(0, width**2, width)  # the root's children have no parent to store
    found = np.asarray(parent_index(DraftTree(score, token, parent.astype(np.int32))))
    place = lambda one: one if one < width else one + width**2 - width
    for candidate in range(len(flat.score)):
        above = oracle.parent_of(flat, candidate, width)
        assert found[place(candidate)] == (-1 if above is None else place(above))
        assert found[place(candidate)] < place(candidate)
