"""Observations of the policies (paper Eq. 3, Table 6): tree, levels, context length, history.

The only place where observations are built: decoding, replay and learning call these functions. An
observation is [view | history]: what the tree shows now, and what the cycles before it gave.
Log-probabilities enter as probabilities in [0, 1] (absent = 0) and scalars as shares of their
limits, so that no network input saturates.

    node_probs       D * W * W (size) or W * W (depth) probabilities, as the paper has them
    top_k_probs      the highest of them, sorted, as square roots: most of them are small
    expected_tokens  their running sum at every size > 0, as a share of D
    entropy          nats e of the draft's distribution at every row, as e / (1 + e)
    root_entropy     nats e of the target's distribution that the root came from, as e / (1 + e)
    hidden           the draft's output at the newest level's first row; for the depth policy alone
    levels, length
    acceptance_ema   the history, see `update_history`
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig, ObservationConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import NO_NODE, LevelView, Outcome, TreeView

PAPER = ObservationConfig()
EMA_DECAYS = (0.5, 0.8, 0.95)  # of a running mean per cycle


@dataclasses.dataclass(frozen=True)
class Part:
    """Neighbouring numbers of an observation."""

    name: str  # the field of ObservationConfig that asks for them
    count: int
    meaning: str


def depth_parts(config: CycleConfig, observation: ObservationConfig = PAPER) -> tuple[Part, ...]:
    """What the numbers of the depth policy's observation are, in their order."""
    rows = config.beam_width
    return _parts("newest level", rows**2, rows, config, observation, hidden=observation.hidden)


def size_parts(config: CycleConfig, observation: ObservationConfig = PAPER) -> tuple[Part, ...]:
    """What the numbers of the size policy's observation are, in their order."""
    rows = config.max_levels * config.beam_width
    return _parts("tree", config.node_count, rows, config, observation, hidden=0)


def depth_width(config: CycleConfig, observation: ObservationConfig = PAPER) -> int:
    """Length O of the depth policy's observation."""
    return sum(part.count for part in depth_parts(config, observation))


def size_width(config: CycleConfig, observation: ObservationConfig = PAPER) -> int:
    """Length O of the size policy's observation."""
    return sum(part.count for part in size_parts(config, observation))


def history_width(observation: ObservationConfig) -> int:
    """Length of the history, 0 where nothing is remembered."""
    return 2 * len(EMA_DECAYS) if observation.acceptance_ema else 0


def depth_view(
    view: LevelView, config: CycleConfig, observation: ObservationConfig = PAPER
) -> jax.Array:
    """After a draft pass: what the newest level shows; f32 [depth_width - history_width].

    Raises:
      UserError: the draft's outputs are to be seen and were not recorded.
    """
    view_O = _view(view.log_prob, view, config, observation)
    if not observation.hidden:
        return view_O
    if view.hidden is None:
        raise UserError("The trace holds no outputs of the draft, which these policies see.")
    return jnp.concatenate([view_O, view.hidden[0, : observation.hidden].astype(jnp.float32)])


def size_view(
    view: TreeView, config: CycleConfig, observation: ObservationConfig = PAPER
) -> jax.Array:
    """After drafting: what the tree of `view.levels` levels shows; levels after it are not read.

    Returns:
      f32 [size_width - history_width], all in [0, 1] but `expected_tokens`, which W may exceed.
    """
    drafted = jnp.arange(config.max_levels)[:, None, None] < view.levels
    return _view(jnp.where(drafted, view.log_prob, NO_NODE), view, config, observation)


def depth_observation(
    view: LevelView,
    history: jax.Array,
    config: CycleConfig,
    observation: ObservationConfig = PAPER,
) -> jax.Array:
    """What the depth policy sees, f32 [depth_width]; the history is what `update_history` gave."""
    return jnp.concatenate([depth_view(view, config, observation), history])


def size_observation(
    view: TreeView,
    history: jax.Array,
    config: CycleConfig,
    observation: ObservationConfig = PAPER,
) -> jax.Array:
    """What the size policy sees, f32 [size_width]; the history is what `update_history` gave."""
    return jnp.concatenate([size_view(view, config, observation), history])


def init_history(observation: ObservationConfig) -> jax.Array:
    """The history at the start of a text: undecided."""
    return jnp.full((history_width(observation),), 0.5, jnp.float32)


