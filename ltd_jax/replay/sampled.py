"""Reach: how likely a cycle gets to each node of a recorded tree, under the target's own law.

Children of a draft tree are fixed before the target speaks. Given that a node is reached, its
child x is accepted with the target's probability p[x] behind the node, under either rule of
cycle/walk.py; so the path down to a node is accepted with the product of p along it. Hence a cycle
that verifies some nodes accepts, on average, the sum of their products.

One pass of the target over the *expanded* nodes (the root and every frontier row) gives p of all:

    rows   [ root | W rows of level 1 | .. | W rows of level D - 1 ]     a row sees its ancestors

How a sampled text is replayed, and why both ways are right. The text's tokens X_1, X_2, .. are
draws of the target. A cycle at position n knows X_1..X_n, and the next one starts c_n tokens on.
What the trace counts, the tree's agreement with X_(n+1), X_(n+2), .., is what a live cycle accepts:
token for token under the coupled rule, and with the same law under the sequential one. So a walk
along the text is one fair draw of live decoding, whatever the controller. The mean of c_n given
X_1..X_n, which is all that a controller can have used, is 1 + the sum of `reach` over the chosen
nodes. Put in the place of c_n it changes no mean (the summed differences are a martingale) and
takes the noise of the draw away.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig, PairConfig
from ltd_jax.cycle import sample, select
from ltd_jax.cycle import tree as trees
from ltd_jax.cycle.prefill import prefill
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.files import UserError
from ltd_jax.models import target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.pair import Pair
from ltd_jax.models.target import TargetParams
from ltd_jax.policies.policy import constant
from ltd_jax.replay import trace as traces
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.trace import Trace

POSITIONS_AT_ONCE = 64
LOGITS_AT_ONCE = 2**27  # of all positions that are read side by side
CHUNK = 256  # positions per compiled call of `expected`


def add_reach(
    pair: Pair,
    prompts: Sequence[Prompt],
    trace: Trace,
    progress: Callable[[int], None] = lambda texts: None,
) -> Trace:
    """The trace of these prompts with `reach`.

    Args:
      progress: called with the number of texts that are done.

    Raises:
      UserError: the trace is not one of these prompts.
    """
    limit, texts = int(trace.provenance["new_tokens"]) - 1, len(trace.first)
    found: list[np.ndarray] = []
    places = np.split(np.arange(len(trace.remaining)), trace.first[1:])
    for prompt, root in _beginnings(pair, prompts, limit):
        place_P = places[min(len(found), texts - 1)]
        if len(found) == texts or trace.length[place_P[0]] != len(prompt.token):
            raise UserError("The trace was recorded from other prompts; record it again.")
        count = len(place_P)
        text_T = np.concatenate([prompt.token, [root], trace.continuation[place_P, 0]])
        tokens_S = np.pad(text_T, (0, pair.config.cycle.context - len(text_T)))
        fields = (trace.score, trace.token, trace.parent)
        tree = DraftTree(*[jnp.asarray(field[place_P]) for field in fields])
        left_P = limit - np.arange(count, dtype=np.int32)
        found.append(of_text(pair, tokens_S, trace.length[place_P], tree, left_P))
        progress(len(found))
    if len(found) != texts:
        raise UserError("The trace was recorded from other prompts; record it again.")
    return dataclasses.replace(trace, reach=np.concatenate(found))


def _beginnings(pair: Pair, prompts: Sequence[Prompt], limit: int) -> Iterator[tuple[Prompt, int]]:
    """Prompts whose texts have a position where a cycle can start, and their first tokens."""
    for prompt in prompts if limit > 0 else ():
        root = int(prefill(pair, constant(), prompt.token).root)
        if root not in pair.stop_tokens:
            yield prompt, root


def of_text(
    pair: Pair, tokens_S: np.ndarray, length_P: np.ndarray, tree: DraftTree, limit_P: np.ndarray
) -> np.ndarray:
    """Reach of every node of a text's trees, f32 [P, D, W, W]; 0 where there is no node.

    The probability that a cycle which verifies the node accepts it *and* that the text goes on
    behind it: 0 for stop tokens and where the text has its full length.

    Args:
      tokens_S: i32, the whole text, padded to the context.
      length_P: i32, tokens before each position's root.
      tree: with a leading axis [P].
      limit_P: i32, the most tokens that may follow each root.
    """
    cache = _read(pair.params.target, pair.config, jnp.asarray(tokens_S))
    at = partial(_trees, pair.params.target, pair.config, pair.stops, tokens_S, cache)
    found = []
    for start in range(0, len(length_P), POSITIONS_AT_ONCE):
        rows = np.minimum(np.arange(start, start + POSITIONS_AT_ONCE), len(length_P) - 1)
        piece = jax.tree.map(lambda leaf, rows=rows: leaf[rows], (length_P, tree, limit_P))
        found.append(np.asarray(at(*piece)))
    return np.concatenate(found)[: len(length_P)]


@partial(jax.jit, static_argnames="pair")
def _read(params: TargetParams, pair: PairConfig, tokens_S: jax.Array) -> KVCache:
    """The target's cache of a whole text."""
    S = tokens_S.shape[0]
    causal = jnp.tril(jnp.ones((S, S), bool))
    _, _, rows = target.forward(params, pair.target, tokens_S, jnp.arange(S), causal, None)
    return KVCache(rows.keys, rows.values, jnp.int32(S))


