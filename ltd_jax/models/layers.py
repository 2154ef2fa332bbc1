"""Parts that the target and the draft share: norm, attention, gated feed-forward.

Every function works on one sequence. Weights of linear maps are [in, out]: with the input as rows,
XLA's CPU and GPU kernels read them in order (measured 1.3-1.6x faster than [out, in] for 1-33 rows
on CPU). Attention keeps kv heads in front ([K, S, C]), so that the cache is never transposed.

Maps of one input stand side by side in one field (`qkv`, `gate_up`): an array for each, or one
array that holds the columns of all (models/cpu_layout.py). Only this file knows which.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import AnyDraftConfig, DraftConfig, TargetConfig
from ltd_jax.models import rope
from ltd_jax.models.kv_cache import Past

Maps = tuple[jax.Array, ...]  # of one input, side by side: one [in, out] each, or all in one array


MASKED = -1e30  # finite, so that a row without any visible key gives no NaN
WIDE_PANEL = 64  # columns of a panel with AVX-512, see models/cpu_layout.py
MOST_PACKED_ROWS = {16: 32, WIDE_PANEL: 256}  # by width; more rows are worth a copy into [E, F]
PIECE_BYTES = 2**15  # of a panel, at most: what a core's first cache holds
LONE_ROW_WEIGHTS = range(330_000, 8_000_000)  # of a map where one row is faster than a pair


@struct.dataclass
class LayerParams:
    """Weights of one decoder layer; linear maps are [in, out]."""

    input_norm: jax.Array  # [E]
    qkv: Maps  # [E, H * C], [E, K * C], [E, K * C]
    o: jax.Array  # [H * C, E]
    post_attention_norm: jax.Array  # [E]
    gate_up: Maps  # [E, F], [E, F]
    down: jax.Array  # [F, E]
    qkv_bias: tuple[jax.Array, ...] = ()  # [H * C], [K * C], [K * C]; () = not in this model
    o_bias: jax.Array | None = None  # [E]; None = not in this model
    qk_norms: tuple[jax.Array, ...] = ()  # [C], [C]; () = not in this model


def map_shapes(
    config: TargetConfig | AnyDraftConfig, inputs: int = 1, outputs: int = 1
) -> dict[str, tuple[int, int]]:
    """[in, out] of the linear maps of a decoder layer.

    Args:
      inputs: vectors of width E that queries, keys and values are made of.
      outputs: vectors of width E that the feed-forward gives.
    """
    E, F = config.hidden_size, config.intermediate_size
    query, kv = config.head_count * config.head_dim, config.kv_head_count * config.head_dim
    return {
        "q": (inputs * E, query),
        "k": (inputs * E, kv),
        "v": (inputs * E, kv),
        "o": (query, E),
        "gate": (E, F),
        "up": (E, F),
        "down": (F, outputs * E),
    }


def layer_fields(maps: Mapping[str, Any]) -> dict[str, Any]:
    """The maps of `map_shapes` as the fields of a layer's weights, others as they are."""
    grouped = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
    members = set(itertools.chain(*grouped.values()))
    fields = {name: weight for name, weight in maps.items() if name not in members}
    return fields | {name: tuple(maps[one] for one in names) for name, names in grouped.items()}


