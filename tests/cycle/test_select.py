import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies

from ltd_jax.config import CycleConfig
from ltd_jax.cycle import select
from ltd_jax.cycle.tree import DraftTree
from tests.oracle import tree as oracle

CONFIG = CycleConfig(beam_width=3, max_levels=3, sizes=(0, 27), context=16)
ROOT = 63
TIES = ((0.0,), (-1.0,), (0.0, -1.0), (0.0, -0.5, -1.0), tuple(-np.geomspace(1e-3, 9, 50)))


@jax.jit
def every_prefix(tree, root):
    """The candidates of every size: all prefixes of the ranking."""
    return [select.select(tree, root, size, CONFIG) for size in range(CONFIG.node_count + 1)]


def drawn_tree(seed, levels, steps):
    """A tree as the oracle keeps it and as the cycle does, with noise where no node is."""
    random, width = np.random.default_rng(seed), CONFIG.beam_width
    flat = oracle.drawn(random, width, levels, steps, 8)
    score, token, parent = oracle.dense(flat, width, CONFIG.max_levels)
    token = np.where(score > -np.inf, token, random.integers(0, 8, token.shape))
    parent[0] = random.integers(0, width**2, width)
    parent[levels:] = random.integers(0, width**2, parent[levels:].shape)
    blocks = (score.astype(np.float32), token.astype(np.int32), parent.astype(np.int32))
    return flat, DraftTree(*blocks)


def ancestors(parent, row):
    """A row, its parent and so on, by recursion."""
    return {0} if row == 0 else {row} | ancestors(parent, parent[row])


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    seed=strategies.integers(0, 10**6),
    levels=strategies.integers(1, CONFIG.max_levels),
    steps=strategies.sampled_from(TIES),
)
def test_every_prefix_of_the_ranking_is_parent_closed_and_the_oracles(seed, levels, steps):
    flat, tree = drawn_tree(seed, levels, steps)
    for size, chosen in enumerate(jax.device_get(every_prefix(tree, np.int32(ROOT)))):
        rows = np.flatnonzero(chosen.present)
        expected = oracle.select(flat, ROOT, min(size, len(flat.score)), CONFIG.beam_width)
        assert chosen.token.shape == (size + 1,)
        assert chosen.token[rows].tolist() == expected.token
        assert chosen.parent[rows].tolist() == rows[expected.parent].tolist()
        assert chosen.depth[rows].tolist() == expected.depth
        assert set(chosen.parent[rows]) <= set(rows)
        for row in rows:
            assert set(np.flatnonzero(chosen.mask[row])) == ancestors(chosen.parent, row)
        np.testing.assert_array_equal(chosen.mask[np.ix_(rows, rows)], expected.mask)


def test_absent_nodes_are_seen_by_no_node():
    flat, tree = drawn_tree(3, 1, (-1.0, -2.0))
    chosen = jax.device_get(every_prefix(tree, np.int32(ROOT)))[-1]
    assert chosen.present.sum() == 1 + len(flat.score)
    assert not chosen.mask[chosen.present][:, ~chosen.present].any()
    assert np.all(chosen.depth <= CONFIG.max_levels)


@pytest.mark.parametrize("levels", [1, 3])
def test_the_root_stands_first_and_alone_at_size_zero(levels):
    _, tree = drawn_tree(1, levels, (0.0, -1.0))
    alone = every_prefix(tree, np.int32(ROOT))[0]
    assert alone.token.tolist() == [ROOT]
    assert alone.depth.tolist() == alone.parent.tolist() == [0]
    assert alone.mask.tolist() == [[True]]
