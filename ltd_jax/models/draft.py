"""The draft as the cycle sees it: EAGLE-3 or Griffin, chosen by the type of its config.

Row i of a draft is token t_{i+1} with the target's feature of position i, at rotary position i.
A kind of draft is a module with `fuse`, `embed_input`, `qkv`, `output` and `logits`; attention over
the committed rows and a block of uncommitted ones is the same for all.
"""

from types import ModuleType

import jax
import jax.numpy as jnp

from ltd_jax.config import AnyDraftConfig, GriffinConfig
from ltd_jax.models import eagle3, griffin, layers
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.griffin import GriffinParams
from ltd_jax.models.kv_cache import KVCache, Rows

DraftParams = Eagle3Params | GriffinParams


def kind_of(config: AnyDraftConfig) -> ModuleType:
    """The module of a draft's kind."""
    return griffin if isinstance(config, GriffinConfig) else eagle3


def init(
    key: jax.Array,
    config: AnyDraftConfig,
    embedding: jax.Array,
    target_token: jax.Array,
    head: jax.Array | None = None,
) -> DraftParams:
    """Random weights around an embedding [X, E].

    Args:
      target_token: i32 [Y], target ids of an EAGLE-3 draft's ids; a Griffin draft speaks of all.
      head: the target's [E, X], which a draft without its own takes; None = tied to the embedding.
    """
    if isinstance(config, GriffinConfig):
        return griffin.init(key, config, embedding, head)
    return eagle3.init(key, config, embedding, target_token, head)


def empty_block(config: AnyDraftConfig, rows: int, dtype: jnp.dtype) -> Rows:
    """A block of `rows` rows that no pass has written."""
    blank = jnp.zeros((config.kv_head_count, rows, config.head_dim), dtype)
    return Rows((blank,) * config.layer_count, (blank,) * config.layer_count)


@jax.named_scope("draft")
def fuse(params: DraftParams, config: AnyDraftConfig, features_TE: jax.Array) -> jax.Array:
    """The target's features as draft features [T, E]."""
    return kind_of(config).fuse(params, config, features_TE)


@jax.named_scope("draft")
def forward(
    params: DraftParams,
    config: AnyDraftConfig,
    tokens_T: jax.Array,
    features_TE: jax.Array,
    positions_T: jax.Array,
    cache: KVCache | None,
    block: Rows,
    start: jax.Array | int,
    mask_TB: jax.Array,
) -> tuple[jax.Array, Rows]:
    """One draft pass over T rows of one sequence.

    Args:
      tokens_T: i32 target token ids.
      features_TE: fused target features, or the draft's own outputs.
      positions_T: i32 rotary positions, one less than the tokens' own positions.
      cache: committed rows, all of them visible but for those before a sliding window; only read.
        None = there are none, which is not the same program as a cache of zeros (layers.attention).
      block: rows [K, B, C] of every layer that are not committed; this pass writes rows
        [start, start + T).
      mask_TB: bool, which rows of the block each row sees: a path, in order, that it ends.

    Returns:
      The output that the next level and `log_probs` read ([T, E], Griffin's [T, 2E]), and the
      written block.
    """
    kind = kind_of(config)
    stream_TE = kind.embed_input(params, config, tokens_T, features_TE)
    keys, values = [], []
    for layer in range(config.layer_count):
        query_THC, key_TKC, value_TKC = kind.qkv(
            params, config, tokens_T, stream_TE, positions_T, layer
        )
        keys.append(_put(block.keys[layer], key_TKC, start))
        values.append(_put(block.values[layer], value_TKC, start))
        seen_TB, first_T = layers.sight(config, layer, mask_TB, positions_T)
        past = None if cache is None else cache.layer(layer)
        mixed_TE = layers.attention(query_THC, keys[-1], values[-1], seen_TB, past, first_T)
        stream_TE = kind.output(params, config, stream_TE, mixed_TE, layer)
    return stream_TE, Rows(tuple(keys), tuple(values))


def _put(block_KBC: jax.Array, rows_TKC: jax.Array, start: jax.Array | int) -> jax.Array:
    """The block with new rows at [start, start + T)."""
    rows_KTC = rows_TKC.transpose(1, 0, 2).astype(block_KBC.dtype)
    return jax.lax.dynamic_update_slice(block_KBC, rows_KTC, (0, start, 0))


@jax.named_scope("head")
def logits(params: DraftParams, config: AnyDraftConfig, hidden_TE: jax.Array) -> jax.Array:
    """Logits [T, Y] in f32 over the draft's vocabulary."""
    return kind_of(config).logits(params, config, hidden_TE)


def log_probs(params: DraftParams, config: AnyDraftConfig, hidden_TE: jax.Array) -> jax.Array:
    """Log-probabilities [T, Y] in f32, clamped to <= 0 so that no child outscores its parent."""
    return jnp.minimum(jax.nn.log_softmax(logits(params, config, hidden_TE), axis=-1), 0.0)
