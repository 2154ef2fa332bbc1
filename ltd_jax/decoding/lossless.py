"""Is the output the target's own? Texts of every method beside plain decoding's, token by token."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import PairConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.decoding.benchmark import Run
from ltd_jax.models import target
from ltd_jax.models.target import TargetParams
from ltd_jax.replay.record import Prompt

# Difference of plain decoding's two best logits that rounding can turn: in half precision the step
# between two numbers around 16, where the best logits of large models lie.
NEAR_TIE = {"float32": 1e-4, "bfloat16": 2.0**-3, "float16": 2.0**-6}


def compare(
    pair: Pair, runs: Sequence[Run], prompts: Sequence[Prompt], baseline: str
) -> dict[str, int | str]:
    """Counts tokens compared, mismatching texts and near ties.

    A text is compared up to its first difference. There, plain decoding's two best logits within
    NEAR_TIE of the dtype make it a near tie (rounding decides); anything else is a mismatch.
    """
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
        gap = logit_gap(pair, np.concatenate([prompts[run.prompt].token, theirs[:first]]))
        near_ties += gap < NEAR_TIE[dtype]
        mismatches += gap >= NEAR_TIE[dtype]
    return {
        "dtype": dtype,
        "tokens_compared": compared,
        "mismatches": int(mismatches),
        "near_ties": int(near_ties),
    }


def logit_gap(pair: Pair, tokens_T: np.ndarray) -> float:
    """How far the target's best logit after some tokens lies above the second best."""
    padded = np.zeros(pair.config.cycle.context, np.int32)
    padded[: len(tokens_T)] = tokens_T
    last = jnp.int32(len(tokens_T) - 1)
    return float(_gap(pair.params.target, pair.config, jnp.asarray(padded), last))


@functools.partial(jax.jit, static_argnames="pair")
def _gap(params: TargetParams, pair: PairConfig, tokens_S: jax.Array, last: jax.Array) -> jax.Array:
    S = tokens_S.shape[0]
    causal = jnp.tril(jnp.ones((S, S), bool))
    logits_SX, _, _ = target.forward(params, pair.target, tokens_S, jnp.arange(S), causal, None)
    best = jax.lax.top_k(logits_SX[last], 2)[0]
    return best[0] - best[1]
