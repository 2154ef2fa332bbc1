"""The law of a text's first tokens under sampling: drawn by the compiled cycle, and exact.

The exact law comes from the target alone: its processed probabilities after every beginning. What
is drawn comes from the compiled cycle or the plain step, one text per random key, side by side.
Small vocabularies only: all beginnings are listed.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy import stats

from ltd_jax.config import CycleConfig, DraftConfig, PairConfig, TargetConfig
from ltd_jax.cycle import prefill, sample, step
from ltd_jax.cycle.step import CycleState
from ltd_jax.models import draft, target
from ltd_jax.models.pair import Model, Pair
from ltd_jax.policies.policy import Policy

LENGTH = 3  # tokens of a text whose joint law is compared
BATCH = 4096  # texts drawn side by side
LEAST_EXPECTED = 5.0  # of a cell in the chi-square test; rarer cells are put together
LOUDNESS = 18.0  # of random matrices: deviation 0.36, distributions neither flat nor sure


def random_pair(vocab_size: int, cycle: CycleConfig, seed: int) -> Pair:
    """A pair of random weights in f32 whose distributions are neither flat nor sure."""
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "head_count": 2,
        "kv_head_count": 2,
        "head_dim": 8,
    }
    teacher = TargetConfig(vocab_size=vocab_size, layer_count=3, feature_layers=(0, 1, 2), **shape)
    student = DraftConfig(
        vocab_size=vocab_size, draft_vocab_size=vocab_size, target_hidden_size=16, **shape
    )
    key_target, key_draft = jax.random.split(jax.random.key(seed))
    louder = lambda leaf: leaf * (LOUDNESS if leaf.ndim > 1 else 1.0)
    target_params = jax.tree.map(louder, target.init(key_target, teacher))
    token_Y = jnp.arange(vocab_size, dtype=jnp.int32)
    draft_params = draft.init(key_draft, student, target_params.embedding, token_Y)
    config = PairConfig(teacher, student, cycle)
    return Pair(Model(target_params, draft_params, config), jnp.dtype(jnp.float32))


def drawn(pair: Pair, prompt_T: np.ndarray, count: int, policy: Policy | None = None) -> np.ndarray:
    """The first LENGTH tokens of `count` texts, i32 [count, LENGTH]; no policy = plain decoding.

    A text depends on its place and not on how many there are.

    Args:
      prompt_T: i32, at most one prefill chunk.
    """
    if policy is not None:
        policy.check(pair.config.cycle)
        policy = policy.traced()
    chunk = pair.config.cycle.prefill_chunk
    padded_T = jnp.asarray(np.pad(prompt_T, (0, chunk - len(prompt_T))), jnp.int32)
    prompt_tokens, key = jnp.int32(len(prompt_T)), jax.random.key(pair.seed)
    places = jnp.arange(-(-count // BATCH) * BATCH)
    batches = [
        _draw(pair.model, policy, padded_T, prompt_tokens, key, places[start : start + BATCH])
        for start in range(0, count, BATCH)
    ]
    return np.concatenate(jax.device_get(batches))[:count]


@jax.jit
def _draw(
    model: Model,
    policy: Policy | None,
    prompt_T: jax.Array,
    prompt_tokens: jax.Array,
    key: jax.Array,
    places: jax.Array,
) -> jax.Array:
    """Texts [B, LENGTH] i32 at some places; all settings of a kind of policy share the program."""

    def draw_text(place: jax.Array) -> jax.Array:
        key_text = jax.random.fold_in(key, place)
        state = prefill.prefill_chunk(
            model,
            prefill.empty_state(model.config, model.target.embedding.dtype, key_text),
            prompt_T,
            jnp.int32(0),
            prompt_tokens,
            prompt_tokens,
            jnp.bool_(True),
        )
        if policy is None:
            return _plain_text(model, state)
        return _cycle_text(model, policy, state)

    return jax.vmap(draw_text)(places)


def _plain_text(model: Model, state: CycleState) -> jax.Array:
    plain, tokens = step.plain_of(state), [state.root]
    for _ in range(LENGTH - 1):
        plain = step.plain(model, plain)
        tokens.append(plain.root)
    return jnp.stack(tokens)


@struct.dataclass
class _Text:
    """A text that grows."""

    state: CycleState
    token: jax.Array  # [room] i32, the first `count` valid
    count: jax.Array  # i32 []


def _cycle_text(model: Model, policy: Policy, state: CycleState) -> jax.Array:
    """Every cycle commits at least one token, so LENGTH - 1 of them are enough."""
    room = LENGTH * model.config.cycle.path_length

    def advance(_: int, text: _Text) -> _Text:
        state, result = step.cycle(model, policy, text.state)
        return _Text(
            state=state,
            token=jax.lax.dynamic_update_slice(text.token, result.token, (text.count,)),
            count=text.count + result.committed,
        )

    state = state.replace(history=policy.init_history(model.config.cycle))
    start = _Text(state, jnp.zeros((room,), jnp.int32).at[0].set(state.root), jnp.int32(1))
    return jax.lax.fori_loop(0, LENGTH - 1, advance, start).token[:LENGTH]


def exact(pair: Pair, prompt_T: np.ndarray) -> np.ndarray:
    """The joint law of the first LENGTH tokens, f64 [X, ..., X]."""
    X, later = pair.config.target.vocab_size, LENGTH - 1
    beginning_BT = np.indices((X,) * later).reshape(later, X**later).T
    text_BT = np.concatenate([np.tile(prompt_T, (X**later, 1)), beginning_BT], axis=1)
    p_BTX = np.asarray(_next_token_probs(pair.model, jnp.asarray(text_BT, jnp.int32)), np.float64)
    p_BTX = p_BTX[:, -LENGTH:] / p_BTX[:, -LENGTH:].sum(axis=-1, keepdims=True)
    p = p_BTX.reshape((X,) * later + (LENGTH, X))
    law = np.ones((), np.float64)
    for place in range(LENGTH):  # tokens from `place` on have no say in the one at `place`
        law = law[..., None] * p[(slice(None),) * place + (0,) * (later - place) + (place,)]
    return law


@jax.jit
def _next_token_probs(model: Model, token_BT: jax.Array) -> jax.Array:
    """Processed probabilities [B, T, X] f32 of the token after every beginning of each text."""
    config, T = model.config, token_BT.shape[1]
    causal_TT = jnp.tril(jnp.ones((T, T), bool))
    probs = partial(sample.target_probs, config=config.sampling)

    def text_probs(token_T: jax.Array) -> jax.Array:
        logits_TX, _, _ = target.forward(
            model.target, config.target, token_T, jnp.arange(T), causal_TT, None
        )
        seen_TX = jnp.cumsum(jax.nn.one_hot(token_T, config.target.vocab_size), axis=0) > 0
        return jax.vmap(probs)(logits_TX, seen_TX)

    return jax.vmap(text_probs)(token_BT)


class Fit(NamedTuple):
    """How well some draws fit a law."""

    p_value: float  # of the chi-square test
    total_variation: float


def fit(token_BT: np.ndarray, law: np.ndarray) -> Fit:
    """Chi-square p-value and total variation of draws i32 [count, LENGTH] against a law."""
    flat = np.ravel_multi_index(tuple(token_BT.T), law.shape)
    counts = np.bincount(flat, minlength=law.size).astype(np.float64)
    expected = law.reshape(-1) * len(token_BT)
    common = expected >= LEAST_EXPECTED
    pooled = lambda cells: np.append(cells[common], cells[~common].sum())
    observed, wanted = pooled(counts), pooled(expected)
    distance = float(np.abs(counts - expected).sum() / (2 * len(token_BT)))
    if wanted[-1] < LEAST_EXPECTED and common.any():  # few together, too: the rarest takes them
        rarest = int(np.argmin(wanted[:-1]))
        observed[rarest] += observed[-1]
        wanted[rarest] += wanted[-1]
        observed, wanted = observed[:-1], wanted[:-1]
    if len(wanted) == 1:  # too few draws to tell cells apart
        return Fit(1.0, distance)
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    upper = jax.scipy.special.gammaincc((len(wanted) - 1) / 2, statistic / 2)
    return Fit(float(upper), distance)


def uniformity(p_values: Sequence[float]) -> float:
    """Kolmogorov-Smirnov p-value (asymptotic) of some p-values being uniform on [0, 1]."""
    root = len(p_values) ** 0.5
    distance = stats.kstest(p_values, "uniform").statistic
    return float(stats.kstwobign.sf((root + 0.12 + 0.11 / root) * distance))