def random_maps(
    key: jax.Array,
    shapes: Mapping[str, tuple[int, int]],
    dtype: jnp.dtype,
    deviations: Mapping[str, float] | None = None,
) -> dict[str, jax.Array]:
    """Random linear maps [in, out]; the default deviation, in ** -0.5, keeps the size of a row."""
    deviations = deviations or {name: rows**-0.5 for name, (rows, _) in shapes.items()}
    keys = jax.random.split(key, len(shapes))
    return {
        name: random_map(map_key, shape, deviations[name], dtype)
        for map_key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def random_map(
    key: jax.Array, shape: tuple[int, ...], deviation: float, dtype: jnp.dtype
) -> jax.Array:
    """Normal numbers around 0, drawn in f32."""
    return (deviation * jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """The precision of products: f32 in full on accelerators, whose default rounds factors.

    Rounded factors would make a pass over a tree differ from one over a token by a thousandth, and
    so another token the most probable one now and then.
    """
    is_rounded = dtype == jnp.float32 and jax.default_backend() != "cpu"
    return jax.lax.Precision.HIGHEST if is_rounded else None


def attention_extras(config: TargetConfig | DraftConfig, dtype: jnp.dtype) -> dict[str, Any]:
    """Biases (zeros) and norms (ones) of a layer's attention as a config asks for, by field."""
    H, K, C = config.head_count, config.kv_head_count, config.head_dim
    biases = tuple(jnp.zeros((count * C,), dtype) for count in (H, K, K))
    return {
        "qkv_bias": biases if config.attention_bias else (),
        "o_bias": jnp.zeros((config.hidden_size,), dtype) if config.output_bias else None,
        "qk_norms": (jnp.ones((C,), dtype),) * 2 if config.qk_norm else (),
    }


def random_layer(
    key: jax.Array,
    config: TargetConfig | DraftConfig,
    dtype: jnp.dtype,
    deviations: Mapping[str, float] | None = None,
) -> LayerParams:
    """A decoder layer with random maps (see `random_maps`)."""
    ones = jnp.ones((config.hidden_size,), dtype)
    return LayerParams(
        input_norm=ones,
        post_attention_norm=ones,
        **attention_extras(config, dtype),
        **layer_fields(random_maps(key, map_shapes(config), dtype, deviations)),
    )


def linear(x_TE: jax.Array, weight: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """x @ weight [T, F]; the weight is [E, F] or in panels [F / P, E, P] (models/cpu_layout.py).

    Args:
      dtype: of the sum and the result; None = the input's.
    """
    result = dtype or x_TE.dtype
    x_TE = x_TE.astype(jnp.promote_types(x_TE.dtype, weight.dtype))
    sums = jnp.float32 if is_half_on_cpu(x_TE.dtype) else dtype
    if weight.ndim == 3:
        return _panels(sums, x_TE, weight).astype(result)
    T = x_TE.shape[0]
    if is_half_on_cpu(x_TE.dtype):
        x_TE = _with_company(x_TE)
    y_TF = jnp.dot(x_TE, weight, preferred_element_type=sums, precision=precision(x_TE.dtype))
    return y_TF[:T].astype(result)


def is_half_on_cpu(dtype: jnp.dtype) -> bool:
    """Whether products are of 16-bit numbers on a processor.

    There XLA is several times slower over one row than over two, and where it gives 16-bit results.
    """
    return dtype.itemsize < 4 and jax.default_backend() == "cpu"


def _with_company(x_TE: jax.Array) -> jax.Array:
    """The rows; beside a lone one a row of zeros."""
    return jnp.pad(x_TE, ((0, 1), (0, 0))) if x_TE.shape[0] == 1 else x_TE


def piece_count(weight_BEP: jax.Array) -> int:
    """The fewest equal pieces of a panel that fit a core's first cache; 1 where E has no such."""
    _, E, P = weight_BEP.shape
    most = max(PIECE_BYTES // (P * weight_BEP.dtype.itemsize), 1)
    counts = (count for count in range(1, E + 1) if E % count == 0 and E // count <= most)
    count = next(counts, 1)
    return count if E // count >= most // 4 else 1


def _panels(sums: jnp.dtype | None, x_TE: jax.Array, weight_BEP: jax.Array) -> jax.Array:
    """x @ weight [T, B * P] in the dtype of `sums`; rows side by side (vmap) are one product's."""

    @jax.custom_batching.custom_vmap
    def product(x_TE: jax.Array, weight_BEP: jax.Array) -> jax.Array:
        return _panel_product(x_TE, weight_BEP, sums)

    @product.def_vmap
    def side_by_side(
        size: int, is_batched: Sequence[bool], x_ZTE: jax.Array, weight_BEP: jax.Array
    ) -> tuple[jax.Array, bool]:
        if is_batched[1]:  # every row has weights of its own
            each = functools.partial(_panel_product, sums=sums)
            axes = [0 if is_so else None for is_so in is_batched]
            return jax.vmap(each, axes)(x_ZTE, weight_BEP), True
        _, T, E = x_ZTE.shape
        return product(x_ZTE.reshape(size * T, E), weight_BEP).reshape(size, T, -1), True

    return product(x_TE, weight_BEP)


def _panel_product(x_TE: jax.Array, weight_BEP: jax.Array, sums: jnp.dtype | None) -> jax.Array:
    """One product over a batch of all panels, or of their pieces, and the sums of these.

    A kernel sums five rows or fewer at a time (XLA's YNNPACK, AVX-512) and reads its factor once
    for each time: again from the first cache where that holds it. Measured with wide panels of f32
    only, so others stay whole.
    """
    (T, E), (B, _, P) = x_TE.shape, weight_BEP.shape
    if T > MOST_PACKED_ROWS[P]:
        weight_EF = jnp.transpose(weight_BEP, (1, 0, 2)).reshape(E, B * P)
        return jnp.dot(x_TE, weight_EF, preferred_element_type=sums)
    is_half, is_wide = is_half_on_cpu(x_TE.dtype), P == WIDE_PANEL
    if is_half or (is_wide and weight_BEP.size not in LONE_ROW_WEIGHTS):
        x_TE = _with_company(x_TE)
    rows = x_TE.shape[0]
    is_whole = is_half or rows == 1 or not is_wide
    pieces = 1 if is_whole else piece_count(weight_BEP)
    piece_BNEP = weight_BEP.reshape(B, pieces, E // pieces, P)  # not moved in memory
    x_NTE = x_TE.reshape(rows, pieces, E // pieces).transpose(1, 0, 2)
    x_BNTE = jnp.broadcast_to(x_NTE[None], (B, *x_NTE.shape))
    sum_BNTP = jnp.einsum("bnte,bnep->bntp", x_BNTE, piece_BNEP, preferred_element_type=sums)
    return jnp.transpose(jnp.sum(sum_BNTP, axis=1), (1, 0, 2)).reshape(rows, B * P)[:T]


def linear_side_by_side(
    x_TE: jax.Array, maps: Maps, widths: Sequence[int]
) -> tuple[jax.Array, ...]:
    """x @ map [T, F] for every one of some maps side by side, which have these widths F."""
    if len(maps) == len(widths):
        return tuple(linear(x_TE, weight) for weight in maps)
    (joined,) = maps
    ends = list(itertools.accumulate(widths))
    return tuple(jnp.split(linear(x_TE, joined), ends[:-1], axis=1))


def rms_norm(x_TE: jax.Array, weight_E: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis; statistics in f32, weight after the cast back."""
    x32 = x_TE.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * scale).astype(x_TE.dtype) * jnp.broadcast_to(weight_E, x_TE.shape)


def qkv_heads(
    x_TE: jax.Array,
    qkv: Maps,
    config: TargetConfig | AnyDraftConfig,
    turns: tuple[jax.Array, jax.Array],
    bias: tuple[jax.Array, ...] = (),
    norms: tuple[jax.Array, ...] = (),
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [T, H, C], rotated keys and values [T, K, C] of one input.

    Args:
      turns: cosines and sines of the rows, see `rope.tables`.
      bias: [H * C], [K * C], [K * C]; () = there are none.
      norms: [C] of queries and [C] of keys, before they are rotated; () = there are none.
    """
    T, C = x_TE.shape[0], config.head_dim
    heads = (config.head_count, config.kv_head_count, config.kv_head_count)
    rows = linear_side_by_side(x_TE, qkv, [count * C for count in heads])
    if bias:
        rows = tuple(row + added[None] for row, added in zip(rows, bias, strict=True))
    query, key, value = (row.reshape(T, -1, C) for row in rows)
    if norms:
        query = rms_norm(query, norms[0], config.rms_norm_eps)
        key = rms_norm(key, norms[1], config.rms_norm_eps)
    return rope.rotate(query, *turns), rope.rotate(key, *turns), value


def layer_qkv(
    params: LayerParams,
    config: TargetConfig | AnyDraftConfig,
    stream_TE: jax.Array,
    turns: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [T, H, C], rotated keys and values [T, K, C] of a decoder layer."""
    x_TE = rms_norm(stream_TE, params.input_norm, config.rms_norm_eps)
    return qkv_heads(x_TE, params.qkv, config, turns, params.qkv_bias, params.qk_norms)


def layer_output(
    params: Any, config: TargetConfig | AnyDraftConfig, stream_TE: jax.Array, mixed_TE: jax.Array
) -> jax.Array:
    """A decoder layer after attention [T, E]: output map, residual, norm and feed-forward.

    Args:
      params: `LayerParams`, or a draft's with the same fields.
    """
    mixed_TE = linear(mixed_TE, params.o)
    if params.o_bias is not None:
        mixed_TE = mixed_TE + params.o_bias[None]
    stream_TE = stream_TE + mixed_TE
    x_TE = rms_norm(stream_TE, params.post_attention_norm, config.rms_norm_eps)
    return stream_TE + feed_forward(x_TE, params.gate_up, params.down)


def sight(
    config: TargetConfig | AnyDraftConfig,
    layer: int,
    mask_TB: jax.Array,
    positions_T: jax.Array,
) -> tuple[jax.Array, jax.Array | None]:
    """What the rows of a layer see: rows of the block [T, B], and the first slot of the past [T].

    In a layer with a sliding window of w tokens, a row at position p sees positions above p - w.
    The rows of a block that one row sees are a path, in order and one position apart, the row
    itself last: so the number of those after one of them is its distance.

        seen        1 1 0 1 1
        distance    3 2 . 1 0        with w = 3 is seen: 0 1 0 1 1

    Args:
      mask_TB: bool, what rows see where nothing slides.
      positions_T: i32 rotary positions; slot s of the past has position s.

    Returns:
      None as the first slot: all of the past is seen.
    """
    if layer not in config.sliding_layers:
        return mask_TB, None
    seen_TB = mask_TB.astype(jnp.int32)
    distance_TB = jnp.cumsum(seen_TB[:, ::-1], axis=1)[:, ::-1] - seen_TB
    first_T = positions_T - config.sliding_window + 1
    return mask_TB & (distance_TB < config.sliding_window), first_T


@jax.named_scope("attention")
def attention(
    query_THC: jax.Array,
    key_KBC: jax.Array,
    value_KBC: jax.Array,
    mask_TB: jax.Array,
    past: Past | None = None,
    first_T: jax.Array | None = None,
) -> jax.Array:
    """Grouped-query attention [T, H * C] over a block of B new rows and the committed past.

    Past and block stay apart, so the cache is only read here and no pass has to copy it. They meet
    in the softmax, whose division comes last: on T * C instead of T * (S + B) numbers.

    Args:
      mask_TB: bool, which rows of the block each query sees.
      past: all queries see its slots [0, length); None = there is none. Keys that are known to be
        zeros when the program is compiled must be None: XLA's CPU backend computes the product with
        a constant array and its maximum in one library call that reads memory nobody has written
        (jax 0.10.2 to 0.12.0; experiments/proofs/check_stages shows it), so all is NaN.
      first_T: i32, the first slot of the past that each query sees; None = slot 0.
    """
    T, H, C = query_THC.shape
    K, B, _ = key_KBC.shape
    G = H // K
    query = (query_THC * C**-0.5).reshape(T, K, G, C).transpose(1, 2, 0, 3).reshape(K, G * T, C)
    bias_TB = jnp.where(mask_TB, 0.0, MASKED)
    score = _product("kmc,ksc->kms", query, key_KBC).reshape(K, G, T, B) + bias_TB[None, None]
    parts = [(score.reshape(K, G * T, B), value_KBC)]
    if past is not None:
        key_KSC, value_KSC, length = past
        slot_S = jnp.arange(key_KSC.shape[1])
        seen = (slot_S < length)[None]
        if first_T is not None:  # of every query of a group
            seen = jnp.tile(seen & (slot_S[None] >= first_T[:, None]), (G, 1))
        bias = jnp.where(seen, 0.0, MASKED)
        score = _product("kmc,ksc->kms", query, key_KSC) + bias[None]
        parts.append((score, value_KSC))
    peaks = [jnp.max(score, axis=-1, keepdims=True) for score, _ in parts]
    peak = jax.lax.stop_gradient(functools.reduce(jnp.maximum, peaks))
    weights = [(jnp.exp(score - peak), value) for score, value in parts]
    add = functools.partial(functools.reduce, jnp.add)
    total = add([jnp.sum(weight, axis=-1, keepdims=True) for weight, _ in weights])
    mixed = add([_product("kms,ksc->kmc", *one) for one in weights]) / total
    mixed = mixed.astype(query_THC.dtype).reshape(K, G, T, C).transpose(2, 0, 1, 3)
    return mixed.reshape(T, H * C)


def _product(axes: str, one: jax.Array, two: jax.Array) -> jax.Array:
    """An einsum in the dtype of the second factor, summed in f32."""
    exact = precision(two.dtype)
    one = one.astype(two.dtype)
    return jnp.einsum(axes, one, two, preferred_element_type=jnp.float32, precision=exact)


def gated(x_TE: jax.Array, gate_up: Maps, width: int) -> jax.Array:
    """silu(gate(x)) * up(x), [T, F]; `width` is F."""
    gate_TF, up_TF = linear_side_by_side(x_TE, gate_up, (width, width))
    return jax.nn.silu(gate_TF) * up_TF


@jax.named_scope("feed_forward")
def feed_forward(x_TE: jax.Array, gate_up: Maps, down: jax.Array) -> jax.Array:
    """Gated SiLU feed-forward: down(silu(gate(x)) * up(x))."""
    return linear(gated(x_TE, gate_up, width=down.shape[-2]), down)


def entropy(log_prob_X: jax.Array) -> jax.Array:
    """Nats of distributions f32 [..., X] given as log-probabilities: -sum of p log p, f32 [...]."""
    with jax.named_scope("entropy"):  # so that it is found in compiled programs
        return -jnp.sum(jnp.exp(log_prob_X) * log_prob_X, axis=-1)
