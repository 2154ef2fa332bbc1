"""The target model: any Llama- or Qwen3-family decoder as a pytree and one pure `forward`.

Enters: token ids, positions, who sees whom, a cache. Leaves: logits, EAGLE-3 features, new rows.
Features are the residual stream entering some layers, low to high, without a norm
(EAGLE-3; the layers are `config.feature_layers`), or the last norm's output (Griffin).
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import TargetConfig
from ltd_jax.models import layers, rope
from ltd_jax.models.kv_cache import KVCache, Rows
from ltd_jax.models.layers import LayerParams

DEVIATION = 0.02  # of random weights


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
    draw = lambda key, shape: layers.random_map(key, shape, DEVIATION, dtype)
    output = DEVIATION / (2 * config.layer_count) ** 0.5
    deviations = dict.fromkeys(layers.map_shapes(config), DEVIATION) | {"o": output, "down": output}
    return TargetParams(
        embedding=draw(embedding_key, (X, E)),
        layers=tuple(layers.random_layer(one, config, dtype, deviations) for one in layer_keys),
        norm=jnp.ones((E,), dtype),
        head=None if config.tie_embeddings else draw(head_key, (E, X)),
    )


def forward(
    params: TargetParams,
    config: TargetConfig,
    tokens_T: jax.Array,
    positions_T: jax.Array,
    mask_TT: jax.Array,
    cache: KVCache | None,
    prompt: jax.Array | int = 0,
    read_R: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, Rows]:
    """One pass over T tokens of one sequence.

    Args:
      tokens_T: i32 token ids.
      positions_T: i32 rotary positions.
      mask_TT: bool, which tokens of this pass each token sees: a path, in order, that it ends.
      cache: what was committed before; every token sees all of it, or in sliding layers what the
        window holds. None = nothing.
      prompt: i32, tokens of the text's prompt where this pass reads some of them (models/rope.py).
      read_R: i32, the rows whose logits are wanted; None = all T, in order.

    Returns:
      Logits [R, X] in f32, the features of all feature layers side by side [T, n * E] (Griffin:
      [T, E]) in the weights' dtype, and this pass's rows.
    """
    hidden_TE = jnp.take(params.embedding, tokens_T, axis=0)
    turns = rope.tables(config, positions_T, prompt)
    keys, values, features = [], [], []
    for index, layer in enumerate(params.layers):
        if index in config.feature_layers:
            features.append(hidden_TE)
        past = None if cache is None else cache.layer(index)
        seen_TT, first_T = layers.sight(config, index, mask_TT, positions_T)
        with jax.named_scope("target_layer"):
            query_THC, key_TKC, value_TKC = layers.layer_qkv(layer, config, hidden_TE, turns)
            key, value = key_TKC.transpose(1, 0, 2), value_TKC.transpose(1, 0, 2)
            mixed_TE = layers.attention(query_THC, key, value, seen_TT, past, first_T)
            hidden_TE = layers.layer_output(layer, config, hidden_TE, mixed_TE)
        keys.append(key)
        values.append(value)
    if len(params.layers) in config.feature_layers:
        features.append(hidden_TE)
    hidden_TE = layers.rms_norm(hidden_TE, params.norm, config.rms_norm_eps)
    features = features or [hidden_TE]
    spoken_RE = hidden_TE if read_R is None else hidden_TE[read_R]
    head = params.embedding.T if params.head is None else params.head
    with jax.named_scope("head"):
        logits_RX = layers.linear(spoken_RE, head, jnp.float32)
    return logits_RX, jnp.concatenate(features, axis=-1), Rows(tuple(keys), tuple(values))


def causal_forward(
    params: TargetParams,
    config: TargetConfig,
    tokens_T: jax.Array,
    cache: KVCache | None,
    prompt: jax.Array | int = 0,
    read_R: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, Rows]:
    """`forward` over tokens in a row: each sees the cache, those before it and itself."""
    T = tokens_T.shape[0]
    positions_T = jnp.arange(T) if cache is None else cache.length + jnp.arange(T)
    causal_TT = jnp.tril(jnp.ones((T, T), bool))
    return forward(params, config, tokens_T, positions_T, causal_TT, cache, prompt, read_R)
