"""Is the output the target's own? Texts of every method beside plain decoding's, token by token.

Sampled texts, too: under the coupled rule every position has random numbers of its own, so one seed
gives one text. Under the sequential rule only the distribution is the same, and the texts are
not comparable; `decoding.distribution` tests that rule.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import PairConfig
from ltd_jax.cycle import sample
from ltd_jax.cycle.sample import SamplingState
from ltd_jax.decoding.benchmark import Run
from ltd_jax.models import target
from ltd_jax.models.pair import Pair
from ltd_jax.models.target import TargetParams
from ltd_jax.replay.record import Prompt

# Difference of plain decoding's two best logits that rounding can turn: in half precision the step
# between two numbers around 16, where the best logits of large models lie.
NEAR_TIE = {"float32": 1e-4, "bfloat16": 2.0**-3, "float16": 2.0**-6}
MOVES = 64  # of a sampled position's logits, to see whether their rounding decides


def compare(
    pair: Pair, runs: Sequence[Run], prompts: Sequence[Prompt], baseline: str
) -> dict[str, int | str]:
    """Counts tokens compared, mismatching texts and near ties.

    A text is compared up to its first difference. There, plain decoding's two best logits within
    NEAR_TIE of the dtype make it a near tie (rounding decides); anything else is a mismatch.

    Raises:
      ValueError: the pair samples by the sequential rule.
    """
    if not pair.config.sampling.is_reproducible:
        raise ValueError(
            "Texts of the sequential rule have the target's distribution, but not plain decoding's "
            "tokens; compare texts of the coupled rule."
        )
    plain = {run.prompt: run.tokens for run in runs if run.method == baseline}
    compared = mismatches = near_ties = 0
    dtype = jnp.dtype(pair.dtype).name
    for run in runs:
        if run.method == baseline:
            continue
        ours, theirs = run.tokens, plain[run.prompt]
        differs = [
            i for i, pair_of in enumerate(zip(ours, theirs, strict=False)) if len(set(pair_of)) > 1
        ]
        if not differs and len(ours) == len(theirs):
            compared += len(ours)
            continue
        first = differs[0] if differs else min(len(ours), len(theirs))
        compared += first
        rounding = rounding_decides(pair, prompts[run.prompt].token, np.asarray(theirs[:first]))
        near_ties += rounding
        mismatches += not rounding
    return {
        "dtype": dtype,
        "tokens_compared": compared,
        "mismatches": int(mismatches),
        "near_ties": int(near_ties),
    }


def rounding_decides(pair: Pair, prompt_T: np.ndarray, text_T: np.ndarray) -> bool:
    """Whether logits moved by NEAR_TIE give another token behind a prompt and a piece of text."""
    near_tie = NEAR_TIE[jnp.dtype(pair.dtype).name]
    tokens_T = np.concatenate([prompt_T, text_T]).astype(np.int32)
    padded = np.zeros(pair.config.cycle.context, np.int32)
    padded[: len(tokens_T)] = tokens_T
    at = (pair.params.target, pair.config, jnp.asarray(padded), jnp.int32(len(tokens_T)))
    if pair.config.sampling.is_argmax:
        return bool(_gap(*at) < near_tie)
    return bool(_moves(*at, sample.text_key(pair.seed, prompt_T), near_tie))


@functools.partial(jax.jit, static_argnames="pair")
def _gap(
    params: TargetParams, pair: PairConfig, tokens_S: jax.Array, count: jax.Array
) -> jax.Array:
    best = jax.lax.top_k(_logits(params, pair, tokens_S, count), 2)[0]
    return best[0] - best[1]


@functools.partial(jax.jit, static_argnames="pair")
def _moves(
    params: TargetParams,
    pair: PairConfig,
    tokens_S: jax.Array,
    count: jax.Array,
    key: jax.Array,
    near_tie: float,
) -> jax.Array:
    """Whether one of MOVES small moves of the logits changes the draw."""
    logits_X = _logits(params, pair, tokens_S, count)
    state: SamplingState | None = sample.start(pair, key)
    state = sample.read(state, tokens_S, jnp.arange(tokens_S.shape[0]) < count)
    choose = lambda moved_X: sample.choose(moved_X, count, state, pair.sampling)
    by = near_tie * jax.random.normal(jax.random.key(0), (MOVES, logits_X.shape[0]))
    return jnp.any(jax.vmap(choose)(logits_X[None] + by) != choose(logits_X))


def _logits(
    params: TargetParams, pair: PairConfig, tokens_S: jax.Array, count: jax.Array
) -> jax.Array:
    """The target's logits [X] after the first `count` tokens."""
    S = tokens_S.shape[0]
    causal = jnp.tril(jnp.ones((S, S), bool))
    logits_SX, _, _ = target.forward(params, pair.target, tokens_S, jnp.arange(S), causal, None)
    return logits_SX[count - 1]
