"""One policy with four manners, chosen by its leaves: they share one compilation."""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.policies.policy import Policy
from tests.cycle import tiny

FIXED, DRAWN, WATCHFUL, EARLY = 0, 1, 2, 3
LEAST_LOG_PROB = -4.0  # a watchful policy goes on while the best new node has more
SHORT = 20  # an early policy drafts all levels, but only before so many tokens
START = 12345 % 9973


@struct.dataclass
class Menu(Policy):
    """A manner, and the fixed manner's setting."""

    manner: jax.Array  # i32 []
    levels: jax.Array  # i32 []
    size_index: jax.Array  # i32 []

    def init_history(self, config):
        return jnp.int32(START)

    def keep_drafting(self, history, view, config):
        going = [
            view.levels < self.levels,
            view.levels < drawn_levels(history),
            jnp.max(view.log_prob) > LEAST_LOG_PROB,
            view.length < SHORT,
        ]
        return jnp.stack(going)[self.manner]

    def choose_size(self, history, view, config):
        likely = jnp.sum(view.log_prob > LEAST_LOG_PROB)
        fitting = jnp.searchsorted(jnp.asarray(config.sizes), likely, side="right") - 1
        early = jnp.where(view.length < SHORT, self.size_index, 0)
        sizes = [self.size_index, drawn_size(history), fitting, early]
        return jnp.stack(sizes)[self.manner].astype(jnp.int32)

    def update_history(self, history, outcome, config):
        kept = remember(history, outcome.levels, outcome.size_index, outcome.accepted)
        return kept.astype(jnp.int32)


def policy(manner: int, levels: int = 1, size: int = 0) -> Menu:
    """A policy of a manner; `size` is a number of nodes."""
    index = tiny.CONFIG.cycle.sizes.index(size)
    return Menu(jnp.int32(manner), jnp.int32(levels), jnp.int32(index))


def remember(history, levels, size_index, accepted):
    """The policy's past as a number that every cycle changes."""
    return (history * 5 + 3 * levels + 7 * size_index + 11 * accepted) % 9973


def drawn_levels(history):
    """Levels from the history, 1..D."""
    return 1 + history % tiny.CONFIG.cycle.max_levels


def drawn_size(history):
    """Size index from the history."""
    return history // 7 % len(tiny.CONFIG.cycle.sizes)
