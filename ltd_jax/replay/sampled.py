"""Acceptance probabilities: how likely a cycle accepts each node of a recorded tree when sampling.

Children of a draft tree are fixed before the target speaks. Given that a node is reached, its
child x is accepted with the target's probability p[x] after the node, under either rule of
cycle/accept.py; so the path down to a node is accepted with the product of p along it. Hence a
cycle that verifies some nodes accepts, on average, the sum of their products (`trace.expected`).

One pass of the target over the *expanded* nodes (the root and every frontier row) gives p of all:

    rows   [ root | W rows of level 1 | .. | W rows of level D - 1 ]     a row sees its ancestors

How a sampled text is replayed, and why both ways are right. The text's tokens X_1, X_2, .. are
draws of the target. A cycle at position n knows X_1..X_n, and the next one starts c_n tokens on.
What the trace counts, the tree's agreement with X_(n+1), X_(n+2), .., is what a live cycle accepts:
token for token under the coupled rule, and with the same distribution under the sequential one. So
a simulation along the text is one fair draw of live decoding, whatever the policy. The mean of c_n
given X_1..X_n, which is all that a policy can have used, is 1 + the sum of `accept_prob` over the
chosen nodes. Put in the place of c_n it changes no mean (the summed differences are a martingale)
and takes the noise of the draw away.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import PairConfig
from ltd_jax.cycle import sample, select
from ltd_jax.cycle import tree as trees
from ltd_jax.cycle.prefill import check_tokens, prefill
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.files import UserError, require_finite
from ltd_jax.models import target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.pair import Model, Pair
from ltd_jax.replay import trace as traces
from ltd_jax.replay.record import POSITIONS_AT_ONCE, Prompt
from ltd_jax.replay.trace import Trace

LOGITS_AT_ONCE = 2**27  # of all positions that are read side by side


def add_accept_prob(
    pair: Pair,
    prompts: Sequence[Prompt],
    trace: Trace,
    progress: Callable[[float], None] = lambda share: None,
) -> Trace:
    """The trace of these prompts with `accept_prob`.

    Args:
      progress: called with the share that is done.

    Raises:
      UserError: the trace is not one of these prompts, or a probability is NaN.
    """
    limit, start = int(trace.provenance["new_tokens"]) - 1, trace.text_start
    beginnings = list(_text_beginnings(pair, prompts, limit))
    if [len(prompt.token) for prompt, _ in beginnings] != trace.length[start].tolist():
        raise UserError("The trace was recorded from other prompts; record it again.")
    probs: list[np.ndarray] = []
    positions = np.split(np.arange(len(trace.tokens_left)), start[1:])
    for (prompt, root), position_P in zip(beginnings, positions, strict=True):
        text_T = np.concatenate([prompt.token, [root], trace.continuation[position_P, 0]])
        tokens_S = np.pad(text_T, (0, pair.config.cycle.context - len(text_T)))
        fields = (trace.log_prob, trace.token, trace.parent)
        tree = DraftTree(*[jnp.asarray(field[position_P]) for field in fields])
        left_P = limit - np.arange(len(position_P), dtype=np.int32)
        probs.append(accept_prob(pair, tokens_S, trace.length[position_P], tree, left_P))
        require_finite(
            f"Text {len(probs)} cannot be judged in {np.dtype(pair.dtype).name}",
            {f"accept_prob of {pair.names[0]}": probs[-1]},
            remedy="give another `dtype`, or check its weights",
        )
        progress(len(probs) / len(start))
    return dataclasses.replace(trace, accept_prob=np.concatenate(probs))


def _text_beginnings(
    pair: Pair, prompts: Sequence[Prompt], limit: int
) -> Iterator[tuple[Prompt, int]]:
    """Prompts whose texts have a position where a cycle can start, and their first tokens."""
    for prompt in prompts if limit > 0 else ():
        root = int(prefill(pair, prompt.token).root)
        check_tokens(pair, (root,))
        if root not in pair.stop_tokens:
            yield prompt, root


def accept_prob(
    pair: Pair, tokens_S: np.ndarray, length_P: np.ndarray, tree: DraftTree, limit_P: np.ndarray
) -> np.ndarray:
    """The probability of every node of a text's trees, f32 [P, D, W, W]; 0 where there is no node.

    That a cycle which verifies the node accepts it *and* that the text goes on after it: 0 for stop
    tokens and where the text has its full length.

    Args:
      tokens_S: i32, the whole text, padded to the context.
      length_P: i32, tokens before each position's root; of the first, the prompt's.
      tree: with a leading axis [P].
      limit_P: i32, the most tokens that may follow each root.
    """
    cache = _read_text(pair.model, jnp.asarray(tokens_S), jnp.int32(length_P[0]))
    at_positions = partial(_of_trees, pair.model, pair.stops, tokens_S, cache)
    return traces.by_chunks(at_positions, POSITIONS_AT_ONCE, length_P, tree, limit_P)


@jax.jit
def _read_text(model: Model, tokens_S: jax.Array, prompt: jax.Array) -> KVCache:
    """The target's cache of a whole text that begins with so many tokens of a prompt."""
    _, _, rows = target.causal_forward(model.target, model.config.target, tokens_S, None, prompt)
    return KVCache(rows.keys, rows.values, jnp.int32(len(tokens_S)))


