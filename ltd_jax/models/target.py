"""The target model: any Llama- or Qwen3-family decoder as a pytree and one pure `forward`.

Enters: token ids, positions, who sees whom, a cache. Leaves: logits, EAGLE-3 features, new rows.
Features are the residual stream entering three layers, low to high, without a norm
(EAGLE-3; the layers are `config.feature_layers`), or the last norm's output (Griffin).
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import TargetConfig
from ltd_jax.models import kv_cache, layers
from ltd_jax.models.kv_cache import KVCache, Rows


@struct.dataclass
class LayerParams:
    """Weights of one decoder layer; linear maps are [in, out]; None = not in this family.

    In blocks (models.blocks) every linear map is [out / P, in, P], `q` holds q, k and v, and
    `gate` holds gate and up.
    """

    input_norm: jax.Array  # [E]
    q: jax.Array  # [E, H * C]
    k: jax.Array | None  # [E, K * C]
    v: jax.Array | None  # [E, K * C]
    o: jax.Array  # [H * C, E]
    post_attention_norm: jax.Array  # [E]
    gate: jax.Array  # [E, F]
    up: jax.Array | None  # [E, F]
    down: jax.Array  # [F, E]
    q_bias: jax.Array | None = None  # [H * C]
    k_bias: jax.Array | None = None  # [K * C]
    v_bias: jax.Array | None = None  # [K * C]
    q_norm: jax.Array | None = None  # [C]
    k_norm: jax.Array | None = None  # [C]


@struct.dataclass
class TargetParams:
    """Weights of the whole target."""

    embedding: jax.Array  # [X, E]
    layers: tuple[LayerParams, ...]
    norm: jax.Array  # [E]
    head: jax.Array | None  # [E, X]; None = tied to the embedding


def init(key: jax.Array, config: TargetConfig, dtype: jnp.dtype = jnp.float32) -> TargetParams:
    """Random weights: normal with deviation 0.02, output maps scaled down by depth."""
    embedding_key, head_key, *layer_keys = jax.random.split(key, config.layer_count + 2)
    E, X = config.hidden_size, config.vocab_size
    head = None if config.tie_embeddings else _normal(head_key, (E, X), 0.02, dtype)
    return TargetParams(
        embedding=_normal(embedding_key, (X, E), 0.02, dtype),
        layers=tuple(_init_layer(layer_key, config, dtype) for layer_key in layer_keys),
        norm=jnp.ones((E,), dtype),
        head=head,
    )


def _normal(key: jax.Array, shape: tuple[int, ...], deviation: float, dtype) -> jax.Array:
    return (deviation * jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def _init_layer(key: jax.Array, config: TargetConfig, dtype: jnp.dtype) -> LayerParams:
    E, F = config.hidden_size, config.intermediate_size
    query, kv = config.head_count * config.head_dim, config.kv_head_count * config.head_dim
    out = 0.02 / (2 * config.layer_count) ** 0.5
    q, k, v, o, gate, up, down = jax.random.split(key, 7)
    ones, zeros = lambda n: jnp.ones((n,), dtype), lambda n: jnp.zeros((n,), dtype)
    biased, normed = config.attention_bias, config.qk_norm
    return LayerParams(
        input_norm=ones(E),
        q=_normal(q, (E, query), 0.02, dtype),
        k=_normal(k, (E, kv), 0.02, dtype),
        v=_normal(v, (E, kv), 0.02, dtype),
        o=_normal(o, (query, E), out, dtype),
        post_attention_norm=ones(E),
        gate=_normal(gate, (E, F), 0.02, dtype),
        up=_normal(up, (E, F), 0.02, dtype),
        down=_normal(down, (F, E), out, dtype),
        q_bias=zeros(query) if biased else None,
        k_bias=zeros(kv) if biased else None,
        v_bias=zeros(kv) if biased else None,
        q_norm=ones(config.head_dim) if normed else None,
        k_norm=ones(config.head_dim) if normed else None,
    )


def empty_cache(
    config: TargetConfig,
    slots: int,
    dtype: jnp.dtype,
    where: jax.sharding.Sharding | None = None,
) -> KVCache:
    """A cache of `slots` slots for every layer; `where` as in `kv_cache.empty`."""
    shape = (config.layer_count, config.kv_head_count, slots, config.head_dim)
    return kv_cache.empty(*shape, dtype, where)


def forward(
    params: TargetParams,
    config: TargetConfig,
    tokens_T: jax.Array,
    positions_T: jax.Array,
    visible_TT: jax.Array,
    cache: KVCache | None,
) -> tuple[jax.Array, jax.Array, Rows]:
    """One pass over T tokens of one sequence.

    Args:
      tokens_T: i32 token ids.
      positions_T: i32 rotary positions.
      visible_TT: bool, which tokens of this pass each token sees (itself included).
      cache: what was committed before; every token sees all of it. None = nothing.

    Returns:
      Logits [T, X] in f32, features [T, 3 * E] (Griffin: [T, E]) in the weights' dtype, and this
      pass's rows.
    """
    hidden_TE = jnp.take(params.embedding, tokens_T, axis=0)
    rope = layers.rope_tables(positions_T, config.head_dim, config.rope_theta, config.rope_scaling)
    keys, values, features = [], [], []
    for index, layer in enumerate(params.layers):
        if index in config.feature_layers:
            features.append(hidden_TE)
        past = None if cache is None else (cache.keys[index], cache.values[index], cache.length)
        hidden_TE, key, value = _layer(layer, config, hidden_TE, rope, visible_TT, past)
        keys.append(key)
        values.append(value)
    if len(params.layers) in config.feature_layers:
        features.append(hidden_TE)
    hidden_TE = layers.rms_norm(hidden_TE, params.norm, config.rms_norm_eps)
    features = features or [hidden_TE]
    head = params.embedding.T if params.head is None else params.head
    logits_TX = layers.linear(hidden_TE, head, jnp.float32)
    return logits_TX, jnp.concatenate(features, axis=-1), Rows(tuple(keys), tuple(values))


def _layer(layer, config, hidden_TE, rope, visible_TT, past):
    """One decoder layer; returns the new residual stream and this pass's keys and values."""
    x_TE = layers.rms_norm(hidden_TE, layer.input_norm, config.rms_norm_eps)
    query_THC, key_TKC, value_TKC = _project(layer, config, x_TE, rope)
    key, value = key_TKC.transpose(1, 0, 2), value_TKC.transpose(1, 0, 2)
    mixed_TE = layers.attention(query_THC, key, value, visible_TT, past)
    hidden_TE = hidden_TE + layers.linear(mixed_TE, layer.o)
    x_TE = layers.rms_norm(hidden_TE, layer.post_attention_norm, config.rms_norm_eps)
    return hidden_TE + layers.feed_forward(x_TE, layer.gate, layer.up, layer.down), key, value


def _project(layer, config, x_TE, rope):
    """Rotated queries [T, H, C], rotated keys [T, K, C], values [T, K, C]."""
    T, C = x_TE.shape[0], config.head_dim
    q, k, v = layers.three_maps(x_TE, layer.q, layer.k, layer.v, config.head_count * C)
    if layer.q_bias is not None:
        q, k, v = q + layer.q_bias[None], k + layer.k_bias[None], v + layer.v_bias[None]
    q, k, v = (x.reshape(T, -1, C) for x in (q, k, v))
    if layer.q_norm is not None:
        q = layers.rms_norm(q, layer.q_norm, config.rms_norm_eps)
        k = layers.rms_norm(k, layer.k_norm, config.rms_norm_eps)
    return layers.rotate(q, *rope), layers.rotate(k, *rope), v
