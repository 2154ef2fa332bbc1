"""One controller with four manners, chosen by its parameters: they share one compilation."""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.policies.policy import Controller
from tests.cycle import tiny

FIXED, DRAWN, WATCHFUL, EARLY = 0, 1, 2, 3
LEAST_SCORE = -4.0  # a watchful controller goes on while the best new node scores more
SHORT = 20  # an early controller drafts all levels, but only before so many tokens
SEED = 12345


@struct.dataclass
class MenuParams:
    """A manner, and the fixed manner's setting; `size` is an index into config.sizes."""

    manner: jax.Array  # i32 []
    levels: jax.Array  # i32 []
    size: jax.Array  # i32 []


def params(manner: int, levels: int = 1, size: int = 0) -> MenuParams:
    """Parameters; `size` is a number of nodes."""
    index = tiny.CONFIG.cycle.sizes.index(size)
    return MenuParams(jnp.int32(manner), jnp.int32(levels), jnp.int32(index))


def remember(memory, levels, size, accepted):
    """What the controller keeps of its past: a number that every cycle changes."""
    return (memory * 5 + 3 * levels + 7 * size + 11 * accepted) % 9973


def drawn_levels(memory):
    """Levels from the memory, 1..D."""
    return 1 + memory % tiny.CONFIG.cycle.max_levels


def drawn_size(memory):
    """Size index from the memory."""
    return memory // 7 % len(tiny.CONFIG.cycle.sizes)


def _keep_drafting(chosen, memory, view):
    going = [
        view.levels < chosen.levels,
        view.levels < drawn_levels(memory),
        jnp.max(view.score) > LEAST_SCORE,
        view.length < SHORT,
    ]
    return jnp.stack(going)[chosen.manner]


def _choose_size(chosen, memory, view):
    likely = jnp.sum(view.score > LEAST_SCORE)
    fitting = jnp.searchsorted(jnp.asarray(tiny.CONFIG.cycle.sizes), likely, side="right") - 1
    early = jnp.where(view.length < SHORT, chosen.size, 0)
    sizes = [chosen.size, drawn_size(memory), fitting, early]
    return jnp.stack(sizes)[chosen.manner].astype(jnp.int32)


CONTROLLER = Controller(
    init=lambda: jnp.int32(SEED % 9973),
    keep_drafting=_keep_drafting,
    choose_size=_choose_size,
    update=lambda memory, outcome: remember(
        memory, outcome.levels, outcome.size, outcome.accepted
    ).astype(jnp.int32),
)
