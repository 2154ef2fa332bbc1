"""Single cycles and plain steps, by the program that runs several per call: one token is wanted."""

import jax
import jax.numpy as jnp

from ltd_jax.cycle import step

STOPS = jnp.zeros((0,), jnp.int32)  # as of a pair without stop tokens


def cycle(model, policy, state):
    """The state after one cycle, which takes the buffers of the one before, and its result."""
    state, done = step.run_cycles(model, policy.traced(), STOPS, state, jnp.int32(1))
    return state, jax.tree.map(lambda rows: rows[0], jax.device_get(done.result))


def plain(model, state):
    """The state after one plain step, which takes the buffers of the one before."""
    return step.run_plain(model, STOPS, state, jnp.int32(1))[0]
