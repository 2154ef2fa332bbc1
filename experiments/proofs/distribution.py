"""Is sampling lossless? The law of a text's first tokens, drawn and exact.

The exact law comes from the target alone: its processed probabilities behind every beginning. What
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

from ltd_jax.config import CycleConfig, DraftConfig, PairConfig, TargetConfig
from ltd_jax.cycle import prefill, sample, step
from ltd_jax.cycle.step import CycleState, PlainState
from ltd_jax.models import draft, target
from ltd_jax.models.pair import Pair, PairParams
from ltd_jax.policies.policy import Controller, constant

LENGTH = 3  # tokens of a text whose joint law is compared
BATCH = 4096  # texts drawn side by side
LEAST_EXPECTED = 5.0  # of a cell in the chi-square test; rarer cells are put together


class Fit(NamedTuple):
    """How well some draws fit a law."""

    p_value: float  # of the chi-square test
    total_variation: float


@struct.dataclass
class _Text:
    """A text that grows."""

    state: CycleState
    token: jax.Array  # [room] i32, the first `count` valid
    count: jax.Array  # i32 []


def random_pair(vocab_size: int, cycle: CycleConfig, seed: int) -> Pair:
    """Random weights whose distributions are neither flat nor sure, f32."""
    width, heads = 16, 2
    shape: dict[str, Any] = {
        "intermediate_size": 24,
        "head_count": heads,
        "kv_head_count": heads,
        "head_dim": 8,
    }
    teacher = TargetConfig(
        vocab_size=vocab_size, hidden_size=width, layer_count=3, feature_layers=(0, 1, 2), **shape
    )
    student = DraftConfig(
        vocab_size=vocab_size,
        draft_vocab_size=vocab_size,
        hidden_size=width,
        target_hidden_size=width,
        **shape,
    )
    key_target, key_draft = jax.random.split(jax.random.key(seed))
    louder = lambda leaf: leaf * (18.0 if leaf.ndim > 1 else 1.0)  # matrices of deviation 0.36
    target_params = jax.tree.map(louder, target.init(key_target, teacher))
    token_Y = jnp.arange(vocab_size, dtype=jnp.int32)
    draft_params = draft.init(key_draft, student, target_params.embedding, token_Y)
    config = PairConfig(teacher, student, cycle)
    return Pair(config, PairParams(target_params, draft_params), jnp.dtype(jnp.float32))


def drawn(
    pair: Pair,
    prompt_T: np.ndarray,
    count: int,
    controller: Controller | None = None,
    params: Any = None,
) -> np.ndarray:
    """The first LENGTH tokens of `count` texts, i32 [count, LENGTH]; no controller = plain.

    A text depends on its place and not on how many there are.
    """

    def text(key: jax.Array) -> jax.Array:
        state = _prefilled(pair, controller or constant(), prompt_T, key)
        if controller is None:
            return _plain_text(pair, state)
        return _cycle_text(pair, controller, params, state)

    draw = jax.jit(jax.vmap(text))
    places = jnp.arange(-(-count // BATCH) * BATCH)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(pair.seed)))(places)
    pieces = [draw(keys[start : start + BATCH]) for start in range(0, count, BATCH)]
    return np.concatenate(jax.device_get(pieces))[:count]


def _prefilled(
    pair: Pair, controller: Controller, prompt_T: np.ndarray, key: jax.Array
) -> CycleState:
    """The state after a prompt of at most one prefill chunk."""
    chunk = pair.config.cycle.prefill_chunk
    return prefill.prefill_chunk(
        pair.params,
        pair.config,
        prefill.empty_state(pair.config, controller, pair.dtype, key),
        jnp.asarray(np.pad(prompt_T, (0, chunk - len(prompt_T))), jnp.int32),
        jnp.int32(0),
        jnp.int32(len(prompt_T)),
        jnp.bool_(True),
    )


def _plain_text(pair: Pair, state: CycleState) -> jax.Array:
    plain, tokens = PlainState(state.target_cache, state.root, state.sampling), [state.root]
    for _ in range(LENGTH - 1):
        plain = step.plain(pair.params.target, pair.config, plain)
        tokens.append(plain.root)
    return jnp.stack(tokens)


def _cycle_text(pair: Pair, controller: Controller, params: Any, state: CycleState) -> jax.Array:
    """Every cycle commits at least one token, so LENGTH - 1 of them are enough."""
    room = LENGTH * pair.config.cycle.path_length

    def advance(_: int, text: _Text) -> _Text:
        state, result = step.cycle(pair.params, pair.config, controller, params, text.state)
        return _Text(
            state=state,
            token=jax.lax.dynamic_update_slice(text.token, result.token, (text.count,)),
            count=text.count + result.committed,
        )

    start = _Text(state, jnp.zeros((room,), jnp.int32).at[0].set(state.root), jnp.int32(1))
    return jax.lax.fori_loop(0, LENGTH - 1, advance, start).token[:LENGTH]


def exact(pair: Pair, prompt_T: np.ndarray) -> np.ndarray:
    """The joint law of the first LENGTH tokens, f64 [X, ..., X]."""
    X = pair.config.target.vocab_size
    law = np.ones((), np.float64)
    for depth in range(LENGTH):
        beginnings = np.indices((X,) * depth).reshape(depth, X**depth).T
        texts = np.concatenate([np.tile(prompt_T, (len(beginnings), 1)), beginnings], axis=1)
        p_BX = np.asarray(_behind(pair, jnp.asarray(texts, jnp.int32)), np.float64)
        p_BX /= p_BX.sum(axis=-1, keepdims=True)
        law = law[..., None] * p_BX.reshape((X,) * (depth + 1))
    return law


def _behind(pair: Pair, tokens_BT: jax.Array) -> jax.Array:
    """Processed probabilities [B, X] of what comes behind some texts."""
    T = tokens_BT.shape[1]
    causal = jnp.tril(jnp.ones((T, T), bool))

    def behind(token_T: jax.Array) -> jax.Array:
        logits_TX, _, _ = target.forward(
            pair.params.target, pair.config.target, token_T, jnp.arange(T), causal, None
        )
        seen_X = jnp.zeros((pair.config.target.vocab_size,), bool).at[token_T].set(True)
        return sample.probabilities(sample.scores(logits_TX[-1], seen_X, pair.config.sampling))

    return jax.jit(jax.vmap(behind))(tokens_BT)


def fit(tokens: np.ndarray, law: np.ndarray) -> Fit:
    """Chi-square p-value and total variation of draws i32 [count, LENGTH] against a law."""
    flat = np.ravel_multi_index(tuple(tokens.T), law.shape)
    seen = np.bincount(flat, minlength=law.size).astype(np.float64)
    expected = law.reshape(-1) * len(tokens)
    common = expected >= LEAST_EXPECTED
    pooled = lambda cells: np.append(cells[common], cells[~common].sum())
    observed, wanted = pooled(seen), pooled(expected)
    distance = float(np.abs(seen - expected).sum() / (2 * len(tokens)))
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
    ordered, count = np.sort(p_values), len(p_values)
    above = np.arange(1, count + 1) / count - ordered
    below = ordered - np.arange(count) / count
    distance = float(max(above.max(), below.max()))
    scaled = (count**0.5 + 0.12 + 0.11 / count**0.5) * distance
    terms = np.arange(1, 101)
    tail = 2 * np.sum((-1.0) ** (terms - 1) * np.exp(-2 * (terms * scaled) ** 2))
    return float(np.clip(tail, 0, 1)) if scaled > 0.2 else 1.0
