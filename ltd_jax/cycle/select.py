"""Select: the `size` nodes with the highest cumulative probability go to the target (Sec. 3.2).

A child never scores above its parent and ties go to the lower index, so the chosen set always
contains the parent of each of its nodes. Chosen nodes are sorted by index: parents come first.

    node      0 1 2 3      0 = root, 1 and 2 its children, 3 the child of 2
    mask      1 0 0 0
              1 1 0 0
              1 0 1 0
              1 0 1 1      row = a node, column = what it sees: its ancestors and itself
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.cycle import tree as trees
from ltd_jax.cycle.tree import DraftTree


@struct.dataclass
class Candidates:
    """The root and the chosen nodes, T = size + 1 rows; row 0 is the root."""

    token: jax.Array  # [T] i32
    parent: jax.Array  # [T] i32 row of the parent, the root's own is 0
    depth: jax.Array  # [T] i32, 0 for the root
    present: jax.Array  # [T] bool, False where the tree had fewer nodes
    mask: jax.Array  # [T, T] bool, ancestors and self


def select(tree: DraftTree, root: jax.Array, size: int, config: CycleConfig) -> Candidates:
    """The root and the `size` best nodes of a tree; `size` fixes the shapes."""
    if size == 0:
        return _root_alone(root)
    log_prob_N = tree.log_prob.reshape(-1)
    best_V = jnp.sort(jax.lax.top_k(log_prob_N, size)[1])
    present_V = log_prob_N[best_V] > trees.NO_NODE
    row_N = jnp.zeros(log_prob_N.shape, jnp.int32).at[best_V].set(jnp.arange(1, size + 1))
    parent_V = trees.parent_index(tree)[best_V]
    parent_row_V = jnp.where((parent_V >= 0) & present_V, row_N[parent_V], 0)
    parent_T = jnp.concatenate([jnp.zeros((1,), jnp.int32), parent_row_V])
    mask = ancestors(parent_T, config.max_levels)
    return Candidates(
        token=jnp.concatenate([root[None], tree.token.reshape(-1)[best_V]]),
        parent=parent_T,
        depth=jnp.sum(mask, axis=1) - 1,
        present=jnp.concatenate([jnp.ones((1,), bool), present_V]),
        mask=mask,
    )


def _root_alone(root: jax.Array) -> Candidates:
    row = jnp.zeros((1,), jnp.int32)
    return Candidates(root[None], row, row, jnp.ones((1,), bool), jnp.ones((1, 1), bool))


def ancestors(parent_T: jax.Array, max_levels: int) -> jax.Array:
    """Ancestors and self [T, T] by pointer doubling: after i rounds, 2**i generations are in."""
    T = parent_T.shape[0]
    mask = jnp.eye(T, dtype=bool)
    pointer_T = parent_T
    for _ in range(max_levels.bit_length()):
        mask = mask | mask[pointer_T]
        pointer_T = pointer_T[pointer_T]
    return mask
