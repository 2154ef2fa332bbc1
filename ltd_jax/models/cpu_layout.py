"""Weights in panels of columns: the layout that CPU kernels read in order, without a copy.

For a few rows, XLA's CPU kernels first copy a weight [E, F] into panels of columns, in every call:
a pass over 4 rows then costs 1.5 to 2 passes over one, though both read the same weights once. A
weight kept as [F / P, E, P] *is* these panels, and is read where it lies. P is as wide as the
kernel's sums: 64 columns with AVX-512, else 16. Maps that read the same input are joined as well:
one product for queries, keys and values, one for gate and up. GPUs and TPUs keep [E, F].

    [E, F]           c0 c1 ... | cP cP+1 ... | c2P ...   one row of memory per e
    [F / P, E, P]    every panel lies in one piece: its P columns at e = 0, at e = 1, ...

A kernel sums five rows at a time and reads its panel again for each five, so a product takes a
panel in pieces that a core's first cache holds (`layers.linear`); they lie in the panel as they
are. The linear maps of SmolLM2-135M, without its head, on two cores with AVX-512 (jax 0.10.2):

    milliseconds, rows       1    4    8   16   32
    [E, F]                  17   25   29   36   56
    panels of 64            15   19   31   49   90
    in pieces               15   18   24   32   54

A head that is tied to the embedding gets a copy in panels: 4 instead of 8 ms for 4 rows. With AVX2
the maps of a target of 9 M parameters took 2.8 and 4.1 ms for one row and four (panels of 64: 3.8
and 8.4, [E, F]: 3.3 and 6.7). In bfloat16 half as much is read and about as much time taken, with
jax 0.12 less; sums and the head are float32 there.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ltd_jax import files
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.layers import WIDE_PANEL, Maps
from ltd_jax.models.target import TargetParams


def is_faster(dtype: jnp.dtype) -> bool:
    """True where this layout is the fast one: f32 and bf16 on one CPU."""
    is_one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    return is_one_cpu and dtype in (jnp.float32, jnp.bfloat16)


def panel_width() -> int:
    """Columns of one panel that suit this CPU's vectors."""
    return WIDE_PANEL if files.vector_instructions() == "AVX-512" else 16


@functools.partial(jax.jit, static_argnames="width")
def in_panels(maps_EF: Maps, width: int) -> jax.Array:
    """Maps of one input, side by side, as [F / P, E, P]; [E, F] if F is no multiple of P."""
    joined_EF = jnp.concatenate(maps_EF, axis=1)
    E, F = joined_EF.shape
    if F % width:
        return joined_EF
    return jnp.transpose(joined_EF.reshape(E, F // width, width), (1, 0, 2))


def pack(*maps_EF: jax.Array) -> jax.Array:
    """Maps of one input, side by side, in panels for this CPU; see `in_panels`."""
    return in_panels(maps_EF, panel_width())


def pack_layer(layer: Any) -> Any:
    """A target's layer or a draft with the maps of their decoder layer joined and in panels."""
    return layer.replace(
        qkv=(pack(*layer.qkv),),
        o=pack(layer.o),
        gate_up=(pack(*layer.gate_up),),
        down=pack(layer.down),
    )


def pack_target(params: TargetParams) -> TargetParams:
    """All linear maps of a target, joined and in panels."""
    return params.replace(
        layers=tuple(pack_layer(layer) for layer in params.layers), head=pack_head(params)
    )


def pack_head(params: TargetParams) -> jax.Array:
    """The head of a target in panels of f32; of one that is tied to the embedding, a copy.

    XLA writes factors of 16 bits anew for its kernel in every call: of a whole vocabulary into
    memory that is fresh each time, at ten times the price (jax 0.10.2).
    """
    head_EX = params.embedding.T if params.head is None else params.head
    return pack(head_EX.astype(jnp.float32))


def pack_draft(params: DraftParams) -> DraftParams:
    """All linear maps of a draft, joined and in panels; a head of the target's stays as it is."""
    packed = pack_layer(params).replace(fuse=pack(params.fuse))
    if isinstance(params, Eagle3Params):
        head = params.head
        return packed.replace(
            head=head if head is None or head.ndim == 3 else pack(head),
            further=tuple(pack_layer(layer) for layer in params.further),
        )
    return packed.replace(guide_up=pack(params.guide_up), guide_down=pack(params.guide_down))