def update_history(
    history: jax.Array, outcome: Outcome, config: CycleConfig, observation: ObservationConfig
) -> jax.Array:
    """The history after a cycle: running means of [any token accepted, accepted / levels].

    A cycle that verified no node says nothing about the draft and changes nothing.
    """
    if not observation.acceptance_ema:
        return history
    accepted = outcome.accepted.astype(jnp.float32)
    newest_2 = jnp.stack([jnp.minimum(accepted, 1.0), accepted / outcome.levels])
    decay_1 = jnp.asarray(EMA_DECAYS)[:, None]
    old = history.reshape(len(EMA_DECAYS), 2)
    new = decay_1 * old + (1 - decay_1) * newest_2[None]
    verified = jnp.asarray(config.sizes)[outcome.size_index] > 0
    return jnp.where(verified, new.reshape(-1), history)


def _parts(
    of: str,
    nodes: int,
    rows: int,
    config: CycleConfig,
    observation: ObservationConfig,
    *,
    hidden: int,
) -> tuple[Part, ...]:
    """The parts of `_view`, the draft's output and the history; without those of no number."""
    sizes, seen = _counts(nodes, config), observation
    decays = ", ".join(map(str, EMA_DECAYS))
    all_parts = (
        Part("node_probs", nodes * seen.node_probs, f"probability of every node of the {of}"),
        Part(
            "top_k_probs",
            min(seen.top_k_probs, nodes),
            f"square roots of the highest probabilities of the {of}, highest first",
        ),
        Part(
            "expected_tokens",
            len(sizes) * seen.expected_tokens,
            f"sum of the {', '.join(map(str, sizes))} highest probabilities of the {of}, "
            f"over max_levels {config.max_levels}",
        ),
        Part(
            "entropy",
            rows * seen.entropy,
            f"e / (1 + e), e the draft's entropy in nats at every row of the {of}",
        ),
        Part(
            "root_entropy",
            int(seen.root_entropy),
            "e / (1 + e), e the target's entropy in nats where the root came from",
        ),
        Part("levels", int(seen.levels), f"levels drafted over max_levels {config.max_levels}"),
        Part("length", int(seen.length), f"tokens before the root over context {config.context}"),
        Part("hidden", hidden, "channels of the draft's output at the newest level's first row"),
        Part(
            "acceptance_ema",
            history_width(seen),
            f"running means of (any token accepted, accepted over levels) for each decay {decays}",
        ),
    )
    return tuple(part for part in all_parts if part.count)


def _view(
    log_prob: jax.Array,
    view: LevelView | TreeView,
    config: CycleConfig,
    observation: ObservationConfig,
) -> jax.Array:
    log_prob_N = log_prob.reshape(-1)
    parts = [jnp.exp(log_prob_N)] if observation.node_probs else []
    if observation.top_k_probs or observation.expected_tokens:
        parts += _top_k_parts(log_prob_N, config, observation)
    parts += [_bounded(view.entropy.reshape(-1))] if observation.entropy else []
    scalars = [_bounded(view.root_entropy)] if observation.root_entropy else []
    scalars += [view.levels / config.max_levels] if observation.levels else []
    scalars += [view.length / config.context] if observation.length else []
    parts += [jnp.float32(scalar)[None] for scalar in scalars]
    return jnp.concatenate([*parts, jnp.zeros((0,), jnp.float32)])


def _bounded(entropy: jax.Array) -> jax.Array:
    return entropy / (1 + entropy)


def _top_k_parts(
    log_prob_N: jax.Array, config: CycleConfig, observation: ObservationConfig
) -> list[jax.Array]:
    nodes = log_prob_N.shape[0]
    counts = _counts(nodes, config) if observation.expected_tokens else []
    best = min(observation.top_k_probs, nodes)
    # Two slices of it would make XLA sort all N on a CPU instead of finding the best K.
    log_prob_K = jax.lax.optimization_barrier(jax.lax.top_k(log_prob_N, max([best, *counts]))[0])
    parts = [jnp.exp(log_prob_K[:best] / 2)] if best else []
    if counts:
        among = np.arange(log_prob_K.shape[0])[:, None] < np.asarray(counts)[None, :]
        share = among.astype(np.float32) / config.max_levels  # a product: cumsum is slow on a CPU
        parts.append(jnp.dot(jnp.exp(log_prob_K), share, precision=jax.lax.Precision.HIGHEST))
    return parts


def _counts(nodes: int, config: CycleConfig) -> list[int]:
    """The sizes > 0 that so many nodes can fill."""
    return [size for size in config.sizes if 0 < size <= nodes]
