"""Probe environments: each fails in one way when one part of PPO is wrong (after rejax's tests)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PolicyConfig, PPOConfig
from ltd_jax.learning.environment import Environment, Step
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


@dataclasses.dataclass(frozen=True)
class ProbeEnvironment:
    """Episodes of `steps` steps; observation [sign, step]; every step takes 2 s for 1 token."""

    reward: Callable[[Probe, jax.Array], jax.Array | float]
    steps: int = 1
    action_count: int = 2

    def reset(self, data: None, key: jax.Array) -> Probe:
        return Probe(sign=jax.random.rademacher(key, (), jnp.float32), step=jnp.int32(0))

    def observe(self, data: None, state: Probe) -> jax.Array:
        return jnp.stack([state.sign, state.step.astype(jnp.float32)])

    def step(
        self, data: None, state: Probe, action: jax.Array, throughput: jax.Array, key: jax.Array
    ) -> Step:
        later = state.replace(step=state.step + 1)
        ended = later.step == self.steps
        fresh = self.reset(data, key)
        return Step(
            state=jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, later),
            reward=jnp.float32(self.reward(state, action)),
            terminated=ended,
            committed=jnp.float32(1),
            seconds=jnp.float32(2),
        )


class ProbePPO(PPO):
    """Validated by its logit of the last action for the validation pytree, an observation."""

    def validate(self, params, validation: jax.Array) -> jax.Array:
        return self.actor.apply(params.actor, validation)[-1]


def algorithm(probe: Environment, config: PPOConfig = CONFIG, validate_every: int = 10) -> ProbePPO:
    """PPO with small networks."""
    return ProbePPO(
        policy="size",
        widths=PolicyConfig(size_actor=(16,), size_critic=(16,)),
        environment=probe,
        settings=config,
        validate_every=validate_every,
    )


VALIDATION = jnp.array([1.0, 0.0])
