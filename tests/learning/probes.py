"""Probe environments: each fails in one way when one part of PPO is wrong (after rejax's tests)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PPOConfig
from ltd_jax.learning.environment import Environment, Step
from ltd_jax.learning.ppo import Learner

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


def environment(
    reward: Callable[[Probe, jax.Array], jax.Array],
    *,
    steps: int = 1,
    actions: int = 2,
    truncated: bool = False,
) -> Environment:
    """Episodes of `steps` steps; observation [sign, step]; every step takes 2 s for 1 token."""

    def reset(data: None, key: jax.Array) -> Probe:
        return Probe(sign=jax.random.rademacher(key, (), jnp.float32), step=jnp.int32(0))

    def observe(data: None, state: Probe) -> jax.Array:
        return jnp.stack([state.sign, state.step.astype(jnp.float32)])

    def step(data: None, state: Probe, action: jax.Array, key: jax.Array) -> Step:
        later = state.replace(step=state.step + 1)
        ended = later.step == steps
        return Step(
            state=jax.tree.map(
                lambda new, old: jnp.where(ended, new, old), reset(data, key), later
            ),
            reward=jnp.float32(reward(state, action)),
            terminated=ended & (not truncated),
            truncated=ended & truncated,
            next_observation=observe(data, later),
            committed=jnp.float32(1),
            seconds=jnp.float32(2),
        )

    return Environment(reset, observe, step, 2, actions)


def learner(probe: Environment, config: PPOConfig = CONFIG, **settings) -> Learner:
    """A small learner, validated by its logit of the last action for the validation pytree."""

    def validate(actor, validation: jax.Array) -> jax.Array:
        return made.actor.apply(actor, validation)[-1]

    made = Learner(probe, config, (16,), (16,), validate, **settings)
    return made


VALIDATION = jnp.array([1.0, 0.0])
