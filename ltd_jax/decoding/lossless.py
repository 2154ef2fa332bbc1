"""Losslessness: texts of every method beside plain decoding's, token by token.

Sampled texts, too: under the coupled rule every position has random numbers of its own, so one seed
gives one text. Under the sequential rule only the distribution is the same, and the texts are not
comparable; experiments/proofs/check_sampling tests that rule.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.cycle import sample
from ltd_jax.cycle.sample import SamplingState
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.models import target
from ltd_jax.models.pair import AnyPrompt, Model, Pair
from ltd_jax.policies.policy import Policy
from ltd_jax.replay import record
from ltd_jax.replay.record import Prompt

# By how many steps between neighbouring numbers two logits may change places, with room for models
# of more layers: texts of the embedded pair part at differences of up to 0.65 steps in bfloat16
# (8,000 tokens) and 1.26 in float16 (5,700 tokens).
STEPS = {"float32": 64, "bfloat16": 4, "float16": 4}
LARGE = 16.0  # about the best logits of large models, for examples
MOVES = 64  # of a sampled position's logits, to see whether their rounding decides


def check_lossless(
    pair: Pair, policy: Policy, prompts: Sequence[AnyPrompt], new_tokens: int = 128
) -> dict[str, int | str]:
    """Decodes prompts plainly and with a policy, and compares the texts token by token.

    Args:
      prompts: texts, conversations or token ids.

    Returns:
      "dtype", "tokens_compared", "mismatches" (0 if decoding is lossless) and "near_ties", texts
      that part where rounding decides.

    Raises:
      ValueError: the pair samples by the sequential rule.

    Example:
      >>> import ltd_jax as ltd
      >>> found = ltd.check_lossless(ltd.load(), ltd.Constant(2, 4), ["import os"], 16)
      >>> found["tokens_compared"], found["mismatches"]
      (16, 0)
    """
    methods = (Method(benchmark.PLAIN), Method("policy", policy))
    asked = [record.with_task(pair, prompt) for prompt in prompts]
    runs = [
        benchmark.decode(pair, method, prompt, index, new_tokens)
        for index, prompt in enumerate(asked)
        for method in methods
    ]
    return compare(pair, runs, asked, benchmark.PLAIN)


def compare(
    pair: Pair, runs: Sequence[Run], prompts: Sequence[Prompt], baseline: str
) -> dict[str, int | str]:
    """Counts tokens compared, mismatching texts and near ties.

    A text is compared up to its first difference. There, plain decoding's two best logits within
    `near_tie` make it a near tie (rounding decides); anything else is a mismatch.

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
    for run in (run for run in runs if run.method != baseline):
        tokens, wanted = run.tokens, plain[run.prompt]
        same = [token == other for token, other in zip(tokens, wanted, strict=False)]
        first = [*same, False].index(False)
        compared += first
        if first == len(tokens) == len(wanted):
            continue
        is_near_tie = rounding_decides(
            pair, prompts[run.prompt].token, np.asarray(wanted[:first], np.int32)
        )
        near_ties += is_near_tie
        mismatches += not is_near_tie
    return {
        "dtype": jnp.dtype(pair.dtype).name,
        "tokens_compared": compared,
        "mismatches": int(mismatches),
        "near_ties": int(near_ties),
    }


def near_tie(dtype: str, logit: float) -> float:
    """The difference of two logits that rounding can turn: STEPS of the dtype at their size.

    near_tie = STEPS * eps * 2^floor(log2(max(|logit|, 1))), where eps is the step from 1 on.

    Args:
      dtype: of weights and caches.
      logit: the larger one of the two.
    """
    _, exponent = math.frexp(max(abs(logit), 1.0))
    return STEPS[dtype] * float(jnp.finfo(dtype).eps) * 2.0 ** (exponent - 1)


def bound(dtype: str) -> str:
    """What a near tie is in this dtype, for reports."""
    return (
        f"{STEPS[dtype]} steps of {dtype}, {near_tie(dtype, LARGE):.2g} for logits near {LARGE:g}"
    )


def rounding_decides(pair: Pair, prompt_T: np.ndarray, text_T: np.ndarray) -> bool:
    """Whether logits moved by a near tie give another token behind a prompt and some text."""
    tokens_T = np.concatenate([prompt_T, text_T]).astype(np.int32)
    padded = np.zeros(pair.config.cycle.context, np.int32)
    padded[: len(tokens_T)] = tokens_T
    tokens_S, count = jnp.asarray(padded), jnp.int32(len(tokens_T))
    prompt = jnp.int32(len(prompt_T))
    best, second = np.asarray(_best(pair.model, tokens_S, count, prompt)).tolist()
    turned = near_tie(jnp.dtype(pair.dtype).name, best)
    if pair.config.sampling.is_argmax:
        return best - second < turned
    key = sample.text_key(pair.seed, prompt_T)
    return bool(_moves(pair.model, tokens_S, count, prompt, key, turned))


@jax.jit
def _best(model: Model, tokens_S: jax.Array, count: jax.Array, prompt: jax.Array) -> jax.Array:
    """The two best logits after the first `count` tokens, the best one first."""
    return jax.lax.top_k(_logits(model, tokens_S, count, prompt), 2)[0]


@jax.jit
def _moves(
    model: Model,
    tokens_S: jax.Array,
    count: jax.Array,
    prompt: jax.Array,
    key: jax.Array,
    turned: float,
) -> jax.Array:
    """Whether one of MOVES small moves of the logits changes the draw."""
    sampling = model.config.sampling
    logits_X = _logits(model, tokens_S, count, prompt)
    state: SamplingState | None = sample.start(model.config, key)
    state = sample.mark_seen(state, tokens_S, jnp.arange(tokens_S.shape[0]) < count)
    choose = lambda moved_X: sample.choose(moved_X, count, state, sampling)
    by = turned * jax.random.normal(jax.random.key(0), (MOVES, logits_X.shape[0]))
    return jnp.any(jax.vmap(choose)(logits_X[None] + by) != choose(logits_X))


def _logits(model: Model, tokens_S: jax.Array, count: jax.Array, prompt: jax.Array) -> jax.Array:
    """The target's logits [X] after the first `count` tokens, `prompt` of them a prompt's."""
    logits_SX, _, _ = target.causal_forward(
        model.target, model.config.target, tokens_S, None, prompt
    )
    return logits_SX[count - 1]
