"""Controllers: whatever chooses `levels` and `size`, as pure functions over their own state.

Baselines are controllers, not forks of the decoder. What a controller decides with (`params`) and
what it remembers (`state`) are pytrees, so one compiled cycle serves every setting of a controller.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig


@struct.dataclass
class LevelView:
    """What there is to see after a draft pass."""

    score: jax.Array  # [W, W] f32 cumulative log-probabilities of the newest level, -inf = no node
    levels: jax.Array  # i32 [] draft passes done in this cycle, >= 1
    length: jax.Array  # i32 [] committed tokens before the root


@struct.dataclass
class TreeView:
    """What there is to see when drafting has stopped."""

    score: jax.Array  # [D, W, W] f32 cumulative log-probabilities, -inf = no node
    levels: jax.Array  # i32 []
    length: jax.Array  # i32 []


@struct.dataclass
class Outcome:
    """What a cycle gave."""

    levels: jax.Array  # i32 []
    size: jax.Array  # i32 [] index into config.sizes
    accepted: jax.Array  # i32 []


class Controller(NamedTuple):
    """Pure functions; `params` is any pytree, `state` starts as `init()` for every sequence."""

    init: Callable[[], Any]
    keep_drafting: Callable[[Any, Any, LevelView], jax.Array]  # params, state, view -> bool []
    choose_size: Callable[[Any, Any, TreeView], jax.Array]  # -> i32 [], index into config.sizes
    update: Callable[[Any, Outcome], Any]  # state, outcome -> state


@struct.dataclass
class ConstantParams:
    """A fixed setting; traced, so that all constants share one compiled cycle."""

    levels: jax.Array  # i32 []
    size: jax.Array  # i32 [] index into config.sizes


@functools.cache
def constant() -> Controller:
    """The same levels and size in every cycle (EAGLE-3's way); params are `ConstantParams`.

    Always the same object, so that what was compiled with it is found again.
    """
    return Controller(
        init=lambda: (),
        keep_drafting=lambda params, state, view: view.levels < params.levels,
        choose_size=lambda params, state, view: params.size,
        update=lambda state, outcome: state,
    )


def constant_params(levels: int, size: int, config: CycleConfig) -> ConstantParams:
    """Parameters of `constant` for a number of levels and a size of `config.sizes`.

    Raises:
      ValueError: the config has no such levels or size.
    """
    if not 1 <= levels <= config.max_levels:
        raise ValueError(f"levels must lie in 1..{config.max_levels}, not {levels}.")
    if size not in config.sizes:
        raise ValueError(f"size {size} is not one of the compiled sizes {config.sizes}.")
    return ConstantParams(jnp.int32(levels), jnp.int32(config.sizes.index(size)))
