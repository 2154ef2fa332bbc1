"""Sample: from the target's logits to one token, on the device, in f32.

Every token of a text has random numbers of its own: those of the text's key and of the token's
*position*, the number of tokens before it. They do not depend on the cycle that asks for them, so
whoever decodes a text with one seed draws the same token behind the same tokens. `choose` does it
by the Gumbel-max trick: argmax of score + Gumbel noise has the distribution softmax(score).
"""

import zlib
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import PairConfig, SamplingConfig

NEG_INF = -jnp.inf  # score of a token that top-p or top-k leaves out
# In the place of a token: the model's logits are NaN or infinite, so there is none to choose.
NO_TARGET, NO_DRAFT = -1, -2


@struct.dataclass
class SamplingState:
    """What sampling needs to know of one text; greedy decoding has none."""

    key: jax.Array  # the text's random key
    seen: jax.Array | None  # [X] bool, tokens of the text up to the root; None without a penalty


State = TypeVar("State", bound=SamplingState | None)


def start(pair: PairConfig, key: jax.Array) -> SamplingState | None:
    """The state of a text without tokens; None where the largest logit decides."""
    if pair.sampling.is_argmax:
        return None
    penalised = pair.sampling.repetition_penalty != 1
    seen = jnp.zeros((pair.target.vocab_size,), bool) if penalised else None
    return SamplingState(key, seen)


def text_key(seed: int, prompt_T: np.ndarray) -> jax.Array:
    """The random key of a prompt's text: of its tokens, so that no order of prompts changes it."""
    digest = zlib.crc32(np.asarray(prompt_T, np.int32).tobytes())
    return jax.random.fold_in(jax.random.key(seed), np.uint32(digest))


def mark_seen(state: State, token_T: jax.Array, valid_T: jax.Array) -> State:
    """The state after the valid ones of some tokens have joined the text."""
    if state is None or state.seen is None:
        return state
    outside = state.seen.shape[0]
    place_T = jnp.where(valid_T, token_T, outside)
    return state.replace(seen=state.seen.at[place_T].set(True, mode="drop"))


def argmax(logits_X: jax.Array) -> jax.Array:
    """Index i32 [...] of the largest of f32 [..., X], the first of equals: what argmax gives.

    NO_TARGET where the largest is no finite number, as where all are NaN: finite weights give a
    finite state and finite logits of it, or nothing but NaN.

    In two reductions that a CPU does many numbers at a time; XLA's argmax there takes them one by
    one, a tenth of a millisecond for four rows of two thousand.
    """
    last = logits_X.shape[-1] - 1
    place_X = jnp.arange(last + 1, dtype=jnp.int32).reshape((1,) * (logits_X.ndim - 1) + (-1,))
    best_1 = jnp.max(logits_X, axis=-1, keepdims=True)
    first = jnp.min(jnp.where(logits_X == best_1, place_X, last), axis=-1)
    return jnp.where(jnp.isfinite(best_1[..., 0]), first, NO_TARGET)


def choose(
    logits_X: jax.Array, position: jax.Array, state: SamplingState | None, config: SamplingConfig
) -> jax.Array:
    """The token i32 at a position, from the target's logits behind the tokens before it."""
    if state is None:
        return argmax(logits_X)
    score_X = process_logits(logits_X, state.seen, config)
    return draw(score_X, jax.random.fold_in(state.key, position), config)


def draw(score_X: jax.Array, key: jax.Array, config: SamplingConfig) -> jax.Array:
    """A token i32 of the distribution softmax(scores), or the best one at temperature 0.

    NO_TARGET where a score is NaN or the best one infinite.
    """
    if config.temperature > 0:
        score_X = score_X + jax.random.gumbel(key, score_X.shape, jnp.float32)
    best = jnp.argmax(score_X).astype(jnp.int32)  # of NaN, where there is any
    return jnp.where(jnp.isfinite(score_X[best]), best, NO_TARGET)


def process_logits(
    logits_X: jax.Array, seen_X: jax.Array | None, config: SamplingConfig
) -> jax.Array:
    """What is left of the target's logits: log-probabilities up to a constant, or NEG_INF.

    Temperature, repetition penalty, top-p, top-k, in this order. Tokens of equal scores at the
    border of top-p or top-k stay together.

    Args:
      logits_X: f32 of one position.
      seen_X: bool, tokens of the text before this position.
    """
    score_X = logits_X.astype(jnp.float32)
    if config.temperature not in (0.0, 1.0):
        score_X = score_X / config.temperature
    if config.repetition_penalty != 1:
        assert seen_X is not None  # a pair with a penalty keeps them
        factor_X = jnp.where(score_X < 0, config.repetition_penalty, 1 / config.repetition_penalty)
        score_X = jnp.where(seen_X, score_X * factor_X, score_X)
    if config.top_p < 1:
        score_X = jnp.where(score_X >= _least_of_nucleus(score_X, config.top_p), score_X, NEG_INF)
    if 0 < config.top_k < score_X.shape[0]:
        least = jax.lax.top_k(score_X, config.top_k)[0][-1]
        score_X = jnp.where(score_X >= least, score_X, NEG_INF)
    return score_X


def probabilities(score_X: jax.Array) -> jax.Array:
    """f32 [X], softmax of the scores; 0 where cut."""
    weight_X = jnp.where(score_X > NEG_INF, jnp.exp(score_X - jnp.max(score_X)), 0.0)
    return weight_X / jnp.sum(weight_X)


def target_probs(
    logits_X: jax.Array, seen_X: jax.Array | None, config: SamplingConfig
) -> jax.Array:
    """The probabilities f32 [X] of `choose`: of the scores, or all on the best at temperature 0."""
    score_X = process_logits(logits_X, seen_X, config)
    if config.temperature == 0:
        return jax.nn.one_hot(jnp.argmax(score_X), score_X.shape[0], dtype=jnp.float32)
    return probabilities(score_X)


def _least_of_nucleus(score_X: jax.Array, top_p: float) -> jax.Array:
    """The lowest score that stays: what lies below it has at most 1 - top_p together."""
    ascending_X = jnp.sort(score_X)
    below_X = jnp.cumsum(probabilities(ascending_X))
    first = jnp.argmax(below_X > 1 - top_p)  # the best one at the latest, but for rounding
    first = jnp.where(below_X[-1] > 1 - top_p, first, score_X.shape[0] - 1)
    return ascending_X[first]
