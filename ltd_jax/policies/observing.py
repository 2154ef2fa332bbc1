"""Policies that also see what things cost: one pair of networks for all hardware.

The ordinary policies are right for one latency table only. The networks here have a few more
inputs, numbers of the table, so they can be trained on many tables and serve one they never saw. A
table does not change while it is decoded under, so its numbers are folded into the first layer:
what decodes are ordinary policies of ordinary cost.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ltd_jax.policies.networks import LearnedParams

COST_COUNT = 6


def costs(
    cycle_DV: jax.Array, plain: jax.Array, depth_decision: jax.Array, size_decision: jax.Array
) -> jax.Array:
    """What the policies see of a table: f32 [COST_COUNT], each in [0, 1).

    In plain steps: the smallest cycle, a further level, the lower and the upper half of the sizes,
    a decision of each policy; x is seen as x / (1 + x), so that no network input saturates.

    Args:
      cycle_DV: seconds of a whole cycle at a typical context; the others are seconds, too.
    """
    levels, sizes = cycle_DV.shape
    middle = sizes // 2
    seconds = jnp.stack(
        [
            cycle_DV[0, 0],
            (cycle_DV[-1, 0] - cycle_DV[0, 0]) / max(levels - 1, 1),
            cycle_DV[0, middle] - cycle_DV[0, 0],
            cycle_DV[0, -1] - cycle_DV[0, middle],
            depth_decision,
            size_decision,
        ]
    )
    steps = jnp.maximum(seconds / plain, 0.0)
    return (steps / (1 + steps)).astype(jnp.float32)


def with_costs(observation_O: jax.Array, cost: jax.Array) -> jax.Array:
    """What an observing network reads: the ordinary observation, then the costs."""
    return jnp.concatenate([observation_O, cost])


def specialised(params: LearnedParams, cost: jax.Array) -> LearnedParams:
    """Ordinary policies that choose as observing ones do under a table with these costs."""
    return LearnedParams(depth=_folded(params.depth, cost), size=_folded(params.size, cost))


def _folded(actor: Any, cost: jax.Array) -> Any:
    """The network without its last inputs, which are always `cost`; None stays None."""
    if actor is None:
        return None
    first = actor["params"]["Dense_0"]
    kernel = first["kernel"]
    own = kernel.shape[0] - len(cost)
    layer = {"kernel": kernel[:own], "bias": first["bias"] + cost @ kernel[own:]}
    return {**actor, "params": {**actor["params"], "Dense_0": layer}}
