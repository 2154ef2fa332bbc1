"""One cycle: expand, observe, select, verify, commit, without a trip to the host; and many of them.

`run_cycles` and `run_plain`, the autoregressive baseline in the same stack, are what is compiled:
the host dispatches one program and reads tokens once for N cycles. Dispatching a program takes a
CPU 0.3 to 0.6 ms, whatever it computes; on the cores that also compute this was an eighth of the
embedded pair's time. The loop ends with the text, so no cycle runs in vain. States are donated, so
caches are updated in place.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.cycle import expand, sample, verify
from ltd_jax.cycle.expand import PendingTokens
from ltd_jax.cycle.sample import SamplingState
from ltd_jax.models import kv_cache, sharding, target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.pair import Model
from ltd_jax.policies.policy import Outcome, Policy


@struct.dataclass
class CycleState:
    """One sequence between two cycles; draft_cache.length + pending.count = target_cache.length."""

    target_cache: KVCache
    draft_cache: KVCache
    root: jax.Array  # i32 []
    pending: PendingTokens
    history: Any = ()  # the policy's
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
    """What one cycle gave to the text, on the device."""

    token: jax.Array  # [D + 1] i32, the first `committed` are the text's next tokens, see `cycle`
    committed: jax.Array  # i32 []
    accepted: jax.Array  # i32 []
    levels: jax.Array  # i32 []
    size_index: jax.Array  # i32 [], index into config.sizes


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


def cycle(model: Model, policy: Policy, state: CycleState) -> tuple[CycleState, CycleResult]:
    """One draft-and-verify round of one sequence.

    Where a model gives no finite numbers, a token is sample.NO_TARGET, or all are sample.NO_DRAFT.
    """
    config, pending = model.config.cycle, state.pending
    expansion, draft_cache = expand.expand(model, policy, state.history, pending, state.draft_cache)
    view = expand.tree_view(expansion, state.target_cache.length, pending.root_entropy)
    size_index = policy.choose_size(expansion.history, view, config)
    priority_DWW = policy.priority(expansion.history, view, config)
    tree = expansion.tree.replace(log_prob=priority_DWW)
    verified = verify.verify(
        model, tree, state.root, size_index, state.target_cache, state.sampling
    )
    committed = verified.accepted + 1
    outcome = Outcome(expansion.levels, size_index, verified.accepted)
    next_pending = PendingTokens(
        token=verified.token,
        feature=verified.feature,
        count=committed,
        root_entropy=verified.root_entropy if policy.needs_root_entropy else pending.root_entropy,
    )
    next_state = CycleState(
        target_cache=kv_cache.append(state.target_cache, verified.rows, committed),
        draft_cache=draft_cache,
        root=verified.token[verified.accepted],
        pending=next_pending,
        history=policy.update_history(expansion.history, outcome, config),
        sampling=verified.sampling,
    )
    is_number = ~jnp.any(jnp.isnan(expansion.tree.log_prob))
    return next_state, CycleResult(
        token=jnp.where(is_number, verified.token, sample.NO_DRAFT),
        committed=committed,
        accepted=verified.accepted,
        levels=expansion.levels,
        size_index=size_index,
    )


def plain(model: Model, state: PlainState) -> PlainState:
    """One autoregressive step: the root enters the cache, the token after it is the new root."""
    cache, config = state.cache, model.config
    logits_1X, _, rows = target.forward(
        model.target,
        config.target,
        state.root[None],
        cache.length[None],
        jnp.ones((1, 1), bool),
        cache,
    )
    root = sample.choose(logits_1X[0], cache.length + 1, state.sampling, config.sampling)
    return PlainState(
        cache=kv_cache.append(cache, rows, kv_cache.after(jnp.int32(1), root)),
        root=root,
        sampling=sample.mark_seen(state.sampling, root[None], jnp.ones((1,), bool)),
    )


@functools.partial(jax.jit, donate_argnames="state")
def run_cycles(
    model: Model, policy: Policy, stops: jax.Array, state: CycleState, left: jax.Array
) -> tuple[CycleState, Cycles]:
    """Runs `cycles_per_call` cycles, or as many as give the `left` tokens or a stop token.

    What stands for a missing token (`cycle`) ends the text, too.

    Args:
      stops: i32 [S], tokens after which a text ends; data, so that all sets of S share a program.
      left: i32 [], tokens that are wanted.
    """
    config = model.config.cycle
    N, path = config.cycles_per_call, config.path_length
    blank_N = jnp.zeros((N,), jnp.int32)
    blank = CycleResult(jnp.zeros((N, path), jnp.int32), blank_N, blank_N, blank_N, blank_N)

    def advance(carry: tuple[CycleState, Cycles]) -> tuple[CycleState, Cycles]:
        state, so_far = carry
        state, result = cycle(model, policy, state)
        kept = jnp.minimum(result.committed, so_far.left)
        is_text = jnp.arange(path) < kept
        ends = jnp.isin(result.token, stops) | (result.token < 0)
        stopped = jnp.any(ends & is_text)
        so_far = Cycles(
            result=jax.tree.map(_put(so_far.count), so_far.result, result),
            count=so_far.count + 1,
            left=jnp.where(stopped, 0, so_far.left - kept),
        )
        return sharding.shard((state, so_far), model.config)

    start = (state, Cycles(blank, jnp.int32(0), left))
    done = jax.lax.while_loop(lambda carry: _goes_on(carry[1], N), advance, start)
    return sharding.shard(done, model.config)


@functools.partial(jax.jit, donate_argnames="state")
def run_plain(
    model: Model, stops: jax.Array, state: PlainState, left: jax.Array
) -> tuple[PlainState, PlainSteps]:
    """`run_cycles` for plain decoding."""
    N = model.config.cycle.cycles_per_call

    def advance(carry: tuple[PlainState, PlainSteps]) -> tuple[PlainState, PlainSteps]:
        state, so_far = carry
        state = plain(model, state)
        so_far = PlainSteps(
            token=_put(so_far.count)(so_far.token, state.root),
            count=so_far.count + 1,
            left=jnp.where(jnp.isin(state.root, stops) | (state.root < 0), 0, so_far.left - 1),
        )
        return sharding.shard((state, so_far), model.config)

    start = (state, PlainSteps(jnp.zeros((N,), jnp.int32), jnp.int32(0), left))
    done = jax.lax.while_loop(lambda carry: _goes_on(carry[1], N), advance, start)
    return sharding.shard(done, model.config)


def _goes_on(so_far: Cycles | PlainSteps, most: int) -> jax.Array:
    return (so_far.count < most) & (so_far.left > 0)


def _put(row: jax.Array):
    """A function that writes a value into one row of an array."""
    return lambda rows, value: jax.lax.dynamic_update_index_in_dim(rows, value, row, 0)
