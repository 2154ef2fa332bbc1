"""Expand: the draft grows the tree, level by level, until the policy stops it (Sec. 3.2).

A cycle begins with the tokens that the last one committed; the last of them is the root. They enter
the draft's cache with the target's true features (`extend`), which gives the draft's output at the
root, and that gives level 1. Each further pass reads the W best nodes of the newest level and gives
each W children. The depth policy sits inside the loop, so drafting never returns to the host.

    block   [ level-2 pass: W rows | level-3 pass: W rows | ... ]   uncommitted, thrown away
    a tree row sees: all committed tokens, its own ancestors in the block, itself

How many tokens `extend` reads is known only when the program runs, and a CPU pays for every row of
a pass: so short passes may be compiled beside the one that holds the longest path, and the shortest
that will do is run (`CycleConfig.short_catch_ups`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.cycle import tree as trees
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.models import draft, kv_cache, layers
from ltd_jax.models.kv_cache import KVCache, Rows
from ltd_jax.models.pair import Model
from ltd_jax.policies.policy import LevelView, Policy, TreeView


@struct.dataclass
class PendingTokens:
    """Committed tokens that the draft has not seen yet, with the target's features before them."""

    token: jax.Array  # [D + 1] i32
    feature: jax.Array  # [D + 1, 3 * target E]; Griffin: [D + 1, E]
    count: jax.Array  # i32 [], valid rows; the last one is the root
    root_entropy: jax.Array  # f32 [] nats, of the target's distribution that the root came from


@struct.dataclass
class Frontier:
    """The W nodes that the next draft pass reads."""

    token: jax.Array  # [W] i32
    feature: jax.Array  # [W, E] the draft's output at their parents; Griffin: [W, 2E]
    log_prob: jax.Array  # [W] f32 cumulative
    parent: jax.Array  # [W] i32, slot * W + child in the newest level
    mask: jax.Array  # [W, (D - 1) * W] bool, block rows of their ancestors


@struct.dataclass
class Children:
    """The draft's most probable next tokens after T rows."""

    log_prob: jax.Array  # [T, W] f32, of each row's W most probable next tokens
    token: jax.Array  # [T, W] i32, their target ids
    entropy: jax.Array  # [T] f32 nats, of the row's whole distribution


@struct.dataclass
class Expansion:
    """A growing tree."""

    tree: DraftTree
    frontier: Frontier
    block: Rows  # (D - 1) * W uncommitted draft rows
    levels: jax.Array  # i32 [], draft passes so far
    going: jax.Array  # bool [], draft another level?
    entropy: jax.Array  # [D, W] f32 nats, of the draft's distribution at each row; 0 = no row
    hidden: jax.Array  # [D, W, E] the draft's outputs at the rows; 0 = no row
    history: Any = ()  # the policy's


def expand(
    model: Model, policy: Policy, history: Any, pending: PendingTokens, cache: KVCache
) -> tuple[Expansion, KVCache]:
    """The whole drafting of one cycle: extend, level 1, and on while the policy says so."""
    config = model.config.cycle
    length = cache.length + pending.count

    def decide(expansion: Expansion) -> Expansion:
        view = level_view(expansion, length, pending.root_entropy)
        history = policy.observe_level(expansion.history, view, config)
        wanted = policy.keep_drafting(history, view, config)
        going = wanted & (expansion.levels < config.max_levels)
        return expansion.replace(going=going, history=history)

    hidden_E, cache = extend(model, pending, cache)
    expansion = jax.lax.while_loop(
        lambda expansion: expansion.going,
        lambda expansion: decide(add_level(model, cache, expansion)),
        decide(first_level(model, hidden_E).replace(history=history)),
    )
    return expansion, cache


def extend(model: Model, pending: PendingTokens, cache: KVCache) -> tuple[jax.Array, KVCache]:
    """Feeds the pending tokens; returns the output [E] at the root and the cache, committed.

    The shortest pass that holds them is run, of `catch_up_rows` of the config.
    """
    config = model.config.cycle

    def branch(T: int):
        def run(pending: PendingTokens, cache: KVCache) -> tuple[jax.Array, Rows]:
            hidden_TE, rows = causal_rows(model, pending.token[:T], pending.feature[:T], cache)
            unused = ((0, 0), (0, config.path_length - T), (0, 0))
            return hidden_TE[pending.count - 1], jax.tree.map(lambda x: jnp.pad(x, unused), rows)

        return run

    widths = config.catch_up_rows
    too_short = jnp.sum(jnp.asarray(widths) < pending.count)
    hidden_E, rows = jax.lax.switch(too_short, [branch(T) for T in widths], pending, cache)
    return hidden_E, kv_cache.append(cache, rows, pending.count)


def causal_rows(
    model: Model, token_T: jax.Array, feature_TE: jax.Array, cache: KVCache | None
) -> tuple[jax.Array, Rows]:
    """Outputs [T, E] of a chain of tokens with the target's features before them, and its rows.

    Args:
      cache: what was committed before; None = nothing.
    """
    config, T = model.config.draft, token_T.shape[0]
    before = 0 if cache is None else cache.length
    return draft.forward(
        model.draft,
        config,
        token_T,
        draft.fuse(model.draft, config, feature_TE),
        before + jnp.arange(T),
        cache,
        draft.empty_block(config, T, feature_TE.dtype),
        0,
        jnp.tril(jnp.ones((T, T), bool)),
    )


