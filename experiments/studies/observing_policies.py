"""Policies that also see what things cost: one pair of networks for all hardware.

The ordinary policies are right for one latency table only. The networks here have a few more
inputs, numbers of the table, so they can be trained on many tables and serve one they never saw. A
table does not change while it is decoded under, so its numbers are folded into the first layer:
what decodes are ordinary policies of ordinary cost.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.policies import networks
from ltd_jax.policies.networks import LearnedParams

COST_COUNT = 6


def costs(
    cycle_DV: np.ndarray, plain: float, depth_decision: float, size_decision: float
) -> np.ndarray:
    """What the policies see of a table: f32 [COST_COUNT], each in [0, 1).

    In plain steps: the smallest cycle, a further level, the lower and the upper half of the sizes,
    a decision of each policy; x is seen as x / (1 + x), so that no network input saturates.

    Args:
      cycle_DV: seconds of a whole cycle at a typical context; the others are seconds, too.
    """
    levels, sizes = cycle_DV.shape
    middle = sizes // 2
    seconds = [
        cycle_DV[0, 0],
        (cycle_DV[-1, 0] - cycle_DV[0, 0]) / max(levels - 1, 1),
        cycle_DV[0, middle] - cycle_DV[0, 0],
        cycle_DV[0, -1] - cycle_DV[0, middle],
        depth_decision,
        size_decision,
    ]
    steps = np.maximum(np.asarray(seconds) / plain, 0.0)
    return (steps / (1 + steps)).astype(np.float32)


def with_costs(cost: jax.Array, observation: jax.Array) -> jax.Array:
    """What the networks read: the costs [..., COST_COUNT], then the observation [..., O]."""
    return jnp.concatenate([cost, observation], axis=-1)


def init(key: jax.Array, config: CycleConfig, policy: PolicyConfig) -> LearnedParams:
    """Random networks that read costs and observations."""
    key_depth, key_size = jax.random.split(key)
    depth_O, size_O = networks.blank_observations(config, policy)
    blank = jnp.zeros(COST_COUNT)
    return LearnedParams(
        depth=networks.depth_actor(policy).init(key_depth, with_costs(blank, depth_O)),
        size=networks.size_actor(config, policy).init(key_size, with_costs(blank, size_O)),
    )


def specialised(params: LearnedParams, cost: jax.Array | np.ndarray) -> LearnedParams:
    """Ordinary policies that choose as observing ones do under a table with these costs."""
    return LearnedParams(depth=_folded(params.depth, cost), size=_folded(params.size, cost))


def _folded(actor: Any, cost: jax.Array | np.ndarray) -> Any:
    """The network without its first inputs, which are always `cost`."""
    first = actor["params"]["Dense_0"]
    kernel = first["kernel"]
    layer = {
        "kernel": kernel[COST_COUNT:],
        "bias": first["bias"] + jnp.asarray(cost) @ kernel[:COST_COUNT],
    }
    return {**actor, "params": {**actor["params"], "Dense_0": layer}}
