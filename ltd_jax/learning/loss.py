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
    logits_MA: jax.Array,
    value_M: jax.Array,
    batch: Rollout,
    config: PPOConfig,
    weight_M: jax.Array | None = None,
) -> tuple[jax.Array, Losses]:
    """Clipped surrogate + value * squared error - entropy bonus.

    Args:
      logits_MA: f32, need not be normalised.
      value_M: f32.
      batch: at least two decisions; their advantages are normalised over the minibatch.
      weight_M: f32, 0 for decisions that do not count, else 1; None = all count.
    """
    weight_M = jnp.ones_like(value_M) if weight_M is None else weight_M
    count = jnp.maximum(weight_M.sum(), 2.0)
    mean = lambda value_M: (weight_M * value_M).sum() / count
    log_probs_MA = jax.nn.log_softmax(logits_MA)
    advantage_M = batch.advantage - mean(batch.advantage)
    variance = (weight_M * jnp.square(advantage_M)).sum() / (count - 1)
    advantage_M /= jnp.sqrt(variance) + 1e-8
    ratio_M = jnp.exp(rollout.log_prob(log_probs_MA, batch.action) - batch.log_prob)
    clipped_M = jnp.clip(ratio_M, 1 - config.clip, 1 + config.clip)
    losses = Losses(
        policy=-mean(jnp.minimum(ratio_M * advantage_M, clipped_M * advantage_M)),
        value=mean(jnp.square(batch.target - value_M)),
        entropy=-mean((jnp.exp(log_probs_MA) * log_probs_MA).sum(-1)),
    )
    total = losses.policy + config.value * losses.value - config.entropy * losses.entropy
    return total, losses
