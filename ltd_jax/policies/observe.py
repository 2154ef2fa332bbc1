"""What the policies see (paper Eq. 3, Table 6): tree, levels so far, context length, recent cycles.

The only place where observations are built: decoding, replay and learning call these functions. An
observation is [view | memory]: what the tree shows now, and what the cycles before it gave. Scores
enter as probabilities in [0, 1] (absent = 0) and scalars as shares of their limits, so that no
network input saturates.

    nodes     D * W * W (size) or W * W (depth) probabilities, as the paper has them
    best      the highest of them, sorted, as square roots: most of them are small
    expected  their running sum at every size > 0, as a share of D: tokens that the draft expects
    entropy   nats e of the draft's distribution at every row, as e / (1 + e)
    certainty nats e of the target's distribution that the root came from, as e / (1 + e)
    hidden    the draft's output at the newest level's first row; the depth policy alone sees it
    levels, length
    recent    the memory, see `remember`
"""

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig, ObservationConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import NO_NODE, LevelView, Outcome, TreeView

PAPER = ObservationConfig()
MEMORY_DECAYS = (0.5, 0.8, 0.95)  # of a running mean per cycle


def depth_width(config: CycleConfig, observation: ObservationConfig = PAPER) -> int:
    """Length O of the depth policy's observation."""
    rows = config.beam_width if observation.entropy else 0
    return _width(config.beam_width**2, config, observation) + rows + observation.hidden


def size_width(config: CycleConfig, observation: ObservationConfig = PAPER) -> int:
    """Length O of the size policy's observation."""
    rows = config.max_levels * config.beam_width if observation.entropy else 0
    return _width(config.node_count, config, observation) + rows


def memory_width(observation: ObservationConfig) -> int:
    """Length of the memory, 0 where nothing is remembered."""
    return 2 * len(MEMORY_DECAYS) if observation.recent else 0


def depth_view(
    view: LevelView, config: CycleConfig, observation: ObservationConfig = PAPER
) -> jax.Array:
    """After a draft pass: what the newest level shows; f32 [depth_width - memory_width].

    Raises:
      UserError: the draft's outputs are to be seen and were not recorded.
    """
    seen_O = _view(view.score, view, config, observation)
    if not observation.hidden:
        return seen_O
    if view.hidden is None:
        raise UserError("The trace holds no outputs of the draft, which these policies see.")
    return jnp.concatenate([seen_O, view.hidden[0, : observation.hidden].astype(jnp.float32)])


def size_view(
    view: TreeView, config: CycleConfig, observation: ObservationConfig = PAPER
) -> jax.Array:
    """After drafting: what the tree of `view.levels` levels shows; levels behind it are not read.

    Returns:
      f32 [size_width - memory_width], all in [0, 1] but `expected`, which W may exceed.
    """
    drafted = jnp.arange(config.max_levels)[:, None, None] < view.levels
    return _view(jnp.where(drafted, view.score, NO_NODE), view, config, observation)


def depth_observation(
    view: LevelView,
    memory: jax.Array,
    config: CycleConfig,
    observation: ObservationConfig = PAPER,
) -> jax.Array:
    """What the depth policy sees, f32 [depth_width]; the memory is what `remember` gave."""
    return jnp.concatenate([depth_view(view, config, observation), memory])


def size_observation(
    view: TreeView,
    memory: jax.Array,
    config: CycleConfig,
    observation: ObservationConfig = PAPER,
) -> jax.Array:
    """What the size policy sees, f32 [size_width]; the memory is what `remember` gave."""
    return jnp.concatenate([size_view(view, config, observation), memory])


def no_memory(observation: ObservationConfig) -> jax.Array:
    """The memory at the start of a text: undecided."""
    return jnp.full((memory_width(observation),), 0.5, jnp.float32)


def remember(
    memory: jax.Array, outcome: Outcome, config: CycleConfig, observation: ObservationConfig
) -> jax.Array:
    """The memory behind a cycle: running means of [any token accepted, accepted / levels].

    A cycle that verified no node says nothing about the draft and changes nothing.
    """
    if not observation.recent:
        return memory
    accepted = outcome.accepted.astype(jnp.float32)
    seen_2 = jnp.stack([jnp.minimum(accepted, 1.0), accepted / outcome.levels])
    decay_1 = jnp.asarray(MEMORY_DECAYS)[:, None]
    old = memory.reshape(len(MEMORY_DECAYS), 2)
    new = decay_1 * old + (1 - decay_1) * seen_2[None]
    verified = jnp.asarray(config.sizes)[outcome.size] > 0
    return jnp.where(verified, new.reshape(-1), memory)


def _width(nodes: int, config: CycleConfig, observation: ObservationConfig) -> int:
    parts = nodes if observation.nodes else 0
    parts += min(observation.best, nodes)
    parts += len(_counts(nodes, config)) if observation.expected else 0
    scalars = observation.certainty + observation.levels + observation.length
    return parts + scalars + memory_width(observation)


def _view(
    score: jax.Array,
    view: LevelView | TreeView,
    config: CycleConfig,
    observation: ObservationConfig,
) -> jax.Array:
    score_N = score.reshape(-1)
    parts = [jnp.exp(score_N)] if observation.nodes else []
    if observation.best or observation.expected:
        parts += _of_the_best(score_N, config, observation)
    parts += [_bounded(view.entropy.reshape(-1))] if observation.entropy else []
    scalars = [_bounded(view.root_entropy)] if observation.certainty else []
    scalars += [view.levels / config.max_levels] if observation.levels else []
    scalars += [view.length / config.context] if observation.length else []
    parts += [jnp.float32(scalar)[None] for scalar in scalars]
    return jnp.concatenate([*parts, jnp.zeros((0,), jnp.float32)])


def _bounded(entropy: jax.Array) -> jax.Array:
    return entropy / (1 + entropy)


def _of_the_best(
    score_N: jax.Array, config: CycleConfig, observation: ObservationConfig
) -> list[jax.Array]:
    nodes = score_N.shape[0]
    counts = _counts(nodes, config) if observation.expected else []
    best = min(observation.best, nodes)
    # Two slices of it would make XLA sort all N on a CPU instead of finding the best K.
    score_K = jax.lax.optimization_barrier(jax.lax.top_k(score_N, max([best, *counts]))[0])
    parts = [jnp.exp(score_K[:best] / 2)] if best else []
    if counts:
        among = np.arange(score_K.shape[0])[:, None] < np.asarray(counts)[None, :]
        share = among.astype(np.float32) / config.max_levels  # a product: cumsum is slow on a CPU
        parts.append(jnp.dot(jnp.exp(score_K), share, precision=jax.lax.Precision.HIGHEST))
    return parts


def _counts(nodes: int, config: CycleConfig) -> list[int]:
    """The sizes > 0 that so many nodes can fill."""
    return [size for size in config.sizes if 0 < size <= nodes]
