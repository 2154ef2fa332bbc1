"""Weights in blocks of columns: the layout that CPU kernels read in order, without a copy.

For a few rows, XLA's CPU kernels first copy a weight [E, F] into panels of 16 columns, in every
call: a pass over 2 to 8 rows then costs two to three passes over one, though all read the same
weights once. A weight kept as [F / 16, E, 16] *is* these panels. Maps that read the same input are
joined as well: one product for queries, keys and values, one for gate and up. GPUs and TPUs keep
[E, F].

    [E, F]            c0 c1 ... c15 | c16 ... c31 | ...   one row of memory per e
    [F / 16, E, 16]   every panel lies in one piece: its 16 columns at e = 0, at e = 1, ...
"""

from typing import Any

import jax
import jax.numpy as jnp

from ltd_jax.models.draft import DraftParams
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.layers import PANEL
from ltd_jax.models.target import TargetParams


def wanted(dtype: jnp.dtype) -> bool:
    """Whether this layout is the fast one here: f32 on one CPU."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1 and dtype == jnp.float32


@jax.jit
def blocked(*weights_EF: jax.Array) -> jax.Array:
    """Maps of one input, side by side, as [F / 16, E, 16]; [E, F] if F is no multiple of 16."""
    joined_EF = jnp.concatenate(weights_EF, axis=1)
    E, F = joined_EF.shape
    if F % PANEL:
        return joined_EF
    return jnp.transpose(joined_EF.reshape(E, F // PANEL, PANEL), (1, 0, 2))


def block_target(params: TargetParams) -> TargetParams:
    """All linear maps of a target, joined and in blocks; a tied head stays the embedding."""
    return params.replace(
        layers=tuple(block_layer(layer) for layer in params.layers),
        head=None if params.head is None else blocked(params.head),
    )


def block_draft(params: DraftParams) -> DraftParams:
    """All linear maps of a draft, joined and in blocks; a Griffin draft's head is the target's."""
    layer, fuse = block_layer(params), blocked(params.fuse)
    if isinstance(params, Eagle3Params):
        return layer.replace(fuse=fuse, head=blocked(params.head))
    guides = {"guide_up": blocked(params.guide_up), "guide_down": blocked(params.guide_down)}
    return layer.replace(fuse=fuse, **guides)


def block_layer(layer: Any) -> Any:
    """The maps of one decoder layer (`LayerParams` or `DraftParams`), joined and in blocks."""
    return layer.replace(
        q=blocked(layer.q, layer.k, layer.v),
        k=None,
        v=None,
        o=blocked(layer.o),
        gate=blocked(layer.gate, layer.up),
        up=None,
        down=blocked(layer.down),
    )
