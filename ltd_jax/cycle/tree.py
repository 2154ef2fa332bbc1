"""The draft tree as dense blocks: level, frontier slot, child *is* the index (paper Sec. 3.2).

Level 1 (block 0) has one frontier slot, the root, so only its slot 0 holds nodes. In every later
block, slot r expands the r-th best node of the level above. A node's flat index is
level * W * W + slot * W + child; a parent's flat index is always lower than its children's.
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.policies.policy import NO_NODE


@struct.dataclass
class DraftTree:
    """All candidates of one cycle."""

    log_prob: jax.Array  # [D, W, W] f32 cumulative, -inf = no node
    token: jax.Array  # [D, W, W] i32 target token ids
    parent: jax.Array  # [D, W] i32, slot * W + child of the slot's node in the level above


def empty(config: CycleConfig) -> DraftTree:
    """A tree without nodes."""
    D, W = config.max_levels, config.beam_width
    return DraftTree(
        log_prob=jnp.full((D, W, W), NO_NODE, jnp.float32),
        token=jnp.zeros((D, W, W), jnp.int32),
        parent=jnp.zeros((D, W), jnp.int32),
    )


def write_level(
    tree: DraftTree,
    level: jax.Array | int,
    log_prob_WW: jax.Array,
    token_WW: jax.Array,
    parent_W: jax.Array,
) -> DraftTree:
    """Puts one level's block in place; `level` counts from 0."""
    put = jax.lax.dynamic_update_index_in_dim
    return DraftTree(
        log_prob=put(tree.log_prob, log_prob_WW, level, 0),
        token=put(tree.token, token_WW, level, 0),
        parent=put(tree.parent, parent_W, level, 0),
    )


def parent_index(tree: DraftTree) -> jax.Array:
    """Flat index [N] i32 of every node's parent, -1 for children of the root."""
    D, W = tree.parent.shape
    above_D1 = jnp.arange(-1, D - 1)[:, None] * W * W
    index_DW = jnp.where(jnp.arange(D)[:, None] > 0, above_D1 + tree.parent, -1)
    return jnp.repeat(index_DW.reshape(-1), W)
