"""Parts that the target and the draft share: norm, rotary positions, attention, gated feed-forward.

Every function works on one sequence. Weights of linear maps are [in, out]: with the input as rows,
XLA's CPU and GPU kernels read them in order (measured 1.3-1.6x faster than [out, in] for 1-33 rows
on CPU). Attention keeps kv heads in front ([K, S, C]), so that the cache is never transposed.
"""

import functools
import math

import jax
import jax.numpy as jnp

from ltd_jax.config import RopeScaling

MASKED = -1e30  # finite, so that a row without any visible key gives no NaN
WIDE_PANEL = 64  # columns of a block with AVX-512, see models.blocks
MOST_BLOCKED_ROWS = 32  # more rows are worth a copy into [E, F]


def precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """How exactly to multiply: f32 in full on accelerators, whose default rounds its factors.

    Rounded factors would make a pass over a tree differ from one over a token by a thousandth, and
    so another token the most probable one now and then.
    """
    is_rounded = dtype == jnp.float32 and jax.default_backend() != "cpu"
    return jax.lax.Precision.HIGHEST if is_rounded else None


def linear(x_TE: jax.Array, weight: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """x @ weight [T, F]; the weight is [E, F] or blocked, [F / P, E, P] (models.blocks).

    Args:
      dtype: of the sum and the result; None = the input's.
    """
    if weight.ndim == 3 and x_TE.shape[0] > MOST_BLOCKED_ROWS:
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


def rms_norm(x_TE: jax.Array, weight_E: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis; statistics in f32, weight after the cast back."""
    x32 = x_TE.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * scale).astype(x_TE.dtype) * jnp.broadcast_to(weight_E, x_TE.shape)


def rope_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> list[float]:
    """Inverse frequencies [C/2] in radians per token, with Llama-3.1's scaling where given."""
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if scaling is None:
        return plain
    return [_scaled_frequency(frequency, scaling) for frequency in plain]


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


def attention(
    query_THC: jax.Array,
    key_KBC: jax.Array,
    value_KBC: jax.Array,
    visible_TB: jax.Array,
    past: tuple[jax.Array, jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """Grouped-query attention [T, H * C] over a block of B new rows and the committed past.

    Past and block stay apart, so the cache is only read here and no pass has to copy it. They meet
    in the softmax, whose division comes last: on T * C instead of T * (S + B) numbers.

    Args:
      visible_TB: bool, which rows of the block each query sees.
      past: keys and values [K, S, C] and i32 length; all queries see slots [0, length).
    """
    T, H, C = query_THC.shape
    K, B, _ = key_KBC.shape
    G = H // K
    query = (query_THC * C**-0.5).reshape(T, K, G, C).transpose(1, 2, 0, 3).reshape(K, G * T, C)
    bias_TB = jnp.where(visible_TB, 0.0, MASKED)
    score = _scores(query, key_KBC).reshape(K, G, T, B) + bias_TB[None, None]
    parts = [(score.reshape(K, G * T, B), value_KBC)]
    if past is not None:
        key_KSC, value_KSC, length = past
        seen_S = jnp.where(jnp.arange(key_KSC.shape[1]) < length, 0.0, MASKED)
        parts.append((_scores(query, key_KSC) + seen_S[None, None], value_KSC))
    peaks = [jnp.max(score, axis=-1, keepdims=True) for score, _ in parts]
    peak = jax.lax.stop_gradient(functools.reduce(jnp.maximum, peaks))
    weights = [(jnp.exp(score - peak), value) for score, value in parts]
    add = functools.partial(functools.reduce, jnp.add)
    total = add([jnp.sum(weight, axis=-1, keepdims=True) for weight, _ in weights])
    mixed = add([_mix(weight, value) for weight, value in weights]) / total
    mixed = mixed.astype(query_THC.dtype).reshape(K, G, T, C).transpose(2, 0, 1, 3)
    return mixed.reshape(T, H * C)


def _scores(query_KMC: jax.Array, key_KSC: jax.Array) -> jax.Array:
    return _product("kmc,ksc->kms", query_KMC, key_KSC)


def _mix(weight_KMS: jax.Array, value_KSC: jax.Array) -> jax.Array:
    weight_KMS = weight_KMS.astype(value_KSC.dtype)
    return _product("kms,ksc->kmc", weight_KMS, value_KSC)


def _product(axes: str, one: jax.Array, two: jax.Array) -> jax.Array:
    """An einsum of two factors of one dtype, summed in f32."""
    exact = precision(two.dtype)
    return jnp.einsum(axes, one, two, preferred_element_type=jnp.float32, precision=exact)


def three_maps(
    x_TE: jax.Array, first: jax.Array, second: jax.Array | None, third: jax.Array | None, width: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values of one input; where `second` is None, `first` holds all three.

    Args:
      width: columns of the first map.
    """
    if second is not None and third is not None:
        return linear(x_TE, first), linear(x_TE, second), linear(x_TE, third)
    joined_TF = linear(x_TE, first)
    end = (width + joined_TF.shape[1]) // 2
    return joined_TF[:, :width], joined_TF[:, width:end], joined_TF[:, end:]


def feed_forward(
    x_TE: jax.Array, gate: jax.Array, up: jax.Array | None, down: jax.Array
) -> jax.Array:
    """Gated SiLU feed-forward: down(silu(gate(x)) * up(x)); `up` None = `gate` holds both."""
    if up is None:
        gate_TF, up_TF = jnp.split(linear(x_TE, gate), 2, axis=1)
    else:
        gate_TF, up_TF = linear(x_TE, gate), linear(x_TE, up)
    return linear(jax.nn.silu(gate_TF) * up_TF, down)


def entropy(log_prob_X: jax.Array) -> jax.Array:
    """Nats of distributions f32 [..., X] given as log-probabilities: -sum of p log p, f32 [...]."""
    with jax.named_scope("entropy"):  # so that it is found in compiled programs
        return -jnp.sum(jnp.exp(log_prob_X) * log_prob_X, axis=-1)
