"""Prefill: a prompt enters the caches of target and draft, in chunks of one shape."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import PairConfig
from ltd_jax.cycle import expand, sample
from ltd_jax.cycle.expand import PendingTokens
from ltd_jax.cycle.step import CycleState
from ltd_jax.files import UserError
from ltd_jax.models import kv_cache, layers, sharding, target
from ltd_jax.models.kv_cache import Rows
from ltd_jax.models.pair import Model, Pair, require_draft
from ltd_jax.policies.policy import Policy


def check_room(pair: Pair, prompt_tokens: int, new_tokens: int) -> None:
    """Raises UserError unless the prompt and the new tokens fit the context."""
    context = pair.config.cycle.context
    if prompt_tokens < 1:
        raise UserError("The prompt has no tokens; give at least one.")
    if prompt_tokens + new_tokens > context:
        raise UserError(
            f"The prompt has {prompt_tokens} tokens and {new_tokens} more are asked for, but the "
            f"context holds {context}; shorten the prompt, ask for fewer or raise the `context`."
        )


def check_tokens(pair: Pair, tokens: Sequence[int]) -> None:
    """Raises UserError where a compiled program says that a model gave no finite numbers.

    Args:
      tokens: of a text, among which there may be sample.NO_TARGET or NO_DRAFT.
    """
    least = min(tokens, default=0)
    if least < 0:
        name = pair.names[0] if least == sample.NO_TARGET else pair.names[1]
        raise UserError(
            f"The logits of {name} are NaN or infinite in {np.dtype(pair.dtype).name}, so there is "
            "no token to choose; give another `dtype`, or check that its folder is undamaged."
        )


def prefill(pair: Pair, prompt_T: np.ndarray) -> CycleState:
    """The state after a prompt: caches filled, the root chosen, its draft row pending.

    It has no history yet: that is the policy's.
    """
    check_room(pair, len(prompt_T), 0)
    chunk = pair.config.cycle.prefill_chunk
    state = empty_state(pair.config, pair.dtype, sample.text_key(pair.seed, prompt_T))
    for start in range(0, len(prompt_T), chunk):
        piece = prompt_T[start : start + chunk]
        is_last = start + chunk >= len(prompt_T)
        token_T = jnp.asarray(np.pad(piece, (0, chunk - len(piece))), jnp.int32)
        next_token = jnp.int32(0 if is_last else prompt_T[start + chunk])
        counts = jnp.int32(len(piece)), jnp.int32(len(prompt_T))
        rest = pair.put((token_T, next_token, *counts, jnp.bool_(is_last)))
        state = prefill_chunk(pair.model, state, *rest)
    return state


def with_history(pair: Pair, policy: Policy, state: CycleState) -> CycleState:
    """The state of a text before its first cycle with a policy.

    Raises:
      UserError: the pair has no draft.
    """
    require_draft(pair)
    history = policy.init_history(pair.config.cycle)
    return state.replace(history=pair.put(jax.tree.map(jnp.copy, history)))  # states are donated


def empty_state(pair: PairConfig, dtype: jnp.dtype, key: jax.Array | None = None) -> CycleState:
    """Caches without tokens, nothing pending; sampling needs the text's random key."""
    config = pair.cycle
    target_cache, draft_cache = (
        kv_cache.empty(model, config.cache_slots, dtype, sharding.cache_sharding(pair, model))
        for model in (pair.target, pair.draft)
    )
    state = CycleState(
        target_cache=target_cache,
        draft_cache=draft_cache,
        root=jnp.int32(0),
        pending=PendingTokens(
            token=jnp.zeros((config.path_length,), jnp.int32),
            feature=jnp.zeros((config.path_length, pair.target.feature_size), dtype),
            count=jnp.int32(0),
            root_entropy=jnp.float32(0),
        ),
        sampling=None if key is None else sample.start(pair, key),
    )
    return sharding.shard(state, pair)


@functools.partial(jax.jit, donate_argnames="state")
def prefill_chunk(
    model: Model,
    state: CycleState,
    token_T: jax.Array,
    next_token: jax.Array,
    count: jax.Array,
    prompt: jax.Array,
    is_last: jax.Array,
) -> CycleState:
    """Puts `count` prompt tokens into both caches.

    Args:
      token_T: i32 [prefill_chunk], the first `count` valid.
      next_token: i32, the prompt's token after this chunk; ignored in the last chunk, where the
        target's own choice is the root.
      prompt: i32, tokens of the whole prompt.
      is_last: bool; the last chunk leaves its last draft row pending, with the root as its token.
    """
    config, cache = model.config, state.target_cache
    T = token_T.shape[0]
    rows_T = jnp.arange(T)
    last = count - 1
    (logits_X,), feature_TE, rows = target.causal_forward(
        model.target, config.target, token_T, cache, prompt, read_R=last[None]
    )
    sampling = sample.mark_seen(state.sampling, token_T, rows_T < count)
    root = sample.choose(logits_X, cache.length + count, sampling, config.sampling)
    shifted_T = jnp.where(rows_T == last, next_token, jnp.roll(token_T, -1))
    waiting = is_last.astype(jnp.int32)
    draft_rows = Rows((), ())  # of a target that decodes without a draft
    if config.draft.layer_count:
        _, draft_rows = expand.causal_rows(model, shifted_T, feature_TE, state.draft_cache)
    pending = PendingTokens(
        token=state.pending.token.at[0].set(root),
        feature=state.pending.feature.at[0].set(feature_TE[last]),
        count=waiting,
        root_entropy=layers.entropy(jax.nn.log_softmax(logits_X)),
    )
    following = state.replace(
        target_cache=kv_cache.append(cache, rows, kv_cache.after(count, root)),
        draft_cache=kv_cache.append(state.draft_cache, draft_rows, count - waiting),
        root=root,
        pending=pending,
        sampling=sample.mark_seen(sampling, root[None], is_last[None]),
    )
    return sharding.shard(following, config)
