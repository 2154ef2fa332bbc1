"""Catch up: committed tokens, with the target's true features, enter the draft's cache.

A cycle begins with the tokens that the last one committed; the last of them is the root. How many
they are is known only when the program runs, and a processor pays for every row of a pass: so short
passes may be compiled beside the one that holds the longest path, and the shortest that will do is
run (`CycleConfig.short_catch_ups`).
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PairConfig
from ltd_jax.models import draft, kv_cache
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.kv_cache import KVCache, Rows


@struct.dataclass
class Pending:
    """Committed tokens that the draft has not seen yet, with the target's features before them."""

    token: jax.Array  # [D + 1] i32
    feature: jax.Array  # [D + 1, 3 * target E]; Griffin: [D + 1, E]
    count: jax.Array  # i32 [], valid rows; the last one is the root
    root_entropy: jax.Array  # f32 [] nats, of the target's distribution that the root came from


def catch_up(
    params: DraftParams, pair: PairConfig, pending: Pending, cache: KVCache
) -> tuple[jax.Array, KVCache]:
    """Feeds the pending tokens; returns the output [E] at the root and the cache, committed.

    The shortest pass that holds them is run, of `catch_up_rows` of the config.
    """
    most = pair.cycle.path_length

    def branch(T: int):
        def run(pending: Pending, cache: KVCache) -> tuple[jax.Array, Rows]:
            feature_TE = draft.fuse(params, pair.draft, pending.feature[:T])
            hidden_TE, rows = _causal_rows(params, pair, pending.token[:T], feature_TE, cache)
            unused = ((0, 0), (0, most - T), (0, 0))
            return hidden_TE[pending.count - 1], jax.tree.map(lambda x: jnp.pad(x, unused), rows)

        return run

    widths = pair.cycle.catch_up_rows
    too_short = jnp.sum(jnp.asarray(widths) < pending.count)
    hidden_E, rows = jax.lax.switch(too_short, [branch(T) for T in widths], pending, cache)
    return hidden_E, kv_cache.append(cache, rows, pending.count)


def causal_pass(
    params: DraftParams,
    pair: PairConfig,
    token_T: jax.Array,
    feature_TE: jax.Array,
    count: jax.Array,
    cache: KVCache,
) -> tuple[jax.Array, KVCache]:
    """A chain of tokens with true features: outputs [T, E]; `count` rows are committed."""
    hidden_TE, rows = _causal_rows(params, pair, token_T, feature_TE, cache)
    return hidden_TE, kv_cache.append(cache, rows, count)


def _causal_rows(
    params: DraftParams,
    pair: PairConfig,
    token_T: jax.Array,
    feature_TE: jax.Array,
    cache: KVCache,
) -> tuple[jax.Array, Rows]:
    """Outputs [T, E] of a chain of tokens with true features, and its rows."""
    T = token_T.shape[0]
    return draft.forward(
        params,
        pair.draft,
        token_T,
        feature_TE,
        cache.length + jnp.arange(T),
        cache,
        draft.empty_block(pair.draft, T, cache.keys[0].dtype),
        0,
        jnp.tril(jnp.ones((T, T), bool)),
    )
