"""Probe environments: each fails in one way when one part of PPO is wrong (after rejax's tests).

What is rewarded is data, so that all probes share their programs.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import PolicyConfig, PPOConfig
from ltd_jax.learning.environment import Step
from ltd_jax.learning.ppo import PPO

CONFIG = PPOConfig(
    total_steps=60 * 256,
    environments=32,
    rollout=256,
    minibatch=128,
    epochs=8,
    learning_rate=5e-3,
    gamma=0.5,
)


@struct.dataclass(kw_only=True)
class Probe:
    """State of a probe."""

    sign: jax.Array  # f32 [], -1 or 1, drawn at every reset
    step: jax.Array  # i32 [] in the episode


@struct.dataclass(kw_only=True)
class Rule:
    """What a probe rewards, and when its episodes end."""

    reward: jax.Array  # f32 [sign, step, action], of two each
    steps: jax.Array  # i32 [] of an episode, 1 or 2


def rule(reward, steps: int = 1) -> Rule:
    """The rule of a reward by sign (-1 or 1), step (0 or 1) and action (0 or 1)."""
    two = (0, 1)
    table = [[[reward(sign, step, action) for action in two] for step in two] for sign in (-1, 1)]
    return Rule(reward=np.asarray(table, np.float32), steps=np.int32(steps))


@dataclasses.dataclass(frozen=True)
class ProbeEnvironment:
    """Observation [sign, step]; every step takes 2 s for 1 token; its data is a `Rule`."""

    action_count: int = 2

    def reset(self, data: Rule, key: jax.Array) -> Probe:
        return Probe(sign=jax.random.rademacher(key, (), jnp.float32), step=jnp.int32(0))

    def observe(self, data: Rule, state: Probe) -> jax.Array:
        return jnp.stack([state.sign, state.step.astype(jnp.float32)])

    def step(
        self, data: Rule, state: Probe, action: jax.Array, throughput: jax.Array, key: jax.Array
    ) -> Step:
        later = state.replace(step=state.step + 1)
        ended = later.step == data.steps
        fresh = self.reset(data, key)
        return Step(
            state=jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, later),
            reward=data.reward[(state.sign > 0).astype(int), state.step, action],
            terminated=ended,
            committed=jnp.float32(1),
            seconds=jnp.float32(2),
        )


class ProbePPO(PPO):
    """Validated by its logit of the last action for the validation pytree, an observation."""

    def validate(self, params, validation: jax.Array) -> jax.Array:
        return self.actor.apply(params.actor, validation)[-1]


ALGORITHM = ProbePPO(
    environment=ProbeEnvironment(),
    settings=CONFIG,
    policy="size",
    widths=PolicyConfig(size_actor=(16,), size_critic=(16,)),
    validate_every=7,  # so that the last validation comes after fewer updates
)
VALIDATION = jnp.array([1.0, 0.0])
