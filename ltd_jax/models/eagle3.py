"""The EAGLE-3 draft: one decoder layer that continues the target's features.

Enters: a token and the feature *before* it, either the target's three-layer feature or the draft's
own last output. Leaves: log-probabilities over the draft vocabulary and the output fed to the next
level.

    x = [norm(embedding), norm(feature)]          queries, keys, values read 2E wide rows
    h = feature + attention(x)                    the residual is the raw feature
    h = h + feed_forward(norm(h))                 this is fed back
    log_probs = log_softmax(head(norm(h)))        over the draft vocabulary

Later trainers moved some norms; these are switches of `DraftConfig`.
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import DraftConfig
from ltd_jax.models import layers, rope
from ltd_jax.models.layers import Maps


@struct.dataclass
class Eagle3Params:
    """Weights of the draft, E wide; linear maps are [in, out] (models/layers.py)."""

    embedding: jax.Array  # [X, E], usually the target's
    fuse: jax.Array  # [3 * target E, E], "fc"
    input_norm: jax.Array  # [E], of the embedding
    hidden_norm: jax.Array  # [E], of the feature
    qkv: Maps  # [2E, H * C], [2E, K * C], [2E, K * C]
    o: jax.Array  # [H * C, E]
    post_attention_norm: jax.Array  # [E]
    gate_up: Maps  # [E, F], [E, F]
    down: jax.Array  # [F, E]
    norm: jax.Array  # [E]
    head: jax.Array  # [E, Y]
    target_token: jax.Array  # i32 [Y], target id of every draft id (d2t + its own index)
    # Before `fuse`: one norm [3 * target E] of all features, one [target E] of each, or none.
    fuse_norms: tuple[jax.Array, ...] = ()


def init(
    key: jax.Array, config: DraftConfig, embedding: jax.Array, target_token: jax.Array
) -> Eagle3Params:
    """Random weights around a given embedding and vocabulary map."""
    E, dtype, norms = config.hidden_size, embedding.dtype, config.fuse_norms
    shapes = {
        "fuse": (3 * config.target_hidden_size, E),
        **layers.map_shapes(config, inputs=2),
        "head": (E, config.draft_vocab_size),
    }
    ones = jnp.ones((E,), dtype)
    fuse_norm = jnp.ones((3 * config.target_hidden_size // max(norms, 1),), dtype)
    return Eagle3Params(
        embedding=embedding,
        input_norm=ones,
        hidden_norm=ones,
        post_attention_norm=ones,
        norm=ones,
        target_token=target_token.astype(jnp.int32),
        fuse_norms=(fuse_norm,) * norms,
        **layers.layer_fields(layers.random_maps(key, shapes, dtype)),
    )


def fuse(params: Eagle3Params, config: DraftConfig, features_TE: jax.Array) -> jax.Array:
    """The target's features [T, 3 * target E] as draft features [T, E]."""
    if config.fuse_norms:
        T, norms = features_TE.shape[0], config.fuse_norms
        parts = features_TE.reshape(T, norms, -1)
        weights = jnp.concatenate(params.fuse_norms).reshape(norms, -1)
        features_TE = layers.rms_norm(parts, weights, config.rms_norm_eps).reshape(T, -1)
    return layers.linear(features_TE, params.fuse)


def embed_input(
    params: Eagle3Params, config: DraftConfig, tokens_T: jax.Array, features_TE: jax.Array
) -> jax.Array:
    """The stream [T, E] that the layer adds to: the feature; the token comes in beside it."""
    return features_TE


def qkv(
    params: Eagle3Params,
    config: DraftConfig,
    tokens_T: jax.Array,
    features_TE: jax.Array,
    positions_T: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [T, H, C], rotated keys and values [T, K, C]; the embedding half is first."""
    eps = config.rms_norm_eps
    embedded_TE = jnp.take(params.embedding, tokens_T, axis=0)
    x = jnp.concatenate(
        [
            layers.rms_norm(embedded_TE, params.input_norm, eps),
            layers.rms_norm(features_TE, params.hidden_norm, eps),
        ],
        axis=-1,
    )
    turns = rope.tables(config, positions_T)
    return layers.qkv_heads(x, params.qkv, config, turns)


def output(
    params: Eagle3Params, config: DraftConfig, features_TE: jax.Array, mixed_TE: jax.Array
) -> jax.Array:
    """Output projection, residual and feed-forward: the rest of the layer after attention."""
    eps = config.rms_norm_eps
    if config.norm_before_residual:
        features_TE = layers.rms_norm(features_TE, params.hidden_norm, eps)
    hidden_TE = features_TE + layers.linear(mixed_TE, params.o)
    x_TE = layers.rms_norm(hidden_TE, params.post_attention_norm, eps)
    hidden_TE = hidden_TE + layers.feed_forward(x_TE, params.gate_up, params.down)
    return layers.rms_norm(hidden_TE, params.norm, eps) if config.norm_output else hidden_TE


def logits(params: Eagle3Params, config: DraftConfig, hidden_TE: jax.Array) -> jax.Array:
    """Logits [T, Y] in f32 over the draft vocabulary."""
    if not config.norm_output:
        hidden_TE = layers.rms_norm(hidden_TE, params.norm, config.rms_norm_eps)
    return layers.linear(hidden_TE, params.head, jnp.float32)
