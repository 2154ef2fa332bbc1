"""Timing cycles and plain steps of one pair as decoding runs them, several calls in a row."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.cycle import loop
from ltd_jax.cycle.pair import Pair
from ltd_jax.cycle.prefill import prefill
from ltd_jax.cycle.step import CycleState, PlainState
from ltd_jax.errors import UserError
from ltd_jax.policies.controller import Controller


class Clock:
    """Times cycles of one pair at a context; the state is rewound before every visit."""

    def __init__(self, pair: Pair, controller: Controller, context: int, cycles: int) -> None:
        self.pair, self.controller, self.context = pair, controller, context
        self.calls = math.ceil(cycles / pair.config.cycle.cycles_per_call)
        self.stops = pair.put(jnp.full_like(pair.stops, -1))  # decoding's program, and no text ends
        prompt_T = np.arange(context, dtype=np.int32) % pair.config.target.vocab_size
        self.state = prefill(pair, controller, prompt_T)

    def beside(self, controller: Controller) -> "Clock":
        """A clock of another controller, at the same place for as long."""
        cycles = self.calls * self.pair.config.cycle.cycles_per_call
        return Clock(self.pair, controller, self.context, cycles)

    def cycle_seconds(self, params: Any) -> float:
        """Seconds of one cycle, as decoding runs them."""
        asked = (self.controller, self.stops, self.pair.put(params))
        run = partial(loop.run_cycles, self.pair.params, self.pair.config, *asked)
        self.state, seconds = self.time(run, self.rewound())
        return seconds

    def plain_seconds(self) -> float:
        """Seconds of one autoregressive step, as decoding runs them."""
        state = self.rewound()
        run = partial(loop.run_plain, self.pair.params.target, self.pair.config, self.stops)
        root, sampling = jax.tree.map(jnp.copy, (state.root, state.sampling))
        plain, seconds = self.time(run, PlainState(state.target_cache, root, sampling))
        self.state = state.replace(target_cache=plain.cache)
        return seconds

    def rewound(self) -> CycleState:
        """The state with only the prompt committed; slots behind it are overwritten."""
        state = self.state
        length, before, one = self.pair.put(
            (jnp.int32(self.context), jnp.int32(self.context - 1), jnp.int32(1))
        )
        return state.replace(
            target_cache=state.target_cache.replace(length=length),
            draft_cache=state.draft_cache.replace(length=before),
            pending=state.pending.replace(count=one),
        )

    def time(self, run: Callable[[Any, jax.Array], Any], state: Any) -> tuple[Any, float]:
        """The state behind some calls in a row and the seconds of one cycle or step in them.

        The clock starts when a first call, of one cycle, has ended while the next waits behind it;
        behind the last one, a call of no cycle is dispatched.
        """
        cycle = self.pair.config.cycle
        most = cycle.context - self.context - cycle.path_length
        first, none, room = self.pair.put((jnp.int32(1), jnp.int32(0), jnp.int32(most)))
        state, before = run(state, first)
        state, following = run(state, room)
        jax.device_get(before)
        started = time.perf_counter()
        count = 0
        for call in range(1, self.calls + 1):
            done = following
            state, following = run(state, done.left if call < self.calls else none)
            count += int(jax.device_get(done).count)
        seconds = time.perf_counter() - started
        jax.device_get(following)
        if count < self.calls * cycle.cycles_per_call:
            raise UserError(
                f"There is no room to time cycles behind {self.context} tokens in a context of "
                f"{cycle.context}; measure at a smaller one."
            )
        return state, seconds / count
