"""Decoding: the plain loop and the speculative loop, both around one compiled program.

Host and device overlap: a call is dispatched before the tokens of the one before it are read, so
the device never waits for Python; at the end of a text one call is dispatched that does nothing.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.cycle import step
from ltd_jax.cycle.prefill import check_room, prefill
from ltd_jax.cycle.step import Cycles
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Controller


@dataclasses.dataclass(frozen=True)
class Step:
    """Tokens that became known together: one cycle's, or one plain step's."""

    tokens: tuple[int, ...]
    levels: int = 0  # 0 = no cycle (prefill or plain step)
    size: int = 0
    accepted: int = 0


class HostCycle(NamedTuple):
    """A `CycleResult` in Python's own numbers, which are cheaper to handle one by one."""

    token: list[int]
    committed: int
    accepted: int
    levels: int
    size: int  # index into config.sizes


def generate_plain(pair: Pair, prompt_T: np.ndarray, new_tokens: int) -> Iterator[Step]:
    """Autoregressive decoding, one token per burst, until a stop token or `new_tokens`."""
    check_room(pair, len(prompt_T), new_tokens)
    if new_tokens < 1:
        return
    stops, left = pair.put((pair.stops, jnp.int32(new_tokens - 1)))
    state = prefill(pair, _NO_CONTROLLER, prompt_T)
    root = int(state.root)
    yield Step((root,))
    if root in pair.stop_tokens or new_tokens == 1:
        return
    advance = partial(step.run_plain, pair.params.target, pair.config, stops)
    for done in dispatch_ahead(advance, step.plain_of(state), left):
        yield from (Step((token,)) for token in done.token[: done.count].tolist())


def generate(
    pair: Pair,
    controller: Controller,
    controller_params: Any,
    prompt_T: np.ndarray,
    new_tokens: int,
) -> Iterator[Step]:
    """Speculative decoding: the same tokens as `plain_bursts`, one burst per cycle.

    Under the sequential rule the tokens differ, but not their distribution.
    """
    check_room(pair, len(prompt_T), new_tokens)
    if new_tokens < 1:
        return
    left = new_tokens - 1
    *given, limit = pair.put((pair.stops, controller_params, jnp.int32(left)))
    state = prefill(pair, controller, prompt_T)
    root = int(state.root)
    yield Step((root,))
    if root in pair.stop_tokens or new_tokens == 1:
        return
    advance = partial(step.run_cycles, pair.params, pair.config, controller, *given)
    for done in dispatch_ahead(advance, state, limit):
        for row in rows_of(done):
            burst = to_step(row, pair, left)
            left -= len(burst.tokens)
            yield burst


def dispatch_ahead(
    advance: Callable[[Any, jax.Array], Any], state: Any, left: jax.Array
) -> Iterator[Any]:
    """What `loop.run_cycles` or `loop.run_plain` give, on the host, until the text is over.

    Args:
      left: i32 [], tokens that are wanted, at least 1.
    """
    state, done = advance(state, left)
    over = False
    while not over:
        state, following = advance(state, done.left)
        found = jax.device_get(done)
        over = not found.left
        yield found
        done = following


def rows_of(done: Cycles) -> list[HostCycle]:
    """Every cycle of a call."""
    lists = [getattr(done.result, name)[: int(done.count)].tolist() for name in HostCycle._fields]
    return [HostCycle(*row) for row in zip(*lists, strict=True)]


def to_step(result: HostCycle, pair: Pair, left: int) -> Step:
    """One cycle's tokens on the host, cut at the wanted length and behind the first stop token."""
    tokens = result.token[: min(result.committed, left)]
    stops = [index for index, token in enumerate(tokens) if token in pair.stop_tokens]
    tokens = tokens[: stops[0] + 1] if stops else tokens
    size = pair.config.cycle.sizes[result.size]
    return Step(tuple(tokens), result.levels, size, result.accepted)


_NO_CONTROLLER = Controller(
    init=lambda: (),
    keep_drafting=lambda params, state, view: jnp.bool_(False),
    choose_size=lambda params, state, view: jnp.int32(0),
    update=lambda state, outcome: state,
)
