"""Parts that the target and the draft share: norm, rotary positions, attention, gated feed-forward.

Every function works on one sequence. Weights of linear maps are [in, out]: with the input as rows,
XLA's CPU and GPU kernels read them in order (measured 1.3-1.6x faster than [out, in] for 1-33 rows
on CPU). Attention keeps kv heads in front ([K, S, C]), so that the cache is never transposed.

Maps of one input stand side by side in one field (`qkv`, `gate_up`): an array for each, or one
array that holds the columns of all (models/cpu_layout.py). Only this file knows which.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ltd_jax.config import AnyDraftConfig, RopeScaling, TargetConfig
from ltd_jax.models.kv_cache import Past

Maps = tuple[jax.Array, ...]  # of one input, side by side: one [in, out] each, or all in one array

MASKED = -1e30  # finite, so that a row without any visible key gives no NaN
WIDE_PANEL = 64  # columns of a panel with AVX-512, see models/cpu_layout.py
MOST_PACKED_ROWS = 32  # more rows are worth a copy into [E, F]


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


def linear(x_TE: jax.Array, weight: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """x @ weight [T, F]; the weight is [E, F] or in panels [F / P, E, P] (models/cpu_layout.py).

    Args:
      dtype: of the sum and the result; None = the input's.
    """
    if weight.ndim == 3 and x_TE.shape[0] > MOST_PACKED_ROWS:
        weight = jnp.transpose(weight, (1, 0, 2)).reshape(weight.shape[1], -1)
    if weight.ndim == 2:
        return jnp.dot(x_TE, weight, preferred_element_type=dtype, precision=precision(x_TE.dtype))
    # Every panel gets its own copy of the rows: one product over a batch of panels.
    T = x_TE.shape[0]
    if T == 1 and weight.shape[2] == WIDE_PANEL:  # two rows are faster than one here
        x_TE = jnp.pad(x_TE, ((0, 1), (0, 0)))
    x_BTE = jnp.broadcast_to(x_TE[None], (weight.shape[0], *x_TE.shape))
    panel_BTF = jnp.einsum("bte,bef->btf", x_BTE, weight, preferred_element_type=dtype)
    return jnp.transpose(panel_BTF, (1, 0, 2)).reshape(x_TE.shape[0], -1)[:T]


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


def rope_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> list[float]:
    """Inverse frequencies [C/2] in radians per token, with Llama-3.1's scaling where given."""
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    return plain if scaling is None else [_scaled_frequency(one, scaling) for one in plain]


def _scaled_frequency(frequency: float, scaling: RopeScaling) -> float:
    wavelengths = scaling.original_context * frequency / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    smooth = min(max((wavelengths - low) / (high - low), 0.0), 1.0)
    return frequency * (smooth + (1 - smooth) / scaling.factor)


def rope_tables(
    positions_T: jax.Array, head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine [T, C/2] in f32 of every position's rotation angles."""
    frequencies = jnp.asarray(rope_frequencies(head_dim, theta, scaling), jnp.float32)
    angles = positions_T[:, None].astype(jnp.float32) * frequencies[None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_THC: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotary embedding in the half-split layout: channel i turns together with channel i + C/2."""
    first, second = jnp.split(x_THC.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_THC.dtype)


def qkv_heads(
    x_TE: jax.Array,
    qkv: Maps,
    config: TargetConfig | AnyDraftConfig,
    rope: tuple[jax.Array, jax.Array],
    bias: tuple[jax.Array, ...] = (),
    norms: tuple[jax.Array, ...] = (),
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [T, H, C], rotated keys and values [T, K, C] of one input.

    Args:
      rope: of the rows, see `rope_tables`.
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
    return rotate(query, *rope), rotate(key, *rope), value


@jax.named_scope("attention")
def attention(
    query_THC: jax.Array,
    key_KBC: jax.Array,
    value_KBC: jax.Array,
    mask_TB: jax.Array,
    past: Past | None = None,
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
        seen_S = jnp.where(jnp.arange(key_KSC.shape[1]) < length, 0.0, MASKED)
        score = _product("kmc,ksc->kms", query, key_KSC) + seen_S[None, None]
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
