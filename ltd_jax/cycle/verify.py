"""Verify: one target pass over the chosen nodes, and how far it agrees with them (Sec. 3.2).

A node is accepted when it and all its ancestors equal what the target would have said at their
parents. Siblings differ, so the accepted nodes form one path. The target's own next token after
that path is gained in any case: it becomes the next root. Greedy acceptance is here; acceptance of
sampled tokens is in accept.py.
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.cycle import accept, sample, select
from ltd_jax.cycle.sample import SamplingState
from ltd_jax.cycle.select import Candidates
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.models import kv_cache, layers, target
from ltd_jax.models.kv_cache import KVCache, Rows
from ltd_jax.models.pair import Model


@struct.dataclass
class Acceptance:
    """The accepted path; rows of it beyond `accepted` mean nothing."""

    path: jax.Array  # [D + 1] i32 candidate rows from the root to the last accepted node
    accepted: jax.Array  # i32 [], drafted tokens that the target agreed with
    next_token: jax.Array  # i32 [], the target's own token after the path


@struct.dataclass
class VerifyResult:
    """One target pass and its acceptance; everything along the accepted path, D + 1 rows."""

    rows: Rows  # keys and values to append to the target's cache
    token: jax.Array  # [D + 1] i32: accepted tokens, then the target's own, then nothing
    feature: jax.Array  # [D + 1, 3E] features along the path
    accepted: jax.Array  # i32 []
    root_entropy: jax.Array  # f32 [] nats, of the target's distribution after the path
    sampling: SamplingState | None  # of the text with these tokens


def verify(
    model: Model,
    tree: DraftTree,
    root: jax.Array,
    size_index: jax.Array,
    cache: KVCache,
    sampling: SamplingState | None = None,
) -> VerifyResult:
    """Verifies `config.sizes[size_index]` nodes; each size is a branch with its own shapes."""

    def branch(size: int):
        return lambda tree, root, *state: _verify_size(model, tree, root, size, *state)

    branches = [branch(size) for size in model.config.cycle.sizes]
    return jax.lax.switch(size_index, branches, tree, root, cache, sampling)


def _verify_size(
    model: Model,
    tree: DraftTree,
    root: jax.Array,
    size: int,
    cache: KVCache,
    sampling: SamplingState | None,
) -> VerifyResult:
    cycle = model.config.cycle
    candidates = select.select(tree, root, size, cycle)
    logits_TX, feature_TE, rows = target.forward(
        model.target,
        model.config.target,
        candidates.token,
        cache.length + candidates.depth,
        candidates.mask,
        cache,
    )
    if sampling is None:
        result = accept_greedy(candidates, sample.argmax(logits_TX), cycle.path_length)
    else:
        sampled = accept.accept_sampled(model.config, candidates, logits_TX, cache.length, sampling)
        result = Acceptance(sampled.path, sampled.accepted, sampled.next_token)
        sampling = sampled.sampling
    follow = jnp.concatenate([candidates.token[result.path[1:]], result.next_token[None]])
    last = jnp.arange(cycle.path_length) == result.accepted
    last_logits_X = logits_TX[result.path[result.accepted]]
    return VerifyResult(
        rows=kv_cache.take(rows, result.path),
        token=jnp.where(last, result.next_token, follow),
        feature=feature_TE[result.path],
        accepted=result.accepted,
        root_entropy=layers.entropy(jax.nn.log_softmax(last_logits_X)),
        sampling=sampling,
    )


def accept_greedy(candidates: Candidates, choice_T: jax.Array, path_length: int) -> Acceptance:
    """The longest path on which every node is the target's choice at its parent.

    Args:
      choice_T: i32, the target's greedy token after each candidate row.
      path_length: most rows of a path, D + 1.
    """
    agrees_T = candidates.present & (candidates.token == choice_T[candidates.parent])
    agrees_T = agrees_T.at[0].set(True)
    alive_T = ~jnp.any(candidates.mask & ~agrees_T[None, :], axis=1)
    last = jnp.argmax(jnp.where(alive_T, candidates.depth, -1))
    on_path_T = candidates.mask[last]
    at_depth = candidates.depth[None, :] == jnp.arange(path_length)[:, None]
    path = jnp.argmax(on_path_T[None, :] & at_depth, axis=1).astype(jnp.int32)
    return Acceptance(
        path, candidates.depth[last].astype(jnp.int32), choice_T[last].astype(jnp.int32)
    )
