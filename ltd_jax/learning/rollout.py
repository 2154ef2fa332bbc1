"""Rollouts: decisions of the exploring policy in many environments, judged by the critic.

In: an `Environment`, its states side by side, both networks. Out: the next states, what happened,
and the flat `Rollout` that PPO learns from. Environments are vmapped, steps are a `lax.scan`.

T counts the steps of a rollout, B the environments, N = T * B all decisions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PPOConfig
from ltd_jax.learning import gae
from ltd_jax.replay.environment import Environment, Step

Network = Callable[
    [jax.Array], jax.Array
]  # f32 [..., O] -> logits f32 [..., A] or values f32 [...]


@struct.dataclass(kw_only=True)
class Decisions:
    """What happened; fields [T, B, ...]."""

    observation: jax.Array  # [T, B, O] f32
    action: jax.Array  # i32
    log_prob: jax.Array  # f32, of the action as the policy was
    cut_value: jax.Array  # f32, value of the next observation where truncated, else 0
    reward: jax.Array  # f32
    terminated: jax.Array  # bool
    truncated: jax.Array  # bool
    committed: jax.Array  # f32 tokens
    seconds: jax.Array  # f32


@struct.dataclass(kw_only=True)
class Rollout:
    """What PPO learns from; fields [N, ...]."""

    observation: jax.Array  # [N, O] f32
    action: jax.Array  # i32
    log_prob: jax.Array  # f32
    advantage: jax.Array  # f32
    target: jax.Array  # f32, advantage + value: what the critic should have said


def collect(
    environment: Environment,
    data: Any,
    states_B: Any,
    actor: Network,
    critic: Network,
    steps: int,
    key: jax.Array,
) -> tuple[Any, Decisions]:
    """`steps` actions of every environment, drawn from the actor; returns the states after them."""

    def advance(states_B: Any, key: jax.Array) -> tuple[Any, Decisions]:
        key_action, key_step = jax.random.split(key)
        observation_BO = jax.vmap(environment.observe, (None, 0))(data, states_B)
        logits_BA = jax.nn.log_softmax(actor(observation_BO))
        action_B = jax.random.categorical(key_action, logits_BA)
        keys_B = jax.random.split(key_step, len(action_B))
        step = jax.vmap(environment.step, (None, 0, 0, 0))(data, states_B, action_B, keys_B)
        return step.state, Decisions(
            observation=observation_BO,
            action=action_B,
            log_prob=log_prob(logits_BA, action_B),
            cut_value=_cut_value(step, critic),
            reward=step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            committed=step.committed,
            seconds=step.seconds,
        )

    return jax.lax.scan(advance, states_B, jax.random.split(key, steps))


def judge(decisions: Decisions, last_BO: jax.Array, critic: Network, config: PPOConfig) -> Rollout:
    """Advantages and the critic's targets, all decisions in one row.

    Args:
      last_BO: what the environments see after the rollout.
    """
    value_TB, last_value_B = critic(decisions.observation), critic(last_BO)
    next_value_TB = jax.vmap(gae.next_values, (1, 1, 0, 1, 1), 1)(
        value_TB, decisions.cut_value, last_value_B, decisions.terminated, decisions.truncated
    )
    ended_TB = decisions.terminated | decisions.truncated
    advantage_TB = jax.vmap(gae.advantages, (1, 1, 1, 1, None, None), 1)(
        decisions.reward, value_TB, next_value_TB, ended_TB, config.gamma, config.gae_lambda
    )
    rollout = Rollout(
        observation=decisions.observation,
        action=decisions.action,
        log_prob=decisions.log_prob,
        advantage=advantage_TB,
        target=advantage_TB + value_TB,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rollout)


def throughput(decisions: Decisions) -> jax.Array:
    """Tokens per second of the rollout, committed / seconds, both summed first; 0 without time."""
    seconds = decisions.seconds.sum()
    return jnp.where(seconds > 0, decisions.committed.sum() / jnp.maximum(seconds, 1e-30), 0.0)


def log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Of the actions [...] under normalised logits [..., A]."""
    return jnp.take_along_axis(logits, action[..., None], axis=-1)[..., 0]


def _cut_value(step: Step, critic: Network) -> jax.Array:
    # Most environments never truncate: the critic runs here only where one did.
    return jax.lax.cond(
        jnp.any(step.truncated),
        lambda: jnp.where(step.truncated, critic(step.next_observation), 0.0),
        lambda: jnp.zeros_like(step.reward),
    )
