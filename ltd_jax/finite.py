"""NaN and infinity: where they are found on the host, and one number for compiled programs.

A number that is not finite comes from damaged weights, a dtype too narrow for them, a learning rate
too high, or a compiler's mistake, and all that is computed from it is as wrong. So nothing that
enters or leaves may hold one: what is recorded, measured, learned, saved and decoded is refused
with a sentence that names the place (`files.require_finite` for what the host has at hand).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def all_finite(tree: Any) -> jax.Array:
    """bool []: whether all floating point numbers of a tree are finite.

    One sum per array, for compiled programs: a finite number times 0 is 0, any other is NaN.
    """
    sums = [
        jnp.sum(leaf * 0, dtype=jnp.float32)
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.isfinite(jnp.sum(jnp.stack(sums))) if sums else jnp.bool_(True)


def first_fault(tree: Any) -> str | None:
    """The first number of a tree that is not finite, as in "rows[2].rate is nan"; None = none is.

    Args:
      tree: of arrays or numbers of Python; an array of which other processes hold parts is passed
        over.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            continue
        if not jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating):
            continue
        array = np.asarray(leaf)
        is_finite = np.isfinite(array)
        if not is_finite.all():
            place = np.unravel_index(int(np.argmin(is_finite)), array.shape)
            index = f"[{', '.join(map(str, place))}]" if place else ""
            return f"{_name(path)}{index} is {_word(float(array[place]))}"
    return None


def _name(path: tuple[Any, ...]) -> str:
    """A leaf's place in its tree, as in "depth.params.Dense_0.kernel" or "rows[2].rate"."""
    parts = [
        f"[{key.idx}]"
        if isinstance(key, jax.tree_util.SequenceKey)
        else f".{getattr(key, 'key', getattr(key, 'name', key))}"
        for key in path
    ]
    return "".join(parts).removeprefix(".") or "it"


def _word(number: float) -> str:
    return "nan" if math.isnan(number) else "infinite"
