"""The EAGLE-3 draft: one decoder layer that continues the target's features.

Enters: a token and the feature *before* it (row i: token t_{i+1} with the target's feature of
position i, at rotary position i), either the target's three-layer feature or the draft's own last
output. Leaves: log-probabilities over the draft vocabulary and the output fed to the next level.

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
from ltd_jax.models import layers


@struct.dataclass
class Eagle3Params:
    """Weights of the draft; linear maps are [in, out]; E is the draft's width.

    In blocks (models.blocks) as in `target.LayerParams`.
    """

    embedding: jax.Array  # [X, E], usually the target's
    fuse: jax.Array  # [3 * target E, E], "fc"
    input_norm: jax.Array  # [E], of the embedding
    hidden_norm: jax.Array  # [E], of the feature
    q: jax.Array  # [2E, H * C]
    k: jax.Array | None  # [2E, K * C]
    v: jax.Array | None  # [2E, K * C]
    o: jax.Array  # [H * C, E]
    post_attention_norm: jax.Array  # [E]
    gate: jax.Array  # [E, F]
    up: jax.Array | None  # [E, F]
    down: jax.Array  # [F, E]
    norm: jax.Array  # [E]
    head: jax.Array  # [E, Y]
    target_token: jax.Array  # i32 [Y], target id of every draft id (d2t + its own index)
    fuse_norm: jax.Array | None = None  # [3 * target E], before `fuse`; None = not in this draft


def init(
    key: jax.Array, config: DraftConfig, embedding: jax.Array, target_token: jax.Array
) -> Eagle3Params:
    """Random weights around a given embedding and vocabulary map."""
    E, F, dtype = config.hidden_size, config.intermediate_size, embedding.dtype
    query, kv = config.head_count * config.head_dim, config.kv_head_count * config.head_dim
    names = ("fuse", "q", "k", "v", "o", "gate", "up", "down", "head")
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def normal(name: str, rows: int, columns: int) -> jax.Array:
        return (rows**-0.5 * jax.random.normal(keys[name], (rows, columns))).astype(dtype)

    ones = jnp.ones((E,), dtype)
    return Eagle3Params(
        embedding=embedding,
        fuse=normal("fuse", 3 * config.target_hidden_size, E),
        input_norm=ones,
        hidden_norm=ones,
        q=normal("q", 2 * E, query),
        k=normal("k", 2 * E, kv),
        v=normal("v", 2 * E, kv),
        o=normal("o", query, E),
        post_attention_norm=ones,
        gate=normal("gate", E, F),
        up=normal("up", E, F),
        down=normal("down", F, E),
        norm=ones,
        head=normal("head", E, config.draft_vocab_size),
        target_token=target_token.astype(jnp.int32),
        fuse_norm=jnp.ones((3 * config.target_hidden_size,), dtype) if config.fuse_norms else None,
    )


def fuse(params: Eagle3Params, config: DraftConfig, features_TE: jax.Array) -> jax.Array:
    """The target's features [T, 3 * target E] as draft features [T, E]."""
    if config.fuse_norms:
        assert params.fuse_norm is not None  # read where the config has norms
        T, norms = features_TE.shape[0], config.fuse_norms
        parts, weights = features_TE.reshape(T, norms, -1), params.fuse_norm.reshape(norms, -1)
        features_TE = layers.rms_norm(parts, weights, config.rms_norm_eps).reshape(T, -1)
    return layers.linear(features_TE, params.fuse)


def enter(
    params: Eagle3Params, config: DraftConfig, tokens_T: jax.Array, features_TE: jax.Array
) -> jax.Array:
    """The stream [T, E] that the layer adds to: the feature; the token comes in beside it."""
    return features_TE


def project(
    params: Eagle3Params,
    config: DraftConfig,
    tokens_T: jax.Array,
    features_TE: jax.Array,
    positions_T: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [T, H, C], rotated keys and values [T, K, C]; the embedding half is first."""
    T, eps = tokens_T.shape[0], config.rms_norm_eps
    embedded_TE = jnp.take(params.embedding, tokens_T, axis=0)
    x = jnp.concatenate(
        [
            layers.rms_norm(embedded_TE, params.input_norm, eps),
            layers.rms_norm(features_TE, params.hidden_norm, eps),
        ],
        axis=-1,
    )
    maps = layers.three_maps(x, params.q, params.k, params.v, config.head_count * config.head_dim)
    q, k, v = (found.reshape(T, -1, config.head_dim) for found in maps)
    rope = layers.rope_tables(positions_T, config.head_dim, config.rope_theta, config.rope_scaling)
    return layers.rotate(q, *rope), layers.rotate(k, *rope), v


def finish(
    params: Eagle3Params, config: DraftConfig, features_TE: jax.Array, mixed_TE: jax.Array
) -> jax.Array:
    """Output projection, residual and feed-forward: the rest of the layer after attention."""
    eps = config.rms_norm_eps
    if config.norm_before_residual:
        features_TE = layers.rms_norm(features_TE, params.hidden_norm, eps)
    hidden_TE = features_TE + layers.linear(mixed_TE, params.o)
    x_TE = layers.rms_norm(hidden_TE, params.post_attention_norm, eps)
    hidden_TE = hidden_TE + layers.feed_forward(x_TE, params.gate, params.up, params.down)
    return layers.rms_norm(hidden_TE, params.norm, eps) if config.norm_output else hidden_TE


def logits(params: Eagle3Params, config: DraftConfig, hidden_TE: jax.Array) -> jax.Array:
    """Logits [T, Y] in f32 over the draft vocabulary."""
    if not config.norm_output:
        hidden_TE = layers.rms_norm(hidden_TE, params.norm, config.rms_norm_eps)
    return layers.linear(hidden_TE, params.head, jnp.float32)