@partial(jax.jit, static_argnames="pair")
def _trees(
    params: TargetParams,
    pair: PairConfig,
    stops: jax.Array,
    tokens_S: jax.Array,
    cache: KVCache,
    *places: Any,
) -> jax.Array:
    """Reach of the trees at some positions of one text."""

    def one(place: tuple[jax.Array, DraftTree, jax.Array]) -> jax.Array:
        length, tree, limit = place
        before = cache.replace(length=length)
        p_DWW = _children(params, pair, tree, tokens_S, before)
        ends_DWW = jnp.isin(tree.token, stops)
        return _products(tree, jnp.where(ends_DWW, 0.0, p_DWW), limit)

    logits = (1 + pair.cycle.tree_rows) * pair.target.vocab_size
    side_by_side = max(1, min(POSITIONS_AT_ONCE, LOGITS_AT_ONCE // logits))
    return jax.lax.map(one, places, batch_size=side_by_side)


def _children(
    params: TargetParams, pair: PairConfig, tree: DraftTree, tokens_S: jax.Array, cache: KVCache
) -> jax.Array:
    """The target's probability [D, W, W] of every node behind its parent."""
    D, W = tree.parent.shape
    above_token = jnp.take_along_axis(
        tree.token[:-1].reshape(D - 1, W * W), tree.parent[1:], axis=1
    )
    token_T = jnp.concatenate([tokens_S[cache.length][None], above_token.reshape(-1)])
    slot = tree.parent[1:] // W + jnp.maximum(jnp.arange(-1, D - 2), 0)[:, None] * W
    above_row = jnp.where(jnp.arange(D - 1)[:, None] > 0, 1 + slot, 0)
    parent_T = jnp.concatenate([jnp.zeros((1,), jnp.int32), above_row.reshape(-1)])
    visible = select.ancestors(parent_T, D)
    depth_T = jnp.sum(visible, axis=1) - 1
    logits_TX, _, _ = target.forward(
        params, pair.target, token_T, cache.length + depth_T, visible, cache
    )
    law_TX = _laws(pair, logits_TX, tokens_S, cache.length, token_T, visible)
    below_TW = jnp.concatenate([tree.token[0, :1], tree.token[1:].reshape(-1, W)])
    p_TW = jnp.take_along_axis(law_TX, below_TW, axis=1)
    first_WW = jnp.zeros((W, W)).at[0].set(p_TW[0])  # level 1 has one slot
    return jnp.concatenate([first_WW[None], p_TW[1:].reshape(D - 1, W, W)])


def _laws(
    pair: PairConfig,
    logits_TX: jax.Array,
    tokens_S: jax.Array,
    length: jax.Array,
    token_T: jax.Array,
    visible: jax.Array,
) -> jax.Array:
    """Processed probabilities [T, X]; a penalty sees the text and the row's own ancestors."""
    law = partial(sample.law, config=pair.sampling)
    if pair.sampling.repetition_penalty == 1:
        return jax.vmap(lambda logits_X: law(logits_X, None))(logits_TX)
    T, X = logits_TX.shape
    before_S = jnp.where(jnp.arange(tokens_S.shape[0]) < length, tokens_S, X)
    seen_X = jnp.zeros((X,), bool).at[before_S].set(True, mode="drop")
    path_TX = jnp.zeros((T, X), bool).at[jnp.arange(T)[:, None], token_T[None, :]].max(visible)
    return jax.vmap(law)(logits_TX, seen_X[None, :] | path_TX)


def _products(tree: DraftTree, p_DWW: jax.Array, limit: jax.Array) -> jax.Array:
    """Products of p along every path; a node counts where `limit` leaves a token behind it."""

    def descend(above_N: jax.Array, level: Any) -> tuple[jax.Array, jax.Array]:
        p_WW, parent_W, score_WW = level
        product_WW = above_N[parent_W][:, None] * p_WW
        product_WW = jnp.where(score_WW > trees.NO_NODE, product_WW, 0.0)
        return product_WW.reshape(-1), product_WW

    D, W = tree.parent.shape
    root_N = jnp.zeros((W * W,)).at[0].set(1.0)  # of level 1, whatever parents are stored there
    parent_DW = tree.parent.at[0].set(0)
    _, product_DWW = jax.lax.scan(descend, root_N, (p_DWW, parent_DW, tree.score))
    counts_D = jnp.arange(D) + 2 <= limit
    return jnp.where(counts_D[:, None, None], product_DWW, 0.0)


def expected(trace: Trace, config: CycleConfig) -> np.ndarray:
    """Mean committed tokens of every setting at every position: f32 [P, D, V].

    1 + the sum of reach over the best `size` nodes of the first `levels` levels.

    Raises:
      UserError: the trace was recorded without reach, or with another cycle's configuration.
    """
    traces.check(trace, config)
    if trace.reach is None:
        raise UserError(
            "The trace holds no acceptance probabilities; record it again with reach, which "
            "training on expected tokens needs."
        )
    count, chunks = len(trace.remaining), []
    for start in range(0, count, CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), count - 1)  # one shape, one program
        chunks.append(np.asarray(_expected(config, trace.score[rows], trace.reach[rows])))
    return np.concatenate(chunks)[:count]


@partial(jax.jit, static_argnames="config")
@partial(jax.vmap, in_axes=(None, 0, 0))
def _expected(config: CycleConfig, score_DWW: jax.Array, reach_DWW: jax.Array) -> jax.Array:
    level_N = jnp.repeat(jnp.arange(config.max_levels), config.beam_width**2)
    score_N, reach_N = score_DWW.reshape(-1), reach_DWW.reshape(-1)

    def of_levels(levels: jax.Array) -> jax.Array:
        drafted_N = jnp.where(level_N < levels, score_N, trees.NO_NODE)
        best_score, best = jax.lax.top_k(drafted_N, config.sizes[-1])
        gain = jnp.where(best_score > trees.NO_NODE, reach_N[best], 0.0)
        sums = jnp.concatenate([jnp.zeros((1,)), jnp.cumsum(gain)])
        return 1 + sums[jnp.asarray(config.sizes)]

    return jax.vmap(of_levels)(jnp.arange(1, config.max_levels + 1))
