"""The same texts on other hardware: only what comes from the latency table changes."""

import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError
from ltd_jax.replay import latency
from ltd_jax.replay.cycles import Replay
from ltd_jax.replay.latency import LatencyTable


def retimed(replay: Replay, table: LatencyTable, config: CycleConfig) -> Replay:
    """A replay under another table; what was recorded is shared, not copied.

    Raises:
      UserError: the table was made with other levels or sizes.
    """
    if table.sizes != config.sizes or table.max_levels != config.max_levels:
        raise UserError(
            f"The latency table has {table.max_levels} levels and sizes {table.sizes}, the cycle "
            f"{config.max_levels} and {config.sizes}; fit the table to this cycle."
        )
    length_P = np.asarray(replay.length)
    context_P, share_P = latency.neighbours(table.contexts, length_P)
    plain_P = latency.interpolate(table, table.plain_seconds, length_P)
    return replay.replace(
        context=jnp.asarray(context_P),
        share=jnp.asarray(share_P, jnp.float32),
        seconds=jnp.asarray(table.cycle_seconds, jnp.float32),
        depth_seconds=jnp.float32(table.depth_seconds),
        size_seconds=jnp.float32(table.size_seconds),
        plain_seconds=jnp.float32(plain_P.mean()),
    )
