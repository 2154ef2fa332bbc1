"""One cycle: expand, observe, select, verify, commit, without a trip to the host.

`plain` is the autoregressive step in the same stack. `cycle.loop` compiles both.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PairConfig
from ltd_jax.cycle import expand, sample, verify
from ltd_jax.cycle.catch_up import Pending
from ltd_jax.cycle.pair import PairParams
from ltd_jax.cycle.sample import SamplingState
from ltd_jax.models import kv_cache, target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.target import TargetParams
from ltd_jax.policies import controller as controllers
from ltd_jax.policies.controller import Controller, Outcome


@struct.dataclass
class CycleState:
    """One sequence between two cycles; draft_cache.length + pending.count = target_cache.length."""

    target_cache: KVCache
    draft_cache: KVCache
    root: jax.Array  # i32 []
    pending: Pending
    memory: Any  # the controller's own state
    sampling: SamplingState | None = None  # None = greedy


@struct.dataclass
class PlainState:
    """One sequence between two plain steps."""

    cache: KVCache  # the target's
    root: jax.Array  # i32 []
    sampling: SamplingState | None = None  # None = greedy


def plain_of(state: CycleState) -> PlainState:
    """The same place in the text for plain decoding; shares the state's buffers."""
    return PlainState(state.target_cache, state.root, state.sampling)


@struct.dataclass
class CycleResult:
    """What one cycle gave to the text."""

    token: jax.Array  # [D + 1] i32, the first `committed` are the text's next tokens
    committed: jax.Array  # i32 []
    accepted: jax.Array  # i32 []
    levels: jax.Array  # i32 []
    size: jax.Array  # i32 [], index into config.sizes


def cycle(
    params: PairParams,
    pair: PairConfig,
    controller: Controller,
    controller_params: Any,
    state: CycleState,
) -> tuple[CycleState, CycleResult]:
    """One draft-and-verify round of one sequence."""
    expansion, draft_cache = expand.expand(
        params.draft,
        pair,
        controller,
        controller_params,
        state.memory,
        state.pending,
        state.draft_cache,
    )
    seen = (state.target_cache.length, state.pending.root_entropy)
    level, view = expand.level_view(expansion, *seen), expand.tree_view(expansion, *seen)
    size = controller.choose_size(controller_params, expansion.memory, view)
    rank = controllers.ranked(controller, controller_params, expansion.memory, view)
    tree = expansion.tree.replace(score=rank)
    verified = verify.verify(
        params.target, pair, tree, state.root, size, state.target_cache, state.sampling
    )
    committed = verified.accepted + 1
    outcome = Outcome(expansion.levels, size, verified.accepted)
    asked = (controller, controller_params, state.memory, level, view)
    entropy = verified.root_entropy if controllers.reads_root_entropy(*asked) else seen[1]
    next_state = CycleState(
        target_cache=kv_cache.append(state.target_cache, verified.rows, committed),
        draft_cache=draft_cache,
        root=verified.token[verified.accepted],
        pending=Pending(verified.token, verified.feature, committed, entropy),
        memory=controller.update(expansion.memory, outcome),
        sampling=verified.sampling,
    )
    result = CycleResult(verified.token, committed, verified.accepted, expansion.levels, size)
    return next_state, result


def plain(params: TargetParams, pair: PairConfig, state: PlainState) -> PlainState:
    """One autoregressive step: the root enters the cache, the token after it is the new root."""
    cache, visible = state.cache, jnp.ones((1, 1), bool)
    logits_1X, _, rows = target.forward(
        params, pair.target, state.root[None], cache.length[None], visible, cache
    )
    root = sample.choose(logits_1X[0], cache.length + 1, state.sampling, pair.sampling)
    one = jnp.where(root >= 0, 1, 0)  # known last, see kv_cache.append
    return PlainState(
        cache=kv_cache.append(cache, rows, one),
        root=root,
        sampling=sample.read(state.sampling, root[None], jnp.ones((1,), bool)),
    )
