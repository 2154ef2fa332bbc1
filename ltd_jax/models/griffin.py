"""The Griffin draft: a token corrects the feature twice, and two outputs are made of every row.

From "GRIFFIN: Effective Token Alignment for Faster Speculative Decoding" (arXiv 2502.11018), used
by the paper's Table 11. Enters: a token and the feature before it, either the target's last state
(after its last norm) or the draft's own last outputs. Leaves: two vectors side by side, the first
for the target's own head, the second for the next level.

    s = fuse([embedding, feature]) + bias                        token-guided fusion:
    s = s + down(silu(up([n(norm(s)), n(embedding)])))           n = guide norm, of both
    h = s + attention(s)                                         no norm before attention
    y = [h, h] + feed_forward(norm(h))                           2E wide
    log_probs = log_softmax(target's head(y[:E]))                without another norm
    feature of the next level = y[E:]
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import GriffinConfig
from ltd_jax.models import layers, rope
from ltd_jax.models.layers import Maps


@struct.dataclass
class GriffinParams:
    """Weights of the draft, as wide as the target; linear maps are [in, out] (models/layers.py)."""

    embedding: jax.Array  # [X, E], the target's
    fuse: jax.Array  # [2E, E]
    fuse_bias: jax.Array  # [E]
    fuse_norm: jax.Array  # [E], of the fused stream
    guide_norm: jax.Array  # [E], of the fused stream once more, and of the embedding
    guide_up: jax.Array  # [2E, F]
    guide_down: jax.Array  # [F, E]
    qkv: Maps  # [E, H * C], [E, K * C], [E, K * C]
    o: jax.Array  # [H * C, E]
    post_attention_norm: jax.Array  # [E]
    gate_up: Maps  # [E, F], [E, F]
    down: jax.Array  # [F, 2E]
    head: jax.Array | None  # [E, X], the target's; None = tied to the embedding
    target_token: jax.Array  # i32 [X], every token is its own
    qkv_bias: tuple[jax.Array, ...] = ()  # [H * C], [K * C], [K * C]; () = not in this draft


def init(
    key: jax.Array, config: GriffinConfig, embedding: jax.Array, head: jax.Array | None
) -> GriffinParams:
    """Random weights around the target's embedding and head."""
    E, F, dtype = config.hidden_size, config.intermediate_size, embedding.dtype
    layer = layers.map_shapes(config, outputs=2)
    shapes = {"fuse": (2 * E, E), "guide_up": (2 * E, F), "guide_down": (F, E), **layer}
    ones = jnp.ones((E,), dtype)
    biases = tuple(jnp.zeros((layer[name][1],), dtype) for name in "qkv")
    return GriffinParams(
        embedding=embedding,
        fuse_bias=jnp.zeros((E,), dtype),
        fuse_norm=ones,
        guide_norm=ones,
        post_attention_norm=ones,
        head=head,
        target_token=jnp.arange(config.vocab_size, dtype=jnp.int32),
        qkv_bias=biases if config.attention_bias else (),
        **layers.layer_fields(layers.random_maps(key, shapes, dtype)),
    )


def fuse(params: GriffinParams, config: GriffinConfig, features_TE: jax.Array) -> jax.Array:
    """The target's last states [T, E] are the draft's features as they are."""
    return features_TE


def embed_input(
    params: GriffinParams, config: GriffinConfig, tokens_T: jax.Array, features_TE: jax.Array
) -> jax.Array:
    """Token-guided fusion: the stream [T, E].

    Args:
      features_TE: target states [T, E], or outputs [T, 2E], of which the second half is read.
    """
    eps, E = config.rms_norm_eps, config.hidden_size
    embedded_TE = jnp.take(params.embedding, tokens_T, axis=0)
    pairs = jnp.concatenate([embedded_TE, features_TE[:, -E:]], axis=-1)
    stream_TE = layers.linear(pairs, params.fuse) + params.fuse_bias[None]
    normed_TE = layers.rms_norm(stream_TE, params.fuse_norm, eps)
    guides = [layers.rms_norm(x, params.guide_norm, eps) for x in (normed_TE, embedded_TE)]
    guided = jax.nn.silu(layers.linear(jnp.concatenate(guides, axis=-1), params.guide_up))
    return stream_TE + layers.linear(guided, params.guide_down)


def qkv(
    params: GriffinParams,
    config: GriffinConfig,
    tokens_T: jax.Array,
    stream_TE: jax.Array,
    positions_T: jax.Array,
    layer: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [T, H, C], rotated keys and values [T, K, C] of the stream itself.

    Args:
      layer: 0, the only one; other kinds of draft have more.
    """
    turns = rope.tables(config, positions_T)
    return layers.qkv_heads(stream_TE, params.qkv, config, turns, params.qkv_bias)


def output(
    params: GriffinParams,
    config: GriffinConfig,
    stream_TE: jax.Array,
    mixed_TE: jax.Array,
    layer: int = 0,
) -> jax.Array:
    """Output projection, residual, feed-forward: both outputs side by side, [T, 2E]."""
    hidden_TE = stream_TE + layers.linear(mixed_TE, params.o)
    x_TE = layers.rms_norm(hidden_TE, params.post_attention_norm, config.rms_norm_eps)
    twice = jnp.concatenate([hidden_TE, hidden_TE], axis=-1)
    return twice + layers.feed_forward(x_TE, params.gate_up, params.down)


def logits(params: GriffinParams, config: GriffinConfig, hidden: jax.Array) -> jax.Array:
    """Logits [T, X] in f32 of outputs [T, 2E]: the target's head on the first half."""
    head = params.embedding.T if params.head is None else params.head
    first_TE = hidden[:, : config.hidden_size]
    return layers.linear(first_TE, head, jnp.float32)
