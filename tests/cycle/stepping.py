"""Single cycles and plain steps, compiled alone: the library runs several per call."""

import jax

from ltd_jax.cycle import step

cycle = jax.jit(step.cycle, static_argnames=("pair", "controller"))
plain = jax.jit(step.plain, static_argnames="pair")
