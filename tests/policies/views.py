"""Views that policies decide by, with every field filled in."""

import jax.numpy as jnp
import numpy as np

from ltd_jax.policies.policy import LevelView, TreeView


def level(score_WW, levels: int, *, length: int = 5, entropy_W=None, hidden_WE=None, parent_W=None):
    """A level's view; what is not given is zero."""
    score_WW = jnp.asarray(score_WW, jnp.float32)
    W = score_WW.shape[0]
    return LevelView(
        log_prob=score_WW,
        levels=jnp.int32(levels),
        length=jnp.int32(length),
        entropy=jnp.asarray(np.zeros(W) if entropy_W is None else entropy_W, jnp.float32),
        hidden=jnp.asarray(np.zeros((W, 3)) if hidden_WE is None else hidden_WE, jnp.float32),
        root_entropy=jnp.float32(0),
        parent=jnp.asarray(np.zeros(W) if parent_W is None else parent_W, jnp.int32),
    )


def tree(score_DWW, levels: int, *, length: int = 5, entropy_DW=None, parent_DW=None):
    """A tree's view; what is not given is zero."""
    score_DWW = jnp.asarray(score_DWW, jnp.float32)
    rows = score_DWW.shape[:2]
    return TreeView(
        log_prob=score_DWW,
        levels=jnp.int32(levels),
        length=jnp.int32(length),
        entropy=jnp.asarray(np.zeros(rows) if entropy_DW is None else entropy_DW, jnp.float32),
        root_entropy=jnp.float32(0),
        parent=jnp.asarray(np.zeros(rows) if parent_DW is None else parent_DW, jnp.int32),
    )
