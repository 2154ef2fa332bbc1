"""Weights in blocks of columns: the layout that CPU kernels read in order, without a copy.

For a few rows, XLA's CPU kernels first copy a weight [E, F] into panels of columns, in every call:
a pass over 4 rows then costs 1.5 to 2 passes over one, though both read the same weights once. A
weight kept as [F / 64, E, 64] *is* these panels, and the compiled loop over one holds the sums of
all its columns for a few rows in registers while it reads the panel once (measured on a target of
9 M parameters: 2 rows cost as much as one, 4 rows 1.2 times; 16 columns 2.4 times, for want of sums
to keep the processor busy; 128 columns 2 times, for want of registers). Maps that read the same
input are joined as well: one product for queries, keys and values, one for gate and up. GPUs and
TPUs keep [E, F].

    [E, F]            c0 c1 ... c63 | c64 ... c127 | ...   one row of memory per e
    [F / 64, E, 64]   every panel lies in one piece: its 64 columns at e = 0, at e = 1, ...
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
    """Maps of one input, side by side, as [F / 64, E, 64]; [E, F] if F is no multiple of 64."""
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
