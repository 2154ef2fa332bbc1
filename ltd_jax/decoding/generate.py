"""Decoding: the plain loop and the speculative loop, both around one compiled step.

Host and device overlap: a step is dispatched before the tokens of the one before it are read, so
the device never waits for Python; at the end of a text one step is dispatched in vain.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.cycle import step as cycles
from ltd_jax.cycle.pair import Pair
from ltd_jax.cycle.prefill import check_room, prefill
from ltd_jax.cycle.step import CycleResult
from ltd_jax.policies.controller import Controller


@dataclasses.dataclass(frozen=True)
class Burst:
    """Tokens that became known together: one cycle's, or one plain step's."""

    tokens: tuple[int, ...]
    levels: int = 0  # 0 = no cycle (prefill or plain step)
    size: int = 0
    accepted: int = 0


def plain_bursts(pair: Pair, prompt_T: np.ndarray, new_tokens: int) -> Iterator[Burst]:
    """Autoregressive decoding, one token per burst, until a stop token or `new_tokens`."""
    check_room(pair, len(prompt_T), new_tokens)
    state = prefill(pair, _NO_CONTROLLER, prompt_T)
    cache, root = state.target_cache, state.root
    for left in range(new_tokens - 1, -1, -1):
        known = root
        if left:
            cache, root = cycles.plain_step(pair.params.target, pair.config, cache, root)
        token = int(known)
        yield Burst((token,))
        if token in pair.stop_tokens:
            return


def speculative_bursts(
    pair: Pair,
    controller: Controller,
    controller_params: Any,
    prompt_T: np.ndarray,
    new_tokens: int,
) -> Iterator[Burst]:
    """Speculative decoding: the same tokens as `plain_bursts`, one burst per cycle."""
    check_room(pair, len(prompt_T), new_tokens)
    if new_tokens < 1:
        return
    state = prefill(pair, controller, prompt_T)
    root = int(state.root)
    yield Burst((root,))
    left, stopped = new_tokens - 1, root in pair.stop_tokens
    if left <= 0 or stopped:
        return
    advance = lambda state: cycles.step(
        pair.params, pair.config, controller, controller_params, state
    )
    state, result = advance(state)
    while left > 0 and not stopped:
        state, following = advance(state)
        burst = trim(result, pair, left)
        yield burst
        left -= len(burst.tokens)
        stopped = burst.tokens[-1] in pair.stop_tokens
        result = following


def trim(result: CycleResult, pair: Pair, left: int) -> Burst:
    """One cycle's tokens, cut at the wanted length and behind the first stop token."""
    result = jax.device_get(result)
    tokens = [int(token) for token in result.token[: min(int(result.committed), left)]]
    stops = [index for index, token in enumerate(tokens) if token in pair.stop_tokens]
    tokens = tokens[: stops[0] + 1] if stops else tokens
    size = pair.config.cycle.sizes[int(result.size)]
    return Burst(tuple(tokens), int(result.levels), size, int(result.accepted))


_NO_CONTROLLER = Controller(
    init=lambda: (),
    keep_drafting=lambda params, state, view: jnp.bool_(False),
    choose_size=lambda params, state, view: jnp.int32(0),
    update=lambda state, outcome: state,
)