@jax.jit
def _of_trees(
    model: Model,
    stops: jax.Array,
    tokens_S: jax.Array,
    cache: KVCache,
    length_P: jax.Array,
    tree: DraftTree,
    limit_P: jax.Array,
) -> jax.Array:
    """`accept_prob` of the trees at some positions of one text."""

    def at_position(position: tuple[jax.Array, DraftTree, jax.Array]) -> jax.Array:
        length, tree, limit = position
        p_DWW = _child_probs(model, tree, tokens_S, cache.replace(length=length))
        ends_DWW = jnp.isin(tree.token, stops)
        return _path_products(tree, jnp.where(ends_DWW, 0.0, p_DWW), limit)

    logits = (1 + model.config.cycle.tree_rows) * model.config.target.vocab_size
    side_by_side = max(1, min(POSITIONS_AT_ONCE, LOGITS_AT_ONCE // logits))
    return jax.lax.map(at_position, (length_P, tree, limit_P), batch_size=side_by_side)


def _child_probs(model: Model, tree: DraftTree, tokens_S: jax.Array, cache: KVCache) -> jax.Array:
    """The target's probability [D, W, W] of every node after its parent."""
    D, W = tree.parent.shape
    above_token = jnp.take_along_axis(
        tree.token[:-1].reshape(D - 1, W * W), tree.parent[1:], axis=1
    )
    token_T = jnp.concatenate([tokens_S[cache.length][None], above_token.reshape(-1)])
    slot = tree.parent[1:] // W + jnp.maximum(jnp.arange(-1, D - 2), 0)[:, None] * W
    above_row = jnp.where(jnp.arange(D - 1)[:, None] > 0, 1 + slot, 0)
    parent_T = jnp.concatenate([jnp.zeros((1,), jnp.int32), above_row.reshape(-1)])
    mask = select.ancestors(parent_T, D)
    depth_T = jnp.sum(mask, axis=1) - 1
    logits_TX, _, _ = target.forward(
        model.target, model.config.target, token_T, cache.length + depth_T, mask, cache
    )
    p_TX = _target_probs(model.config, logits_TX, tokens_S, cache.length, token_T, mask)
    child_TW = jnp.concatenate([tree.token[0, :1], tree.token[1:].reshape(-1, W)])
    p_TW = jnp.take_along_axis(p_TX, child_TW, axis=1)
    first_WW = jnp.zeros((W, W)).at[0].set(p_TW[0])  # level 1 has one slot
    return jnp.concatenate([first_WW[None], p_TW[1:].reshape(D - 1, W, W)])


def _target_probs(
    config: PairConfig,
    logits_TX: jax.Array,
    tokens_S: jax.Array,
    length: jax.Array,
    token_T: jax.Array,
    mask: jax.Array,
) -> jax.Array:
    """Processed probabilities [T, X]; a penalty sees the text and the row's own ancestors."""
    target_probs = partial(sample.target_probs, config=config.sampling)
    if config.sampling.repetition_penalty == 1:
        return jax.vmap(lambda logits_X: target_probs(logits_X, None))(logits_TX)
    T, X = logits_TX.shape
    before_S = jnp.where(jnp.arange(tokens_S.shape[0]) < length, tokens_S, X)
    seen_X = jnp.zeros((X,), bool).at[before_S].set(True, mode="drop")
    path_TX = jnp.zeros((T, X), bool).at[jnp.arange(T)[:, None], token_T[None, :]].max(mask)
    return jax.vmap(target_probs)(logits_TX, seen_X[None, :] | path_TX)


def _path_products(tree: DraftTree, p_DWW: jax.Array, limit: jax.Array) -> jax.Array:
    """Products of p along every path; a node counts where `limit` leaves a token after it."""

    def descend(above_N: jax.Array, level: Any) -> tuple[jax.Array, jax.Array]:
        p_WW, parent_W, log_prob_WW = level
        product_WW = above_N[parent_W][:, None] * p_WW
        product_WW = jnp.where(log_prob_WW > trees.NO_NODE, product_WW, 0.0)
        return product_WW.reshape(-1), product_WW

    D, W = tree.parent.shape
    root_N = jnp.zeros((W * W,)).at[0].set(1.0)  # of level 1, whatever parents are stored there
    parent_DW = tree.parent.at[0].set(0)
    _, product_DWW = jax.lax.scan(descend, root_N, (p_DWW, parent_DW, tree.log_prob))
    counts_D = jnp.arange(D) + 2 <= limit
    return jnp.where(counts_D[:, None, None], product_DWW, 0.0)
