"""What the policies see (paper Eq. 3): tree probabilities, levels so far, context length.

The only place where observations are built: decoding, replay and learning call these functions.
Scores enter as probabilities in [0, 1] (absent = 0) and scalars as shares of their limits, so that
no network input saturates.
"""

import jax
import jax.numpy as jnp

from ltd_jax.config import CycleConfig


def depth_width(config: CycleConfig) -> int:
    """Length O of the depth policy's observation."""
    return config.beam_width**2 + 2


def size_width(config: CycleConfig) -> int:
    """Length O of the size policy's observation."""
    return config.node_count + 2


def depth_observation(
    level_score_WW: jax.Array, levels: jax.Array, length: jax.Array, config: CycleConfig
) -> jax.Array:
    """After a draft pass: the newest level's probabilities, levels drafted, context length.

    Args:
      level_score_WW: f32 cumulative log-probabilities of the newest level, -inf = no node.
      levels: i32 draft passes done in this cycle, >= 1.
      length: i32 tokens whose target keys are cached.

    Returns:
      f32 [W * W + 2], all in [0, 1].
    """
    return _with_scalars(jnp.exp(level_score_WW), levels, length, config)


def size_observation(
    score_DWW: jax.Array, levels: jax.Array, length: jax.Array, config: CycleConfig
) -> jax.Array:
    """After drafting: all probabilities, levels drafted, context length; f32 [D * W * W + 2]."""
    drafted = jnp.arange(config.max_levels)[:, None, None] < levels
    probability = jnp.where(drafted, jnp.exp(score_DWW), 0.0)
    return _with_scalars(probability, levels, length, config)


def _with_scalars(
    probability: jax.Array, levels: jax.Array, length: jax.Array, config: CycleConfig
) -> jax.Array:
    scalars = jnp.stack([levels / config.max_levels, length / config.context])
    return jnp.concatenate([probability.reshape(-1), scalars.astype(jnp.float32)])


def entropy(log_prob_X: jax.Array) -> jax.Array:
    """Nats of distributions f32 [..., X] given as log-probabilities: -sum of p log p, f32 [...]."""
    return -jnp.sum(jnp.exp(log_prob_X) * log_prob_X, axis=-1)
