"""Generalised advantage estimation (Schulman et al. 2016) for one environment; vmap outside.

T counts the steps of a rollout. A step that *terminates* has no value behind it; a step that is
*truncated* was cut off by a limit, so the value of what it would have seen next still counts. Both
end the episode: the advantage of the step after belongs to another one and does not flow back.

    reward      r0    r1    r2    r3
    terminated   0     1     0     0
    truncated    0     0     1     0
    V behind    V1     0    cut2  last
"""

from typing import Any

import jax
import jax.numpy as jnp


def next_values(
    value_T: jax.Array,
    cut_value_T: jax.Array,
    last_value: jax.Array,
    terminated_T: jax.Array,
    truncated_T: jax.Array,
) -> jax.Array:
    """The value behind each step, f32 [T].

    Args:
      value_T: value of what each step saw before its action.
      cut_value_T: value of what each step saw after it, before any reset; used where truncated.
      last_value: value of what the step after the rollout sees.
      terminated_T: bool, wins over truncated.
      truncated_T: bool.
    """
    following_T = jnp.append(value_T[1:], last_value)
    return jnp.where(terminated_T, 0.0, jnp.where(truncated_T, cut_value_T, following_T))


def advantages(
    reward_T: jax.Array,
    value_T: jax.Array,
    next_value_T: jax.Array,
    ended_T: jax.Array,
    gamma: float,
    gae_lambda: float,
) -> jax.Array:
    """A[t] = δ[t] + γ λ (1 - ended[t]) A[t+1] with δ[t] = r[t] + γ V'[t] - V[t]; f32 [T].

    Args:
      next_value_T: V', as `next_values` gives it.
      ended_T: bool, terminated or truncated.
    """
    delta_T = reward_T + gamma * next_value_T - value_T
    carried_T = gamma * gae_lambda * (1.0 - ended_T)

    def add(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, carried = step
        advantage = delta + carried * later
        return advantage, advantage

    return jax.lax.scan(add, jnp.float32(0), (delta_T, carried_T), reverse=True)[1]


def chained_advantages(
    reward_T: jax.Array,
    value_TD: jax.Array,
    asked_TD: jax.Array,
    over_T: jax.Array,
    last_value: jax.Array,
    gamma: float,
    gae_lambda: float,
) -> jax.Array:
    """Advantages of chains of D decisions, of which the last gets the reward; f32 [T, D].

    `gamma` discounts from one chain to the next only. A decision that was not asked is passed over:
    what follows it counts for the one before, and its own advantage is 0.

    Args:
      asked_TD: bool; the last of a chain is always asked.
      over_T: bool, no value behind this chain.
      last_value: of the first decision after all chains.
    """
    last_TD = jnp.zeros_like(asked_TD).at[:, -1].set(True)
    reward_TD = jnp.where(last_TD, reward_T[:, None], 0.0)
    discount_TD = jnp.where(last_TD, gamma * (1.0 - over_T)[:, None], 1.0)

    def add(behind: tuple[jax.Array, jax.Array], decision: tuple[jax.Array, ...]) -> Any:
        next_value, later = behind
        reward, discount, value, asked = decision
        advantage = reward + discount * (next_value + gae_lambda * later) - value
        passed = (jnp.where(asked, value, next_value), jnp.where(asked, advantage, later))
        return passed, jnp.where(asked, advantage, 0.0)

    steps = [leaf.reshape(-1) for leaf in (reward_TD, discount_TD, value_TD, asked_TD)]
    start = (last_value, jnp.float32(0))
    return jax.lax.scan(add, start, tuple(steps), reverse=True)[1].reshape(value_TD.shape)
