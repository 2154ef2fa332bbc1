"""Views that policies decide by, with every field filled in."""

import functools

import jax
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


class Asked:
    """A policy whose compiled methods are asked one after the other, for one cycle's shapes."""

    def __init__(self, policy, config):
        policy.check(config)
        self.policy, self.config = policy.traced(), config

    def init_history(self):
        return self.policy.init_history(self.config)

    def observe_level(self, history, view):
        return _ask("observe_level", self.policy, history, view, self.config)

    def keep_drafting(self, history, view):
        return bool(_ask("keep_drafting", self.policy, history, view, self.config))

    def choose_size(self, history, view):
        """The number of nodes."""
        index = _ask("choose_size", self.policy, history, view, self.config)
        return self.config.sizes[int(index)]

    def priority(self, history, view):
        return np.asarray(_ask("priority", self.policy, history, view, self.config))

    def update_history(self, history, outcome):
        return _ask("update_history", self.policy, history, outcome, self.config)


@functools.partial(jax.jit, static_argnames=("method", "config"))
def _ask(method, policy, history, seen, config):
    return getattr(policy, method)(history, seen, config)
