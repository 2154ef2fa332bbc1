"""The EAGLE-3 draft: a decoder layer, or several, that continue the target's features.

Enters: a token and the feature *before* it, either the target's feature of several layers or the
draft's own last output. Leaves: log-probabilities over the draft vocabulary and the output fed to
the next level.

    x = [norm(embedding), norm(feature)]          queries, keys, values read 2E wide rows
    h = feature + attention(x)                    the residual is the raw feature
    h = h + feed_forward(norm(h))                 this is fed back
    log_probs = log_softmax(head(norm(h)))        over the draft vocabulary

Later trainers moved some norms; these are switches of `DraftConfig`. Further layers are a decoder's
usual ones and read the stream alone, E wide rows (as in vLLM and speculators).
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import DraftConfig
from ltd_jax.models import layers, rope
from ltd_jax.models.layers import LayerParams, Maps


@struct.dataclass
class Eagle3Params:
    """Weights of the draft, E wide; linear maps are [in, out] (models/layers.py)."""

    embedding: jax.Array  # [X, E], usually the target's
    fuse: jax.Array  # [features * target E, E], "fc"
    input_norm: jax.Array  # [E], of the embedding
    hidden_norm: jax.Array  # [E], of the feature
    qkv: Maps  # [2E, H * C], [2E, K * C], [2E, K * C]
    o: jax.Array  # [H * C, E]
    post_attention_norm: jax.Array  # [E]
    gate_up: Maps  # [E, F], [E, F]
    down: jax.Array  # [F, E]
    norm: jax.Array  # [E]
    head: jax.Array | None  # [E, Y]; None = tied to the embedding
    target_token: jax.Array  # i32 [Y], target id of every draft id (d2t + its own index)
    # Before `fuse`: one norm [features * target E] of all, one [target E] of each, or none.
    fuse_norms: tuple[jax.Array, ...] = ()
    fuse_bias: jax.Array | None = None  # [E]; None = not in this draft
    qkv_bias: tuple[jax.Array, ...] = ()  # [H * C], [K * C], [K * C]; () = not in this draft
    o_bias: jax.Array | None = None  # [E]; None = not in this draft
    qk_norms: tuple[jax.Array, ...] = ()  # [C], [C]; () = not in this draft
    further: tuple[LayerParams, ...] = ()  # layers behind the first


def init(
    key: jax.Array,
    config: DraftConfig,
    embedding: jax.Array,
    target_token: jax.Array,
    head: jax.Array | None = None,
) -> Eagle3Params:
    """Random weights around a given embedding and vocabulary map.

    Args:
      head: of a draft without its own; None = tied to the embedding.
    """
    E, dtype, norms = config.hidden_size, embedding.dtype, config.fuse_norms
    size = config.feature_count * config.target_hidden_size
    shapes = {"fuse": (size, E), **layers.map_shapes(config, inputs=2)}
    if config.own_head:
        shapes["head"] = (E, config.draft_vocab_size)
    ones = jnp.ones((E,), dtype)
    fuse_norm = jnp.ones((size // max(norms, 1),), dtype)
    further = jax.random.split(jax.random.fold_in(key, 1), config.layer_count)[1:]
    maps = {"head": head} | layers.random_maps(key, shapes, dtype)
    return Eagle3Params(
        embedding=embedding,
        input_norm=ones,
        hidden_norm=ones,
        post_attention_norm=ones,
        norm=ones,
        target_token=target_token.astype(jnp.int32),
        fuse_norms=(fuse_norm,) * norms,
        fuse_bias=jnp.zeros((E,), dtype) if config.fuse_bias else None,
        further=tuple(layers.random_layer(one, config, dtype) for one in further),
        **layers.attention_extras(config, dtype),
        **layers.layer_fields(maps),
    )


def fuse(params: Eagle3Params, config: DraftConfig, features_TE: jax.Array) -> jax.Array:
    """The target's features [T, features * target E] as draft features [T, E]."""
    if config.fuse_norms:
        T, norms = features_TE.shape[0], config.fuse_norms
        parts = features_TE.reshape(T, norms, -1)
        weights = jnp.concatenate(params.fuse_norms).reshape(norms, -1)
        features_TE = layers.rms_norm(parts, weights, config.rms_norm_eps).reshape(T, -1)
    fused_TE = layers.linear(features_TE, params.fuse)
    return fused_TE if params.fuse_bias is None else fused_TE + params.fuse_bias[None]


def embed_input(
    params: Eagle3Params, config: DraftConfig, tokens_T: jax.Array, features_TE: jax.Array
) -> jax.Array:
    """The stream [T, E] that the layers add to: the feature; the token comes in beside it."""
    return features_TE


def qkv(
    params: Eagle3Params,
    config: DraftConfig,
    tokens_T: jax.Array,
    stream_TE: jax.Array,
    positions_T: jax.Array,
    layer: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [T, H, C], rotated keys and values [T, K, C] of a layer.

    The first layer reads the embedding beside the stream, the embedding half first.
    """
    eps = config.rms_norm_eps
    turns = rope.tables(config, positions_T)
    if layer:
        return layers.layer_qkv(params.further[layer - 1], config, stream_TE, turns)
    embedded_TE = jnp.take(params.embedding, tokens_T, axis=0)
    x = jnp.concatenate(
        [
            layers.rms_norm(embedded_TE, params.input_norm, eps),
            layers.rms_norm(stream_TE, params.hidden_norm, eps),
        ],
        axis=-1,
    )
    return layers.qkv_heads(x, params.qkv, config, turns, params.qkv_bias, params.qk_norms)


def output(
    params: Eagle3Params,
    config: DraftConfig,
    stream_TE: jax.Array,
    mixed_TE: jax.Array,
    layer: int = 0,
) -> jax.Array:
    """Output projection, residual and feed-forward: the rest of a layer after attention."""
    eps = config.rms_norm_eps
    own = params.further[layer - 1] if layer else params
    if config.norm_before_residual and not layer:
        stream_TE = layers.rms_norm(stream_TE, params.hidden_norm, eps)
    stream_TE = layers.layer_output(own, config, stream_TE, mixed_TE)
    if config.norm_output and layer == config.layer_count - 1:
        return layers.rms_norm(stream_TE, params.norm, eps)
    return stream_TE


def logits(params: Eagle3Params, config: DraftConfig, hidden_TE: jax.Array) -> jax.Array:
    """Logits [T, Y] in f32 over the draft vocabulary."""
    if not config.norm_output:
        hidden_TE = layers.rms_norm(hidden_TE, params.norm, config.rms_norm_eps)
    head = params.embedding.T if params.head is None else params.head
    return layers.linear(hidden_TE, head, jnp.float32)
