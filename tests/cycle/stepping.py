"""Single cycles and plain steps, compiled alone: the library runs several per call."""

import jax

from ltd_jax.cycle import step

cycle = jax.jit(step.cycle)
plain = jax.jit(step.plain)
