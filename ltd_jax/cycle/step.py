"""One cycle: expand, observe, select, verify, commit, without a trip to the host.

`plain` is the autoregressive step in the same stack. `cycle.loop` compiles both.
"""
# DOC """Several cycles per call: the host dispatches one program and reads tokens once for N of them.
# DOC
# DOC Dispatching a program takes a processor 0.3 to 0.6 ms, whatever it computes; on the cores that also
# DOC compute this was an eighth of the embedded pair's time. The loop ends with the text, so no cycle
# DOC runs in vain. `run_cycles` and `run_plain`, the autoregressive baseline in the same stack, are
# DOC jitted once per pair; states are donated, so caches are updated in place.
# DOC """

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PairConfig
from ltd_jax.cycle import expand, sample, verify
from ltd_jax.cycle.expand import PendingTokens
from ltd_jax.cycle.sample import SamplingState
from ltd_jax.models import kv_cache, sharding, target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.pair import PairParams
from ltd_jax.models.target import TargetParams
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.policy import Controller, Outcome


@struct.dataclass
class CycleState:
    """One sequence between two cycles; draft_cache.length + pending.count = target_cache.length."""

    target_cache: KVCache
    draft_cache: KVCache
    root: jax.Array  # i32 []
    pending: PendingTokens
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
    rank = policy_module.ranked(controller, controller_params, expansion.memory, view)
    tree = expansion.tree.replace(score=rank)
    verified = verify.verify(
        params.target, pair, tree, state.root, size, state.target_cache, state.sampling
    )
    committed = verified.accepted + 1
    outcome = Outcome(expansion.levels, size, verified.accepted)
    asked = (controller, controller_params, state.memory, level, view)
    entropy = verified.root_entropy if policy_module.reads_root_entropy(*asked) else seen[1]
    next_state = CycleState(
        target_cache=kv_cache.append(state.target_cache, verified.rows, committed),
        draft_cache=draft_cache,
        root=verified.token[verified.accepted],
        pending=PendingTokens(verified.token, verified.feature, committed, entropy),
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


@struct.dataclass
class Cycles:
    """Up to N cycles of one text, in order."""

    result: CycleResult  # every field with a leading axis [N]; rows from `count` on mean nothing
    count: jax.Array  # i32 []
    left: jax.Array  # i32 [], tokens still wanted; 0 = the text is over


@struct.dataclass
class PlainSteps:
    """Up to N plain steps of one text, in order."""

    token: jax.Array  # [N] i32, those from `count` on mean nothing
    count: jax.Array  # i32 []
    left: jax.Array  # i32 [], tokens still wanted; 0 = the text is over


@functools.partial(jax.jit, static_argnames=("pair", "controller"), donate_argnames="state")
def run_cycles(
    params: PairParams,
    pair: PairConfig,
    controller: Controller,
    stops: jax.Array,
    controller_params: Any,
    state: CycleState,
    left: jax.Array,
) -> tuple[CycleState, Cycles]:
    """Runs `cycles_per_call` cycles, or as many as give the `left` tokens or a stop token.

    Args:
      stops: i32 [S], tokens behind which a text ends; data, so that all sets of S share a program.
    """
    N, path = pair.cycle.cycles_per_call, pair.cycle.path_length
    blank_N = jnp.zeros((N,), jnp.int32)
    blank = CycleResult(jnp.zeros((N, path), jnp.int32), *[blank_N] * 4)

    def advance(carry: tuple[CycleState, Cycles]) -> tuple[CycleState, Cycles]:
        state, so_far = carry
        state, result = cycle(params, pair, controller, controller_params, state)
        kept = jnp.minimum(result.committed, so_far.left)
        is_text = jnp.arange(path) < kept
        stopped = jnp.any(jnp.isin(result.token, stops) & is_text)
        so_far = Cycles(
            result=jax.tree.map(_put(so_far.count), so_far.result, result),
            count=so_far.count + 1,
            left=jnp.where(stopped, 0, so_far.left - kept),
        )
        return sharding.shard((state, so_far), pair)

    start = (state, Cycles(blank, jnp.int32(0), left))
    done = jax.lax.while_loop(lambda carry: _goes_on(carry[1], N), advance, start)
    return sharding.shard(done, pair)


@functools.partial(jax.jit, static_argnames="pair", donate_argnames="state")
def run_plain(
    params: TargetParams,
    pair: PairConfig,
    stops: jax.Array,
    state: PlainState,
    left: jax.Array,
) -> tuple[PlainState, PlainSteps]:
    """`run_cycles` for plain decoding."""
    N = pair.cycle.cycles_per_call

    def advance(carry: tuple[PlainState, PlainSteps]) -> tuple[PlainState, PlainSteps]:
        state, so_far = carry
        state = plain(params, pair, state)
        so_far = PlainSteps(
            token=_put(so_far.count)(so_far.token, state.root),
            count=so_far.count + 1,
            left=jnp.where(jnp.isin(state.root, stops), 0, so_far.left - 1),
        )
        return sharding.shard((state, so_far), pair)

    start = (state, PlainSteps(jnp.zeros((N,), jnp.int32), jnp.int32(0), left))
    done = jax.lax.while_loop(lambda carry: _goes_on(carry[1], N), advance, start)
    return sharding.shard(done, pair)


def _goes_on(so_far: Cycles | PlainSteps, most: int) -> jax.Array:
    return (so_far.count < most) & (so_far.left > 0)


def _put(row: jax.Array):
    """A function that writes a value into one row of an array."""
    return lambda rows, value: jax.lax.dynamic_update_index_in_dim(rows, value, row, 0)
