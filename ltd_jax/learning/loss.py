"""PPO's loss over one minibatch (Schulman et al. 2017, Eq. 9), as Stable-Baselines3 computes it.

In: what the networks say now and what they said when they acted. Out: one number to lower, and its
parts. M counts the decisions of the minibatch.
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import PPOConfig
from ltd_jax.learning import rollout
from ltd_jax.learning.rollout import Rollout


@struct.dataclass(kw_only=True)
class Losses:
    """Parts of the loss, f32 []."""

    policy: jax.Array
    value: jax.Array
    entropy: jax.Array  # nats


def loss(
    logits_MA: jax.Array, value_M: jax.Array, batch: Rollout, config: PPOConfig
) -> tuple[jax.Array, Losses]:
    """Clipped surrogate + value * squared error - entropy bonus.

    Args:
      logits_MA: f32, need not be normalised.
      value_M: f32.
      batch: at least two decisions; their advantages are normalised over the minibatch.
    """
    log_probs_MA = jax.nn.log_softmax(logits_MA)
    advantage_M = batch.advantage - batch.advantage.mean()
    advantage_M /= batch.advantage.std(ddof=1) + 1e-8
    ratio_M = jnp.exp(rollout.log_prob(log_probs_MA, batch.action) - batch.log_prob)
    clipped_M = jnp.clip(ratio_M, 1 - config.clip, 1 + config.clip)
    losses = Losses(
        policy=-jnp.minimum(ratio_M * advantage_M, clipped_M * advantage_M).mean(),
        value=jnp.square(batch.target - value_M).mean(),
        entropy=-(jnp.exp(log_probs_MA) * log_probs_MA).sum(-1).mean(),
    )
    total = losses.policy + config.value * losses.value - config.entropy * losses.entropy
    return total, losses