def first_level(model: Model, hidden_E: jax.Array) -> Expansion:
    """The root's W most probable children."""
    config = model.config.cycle
    D, W, tree_rows = config.max_levels, config.beam_width, config.tree_rows
    hidden_WE = jnp.broadcast_to(hidden_E, (W, hidden_E.shape[0]))
    children = _children(model, hidden_E[None, :])
    log_prob_WW = jnp.full((W, W), trees.NO_NODE, jnp.float32).at[0].set(children.log_prob[0])
    token_WW = jnp.zeros((W, W), jnp.int32).at[0].set(children.token[0])
    no_parent_W = jnp.zeros((W,), jnp.int32)
    no_ancestors = jnp.zeros((W, tree_rows), bool)
    return Expansion(
        tree=trees.write_level(trees.empty(config), 0, log_prob_WW, token_WW, no_parent_W),
        frontier=_best_children(log_prob_WW, token_WW, hidden_WE, no_ancestors),
        block=draft.empty_block(model.config.draft, tree_rows, hidden_E.dtype),
        levels=jnp.int32(1),
        going=jnp.bool_(True),
        entropy=jnp.zeros((D, W), jnp.float32).at[0].set(children.entropy),
        hidden=jnp.zeros((D, *hidden_WE.shape), hidden_E.dtype).at[0].set(hidden_WE),
    )


def add_level(model: Model, cache: KVCache, expansion: Expansion) -> Expansion:
    """One draft pass over the frontier: its children become the newest level."""
    config, frontier = model.config.cycle, expansion.frontier
    W = config.beam_width
    start = (expansion.levels - 1) * W
    itself = start + jnp.arange(W)[:, None] == jnp.arange(config.tree_rows)[None, :]
    mask = frontier.mask | itself
    hidden_WE, block = draft.forward(
        model.draft,
        model.config.draft,
        frontier.token,
        frontier.feature,
        jnp.full((W,), cache.length + expansion.levels - 1),
        cache,
        expansion.block,
        start,
        mask,
    )
    children = _children(model, hidden_WE)
    log_prob_WW = frontier.log_prob[:, None] + children.log_prob
    put = lambda rows, row: jax.lax.dynamic_update_index_in_dim(rows, row, expansion.levels, 0)
    return expansion.replace(
        tree=trees.write_level(
            expansion.tree, expansion.levels, log_prob_WW, children.token, frontier.parent
        ),
        frontier=_best_children(log_prob_WW, children.token, hidden_WE, mask),
        block=block,
        levels=expansion.levels + 1,
        entropy=put(expansion.entropy, children.entropy),
        hidden=put(expansion.hidden, hidden_WE),
    )


def full_expansion(model: Model, hidden_E: jax.Array, cache: KVCache) -> Expansion:
    """All levels: they contain the tree of every smaller number of levels."""
    grow = lambda _, expansion: add_level(model, cache, expansion)
    first = first_level(model, hidden_E)
    return jax.lax.fori_loop(1, model.config.cycle.max_levels, grow, first)


def level_view(expansion: Expansion, length: jax.Array, root_entropy: jax.Array) -> LevelView:
    """A policy's view of the newest level; `length` committed tokens are before the root."""
    newest = lambda rows: jnp.take(rows, expansion.levels - 1, axis=0)
    return LevelView(
        log_prob=newest(expansion.tree.log_prob),
        levels=expansion.levels,
        length=length,
        entropy=newest(expansion.entropy),
        hidden=newest(expansion.hidden),
        root_entropy=root_entropy,
        parent=newest(expansion.tree.parent),
    )


def tree_view(expansion: Expansion, length: jax.Array, root_entropy: jax.Array) -> TreeView:
    """A policy's view of the whole tree."""
    return TreeView(
        log_prob=expansion.tree.log_prob,
        levels=expansion.levels,
        length=length,
        entropy=expansion.entropy,
        root_entropy=root_entropy,
        parent=expansion.tree.parent,
    )


def _children(model: Model, hidden_TE: jax.Array) -> Children:
    """The W most probable next tokens of each row."""
    config = model.config
    log_prob_TY = draft.log_probs(model.draft, config.draft, hidden_TE)
    if config.sampling.draft_temperature != 1:
        log_prob_TY = jax.nn.log_softmax(log_prob_TY / config.sampling.draft_temperature)
    log_prob_TW, draft_token_TW = jax.lax.top_k(log_prob_TY, config.cycle.beam_width)
    token_TW = jnp.take(model.draft.target_token, draft_token_TW)
    return Children(log_prob_TW, token_TW, layers.entropy(log_prob_TY))


def _best_children(
    log_prob_WW: jax.Array, token_WW: jax.Array, hidden_WE: jax.Array, mask: jax.Array
) -> Frontier:
    """The W best nodes of a level, with what the next pass needs of their parents."""
    W = log_prob_WW.shape[0]
    log_prob_W, child_W = jax.lax.top_k(log_prob_WW.reshape(-1), W)
    row_W = child_W // W
    return Frontier(
        token=jnp.take(token_WW.reshape(-1), child_W),
        feature=jnp.take(hidden_WE, row_W, axis=0),
        log_prob=log_prob_W,
        parent=child_W.astype(jnp.int32),
        mask=jnp.take(mask, row_W, axis=0),
    )
