"""Policies that also see what things cost: one pair of networks for all hardware.

The ordinary policies are right for one latency table only. These see a few numbers of the table
beside everything else, so they can be trained on many tables and run on one they never saw.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.cycle import observe
from ltd_jax.policies import networks
from ltd_jax.policies.controller import Controller, LevelView, Outcome, TreeView

COST_COUNT = 6


@struct.dataclass(kw_only=True)
class ObservingParams:
    """What the `observing` controller decides with."""

    depth: Any  # Linen variables of the depth policy's `Actor`
    size: Any  # Linen variables of the size policy's `Actor`
    cost: jax.Array  # [COST_COUNT] f32, `costs` of the table at hand


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


@functools.cache
def observing(config: CycleConfig, policy: PolicyConfig, levels: int | None = None) -> Controller:
    """Both policies as a controller, likeliest choice each; params are `ObservingParams`.

    Equal arguments give the same object, so that what was compiled with it is found again.

    Args:
      levels: draft so many in every cycle and do not ask the depth policy; None = ask it.
    """
    depth, size = networks.depth_actor(policy), networks.size_actor(config, policy)
    seen = policy.observation

    def keep_drafting(params: ObservingParams, memory: jax.Array, view: LevelView) -> jax.Array:
        if levels is not None:
            return view.levels < levels
        seen_O = observe.depth_observation(view, memory, config, seen)
        go_on = jnp.argmax(depth.apply(params.depth, with_costs(seen_O, params.cost))) == 1
        return go_on & (view.levels < config.max_levels)

    def choose_size(params: ObservingParams, memory: jax.Array, view: TreeView) -> jax.Array:
        seen_O = observe.size_observation(view, memory, config, seen)
        logits_A = size.apply(params.size, with_costs(seen_O, params.cost))
        return jnp.argmax(logits_A).astype(jnp.int32)

    def update(memory: jax.Array, outcome: Outcome) -> jax.Array:
        return observe.remember(memory, outcome, config, seen)

    return Controller(
        init=lambda: observe.no_memory(seen),
        keep_drafting=keep_drafting,
        choose_size=choose_size,
        update=update,
    )


def with_costs(observation_O: jax.Array, cost: jax.Array) -> jax.Array:
    """The observation followed by the costs."""
    return jnp.concatenate([observation_O, cost])
