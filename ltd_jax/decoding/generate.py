"""Decoding: the plain loop and the speculative loop, both around one compiled program.

Host and device overlap: a call is dispatched before the tokens of the one before it are read, so
the device never waits for Python; at the end of a text one call is dispatched that does nothing.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.cycle import step
from ltd_jax.cycle.prefill import check_room, check_tokens, prefill, with_history
from ltd_jax.cycle.step import Cycles
from ltd_jax.models.pair import AnyPrompt, Pair, require_draft, token_ids
from ltd_jax.policies.policy import Constant, Forced, Policy


@dataclasses.dataclass(frozen=True)
class Step:
    """Tokens that became known together: one cycle's, one plain step's, or prefill's one.

    Example:
      >>> Step(tokens=(11, 7, 42), levels=4, size=8, accepted=2).size
      8
    """

    tokens: tuple[int, ...]
    levels: int = 0  # 0 = no cycle (prefill or plain step)
    size: int = 0  # drafted nodes that were verified
    accepted: int = 0


def generate(pair: Pair, policy: Policy, prompt: AnyPrompt, new_tokens: int) -> Iterator[Step]:
    """Speculative decoding: the same tokens as `generate_plain`, one step per cycle.

    Under the sequential rule the tokens differ, but not their distribution.

    Args:
      prompt: a text or a conversation, put as the target's folder says, or token ids.
      new_tokens: most tokens that are generated; a stop token ends the text before.

    Raises:
      UserError: the prompt does not fit, the policy chooses what the pair's cycle lacks, there is
        no draft, or (at the token where it happens) a model's logits are NaN or infinite.

    Example:
      >>> import ltd_jax as ltd
      >>> steps = ltd.generate(ltd.load(), ltd.Constant(levels=2, size=4), "import os", 8)
      >>> sum(len(step.tokens) for step in steps)
      8
    """
    prompt_T = token_ids(pair, prompt)
    check_room(pair, len(prompt_T), new_tokens)
    require_draft(pair)
    policy.check(pair.config.cycle)
    return _steps(pair, policy, prompt_T, new_tokens)


def generate_plain(pair: Pair, prompt: AnyPrompt, new_tokens: int) -> Iterator[Step]:
    """Autoregressive decoding, one token per step, until a stop token or `new_tokens`.

    Arguments and errors as of `generate`.

    Example:
      >>> import ltd_jax as ltd
      >>> len(list(ltd.generate_plain(ltd.load(), "import os", new_tokens=4)))
      4
    """
    prompt_T = token_ids(pair, prompt)
    check_room(pair, len(prompt_T), new_tokens)
    return _steps(pair, None, prompt_T, new_tokens)


def _steps(
    pair: Pair, policy: Policy | None, prompt_T: np.ndarray, new_tokens: int
) -> Iterator[Step]:
    if new_tokens < 1:
        return
    left = new_tokens - 1
    traced = None if policy is None else decoded(policy, pair)
    stops, policy, limit = pair.put((pair.stops, traced, jnp.int32(left)))
    state = prefill(pair, prompt_T)
    root = int(state.root)
    check_tokens(pair, (root,))
    yield Step((root,))
    if root in pair.stop_tokens or not left:
        return
    if policy is None:
        advance = partial(step.run_plain, pair.model, stops)
        for steps in dispatch_ahead(advance, step.plain_of(state), limit):
            for token in steps.token[: steps.count].tolist():
                check_tokens(pair, (token,))
                yield Step((token,))
        return
    advance = partial(step.run_cycles, pair.model, policy, stops)
    state = with_history(pair, policy, state)
    for cycles in dispatch_ahead(advance, state, limit):
        for cycle_step in steps_of(cycles, pair, left):
            left -= len(cycle_step.tokens)
            yield cycle_step


def decoded(policy: Policy, pair: Pair, forced: Constant | None = None) -> Policy:
    """The policy as decoding compiles it: one that chooses can be forced, by data, to a constant.

    Args:
      forced: levels and size of every cycle; None = as the policy chooses.
    """
    constant = forced or Constant(1, pair.config.cycle.sizes[0])
    if policy.is_constant:
        return policy.traced()
    return Forced(policy.traced(), constant, holds=forced is not None).traced()


def warm_up(
    pair: Pair, policy: Policy | None, progress: Callable[[float], None] = lambda share: None
) -> float:
    """Compiles all that decoding with a policy runs, and runs each part of it once: the seconds.

    On a CPU the first use of a size takes 60 to 150 ms more than those after it (measured), and a
    policy of many sizes has many first uses. So the policy is forced to every size, after as many
    tokens as each compiled catch-up pass holds. After it the first text decodes as fast as others.

    Args:
      policy: None = plain decoding.
      progress: called with the share that is done; compiling is nearly all of the first part.

    Example:
      >>> import ltd_jax as ltd
      >>> ltd.warm_up(ltd.load(), ltd.Constant(levels=2, size=4)) > 0
      True
    """
    started, cycle = time.perf_counter(), pair.config.cycle
    stops, left = pair.put((jnp.full_like(pair.stops, -1), jnp.int32(1)))
    state = prefill(pair, np.zeros(1, np.int32))
    if policy is None:
        jax.block_until_ready(step.run_plain(pair.model, stops, step.plain_of(state), left))
        progress(1.0)
        return time.perf_counter() - started
    constants: list[Constant | None] = [None]
    if not policy.is_constant:
        constants = [Constant(cycle.max_levels, size) for size in cycle.sizes]
    count = max(len(constants), len(cycle.catch_up_rows))
    for index, constant, rows in zip(
        range(count), itertools.cycle(constants), itertools.cycle(cycle.catch_up_rows)
    ):
        forced, pending = pair.put((decoded(policy, pair, constant), jnp.int32(rows)))
        start = with_history(pair, policy, prefill(pair, np.zeros(1, np.int32)))
        start = start.replace(pending=start.pending.replace(count=pending))
        jax.block_until_ready(step.run_cycles(pair.model, forced, stops, start, left))
        progress((index + 1) / count)
    return time.perf_counter() - started


def dispatch_ahead(
    advance: Callable[[Any, jax.Array], Any], state: Any, left: jax.Array
) -> Iterator[Any]:
    """Results of `step.run_cycles` or `step.run_plain`, on the host, until the text is over.

    Args:
      left: i32 [], tokens that are wanted, at least 1.
    """
    state, done = advance(state, left)
    over = False
    while not over:
        state, following = advance(state, done.left)
        result = jax.device_get(done)
        over = not result.left
        yield result
        done = following


def steps_of(done: Cycles, pair: Pair, left: int) -> Iterator[Step]:
    """The cycles of one call, cut at `left` tokens and after the first stop token.

    Lists of Python's own numbers are cheaper to handle one by one than arrays.

    Raises:
      UserError: a model gave no finite numbers.
    """
    count, sizes, stop_tokens = int(done.count), pair.config.cycle.sizes, set(pair.stop_tokens)
    result = jax.tree.map(lambda rows: rows[:count].tolist(), done.result)
    for row in range(count):
        tokens = result.token[row][: min(result.committed[row], left)]
        stops = [place for place, token in enumerate(tokens) if token in stop_tokens]
        tokens = tokens[: stops[0] + 1] if stops else tokens
        check_tokens(pair, tokens)
        left -= len(tokens)
        yield Step(
            tokens=tuple(tokens),
            levels=result.levels[row],
            size=sizes[result.size_index[row]],
            accepted=result.accepted[row],
        )
