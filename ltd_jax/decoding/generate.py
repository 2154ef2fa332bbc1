"""Decoding: the plain loop and the speculative loop, both around one compiled program.

Host and device overlap: a call is dispatched before the tokens of the one before it are read, so
the device never waits for Python; at the end of a text one call is dispatched that does nothing.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.cycle import step
from ltd_jax.cycle.prefill import check_room, prefill, with_history
from ltd_jax.cycle.step import Cycles
from ltd_jax.models.pair import AnyPrompt, Pair, token_ids
from ltd_jax.policies.policy import Policy


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
      UserError: the prompt does not fit, or the policy chooses what the pair's cycle lacks.

    Example:
      >>> import ltd_jax as ltd
      >>> steps = ltd.generate(ltd.load(), ltd.Constant(levels=2, size=4), "import os", 8)
      >>> sum(len(step.tokens) for step in steps)
      8
    """
    prompt_T = token_ids(pair, prompt)
    check_room(pair, len(prompt_T), new_tokens)
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
    traced = None if policy is None else policy.traced()
    stops, policy, limit = pair.put((pair.stops, traced, jnp.int32(left)))
    state = prefill(pair, prompt_T)
    root = int(state.root)
    yield Step((root,))
    if root in pair.stop_tokens or not left:
        return
    if policy is None:
        advance = partial(step.run_plain, pair.model, stops)
        for steps in dispatch_ahead(advance, step.plain_of(state), limit):
            yield from (Step((token,)) for token in steps.token[: steps.count].tolist())
        return
    advance = partial(step.run_cycles, pair.model, policy, stops)
    state = with_history(pair, policy, state)
    for cycles in dispatch_ahead(advance, state, limit):
        for cycle_step in steps_of(cycles, pair, left):
            left -= len(cycle_step.tokens)
            yield cycle_step


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
    """
    count, sizes, stop_tokens = int(done.count), pair.config.cycle.sizes, set(pair.stop_tokens)
    result = jax.tree.map(lambda rows: rows[:count].tolist(), done.result)
    for row in range(count):
        tokens = result.token[row][: min(result.committed[row], left)]
        stops = [place for place, token in enumerate(tokens) if token in stop_tokens]
        tokens = tokens[: stops[0] + 1] if stops else tokens
        left -= len(tokens)
        yield Step(
            tokens=tuple(tokens),
            levels=result.levels[row],
            size=sizes[result.size_index[row]],
            accepted=result.accepted[row],
        )
