"""Trains an EAGLE-3 draft on a target's features, by training-time test (EAGLE-3, Sec. 3).

The draft is unrolled as in drafting: in step 0 row i reads token t_{i+1} and the target's feature
of position i; in step j it reads token t_{i+1+j} and its own output of step j - 1, at rotary
position i + j. Every step is compared with the target's distribution after the token that it read.

    keys that row i of step j sees   step 0: rows 0..i      steps 1..j: only its own row i
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax import checkpoint
from ltd_jax.config import DraftConfig, TargetConfig
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.train import Loss, TrainConfig
from ltd_jax.models import eagle3, layers, target
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.target import TargetParams

UNROLL = 7  # steps (EAGLE-3's published training)
STEP_DISCOUNT = 0.8  # weight of step j is STEP_DISCOUNT ** j


def frequent_tokens(streams: list[np.ndarray], config: DraftConfig) -> jax.Array:
    """The draft's vocabulary: the most frequent target tokens, i32 [Y] in ascending order."""
    counts = sum(np.bincount(stream, minlength=config.vocab_size) for stream in streams)
    best = np.argsort(-counts, kind="stable")[: config.draft_vocab_size]
    return jnp.asarray(np.sort(best), jnp.int32)


def loss(
    params: Eagle3Params,
    config: DraftConfig,
    target_params: TargetParams,
    target_config: TargetConfig,
    batch_BT: jax.Array,
) -> jax.Array:
    """Mean soft cross-entropy over windows [B, T + 1] and unrolled steps, in nats."""

    def window(tokens_T: jax.Array) -> jax.Array:
        T = tokens_T.shape[0]
        causal = jnp.tril(jnp.ones((T, T), bool))
        logits_TX, feature_TE, _ = target.forward(
            target_params, target_config, tokens_T, jnp.arange(T), causal, None
        )
        return unrolled_loss(params, config, tokens_T, feature_TE, logits_TX)

    return jnp.mean(jax.vmap(window)(batch_BT))


def unrolled_loss(
    params: Eagle3Params,
    config: DraftConfig,
    tokens_T: jax.Array,
    feature_TE: jax.Array,
    logits_TX: jax.Array,
) -> jax.Array:
    """The loss of one text of T tokens: mean over steps, weighted by STEP_DISCOUNT ** step."""
    rows = tokens_T.shape[0] - 1 - UNROLL
    hidden_TE = eagle3.fuse(params, config, feature_TE[:rows])
    keys: list[jax.Array] = []
    values: list[jax.Array] = []
    total, weights = jnp.float32(0), 0.0
    for step in range(UNROLL):
        tokens = jax.lax.dynamic_slice_in_dim(tokens_T, 1 + step, rows)
        positions_T = jnp.arange(rows) + step
        query_THC, key_TKC, value_TKC = eagle3.project(
            params, config, tokens, hidden_TE, positions_T
        )
        keys.append(key_TKC)
        values.append(value_TKC)
        mixed_TE = chain_attention(query_THC, keys, values)
        hidden_TE = eagle3.finish(params, config, hidden_TE, mixed_TE)
        wanted_TX = jax.lax.dynamic_slice_in_dim(logits_TX, 1 + step, rows)
        total += STEP_DISCOUNT**step * _step_loss(params, config, hidden_TE, wanted_TX)
        weights += STEP_DISCOUNT**step
    return total / weights


def chain_attention(
    query_THC: jax.Array, keys: list[jax.Array], values: list[jax.Array]
) -> jax.Array:
    """Attention [T, H * C] to step 0 causally and to one's own row of every later step.

    Args:
      keys, values: [T, K, C] of steps 0..j.
    """
    T, H, C = query_THC.shape
    K = keys[0].shape[1]
    query = (query_THC * C**-0.5).reshape(T, K, H // K, C)
    score = jnp.einsum("tkgc,skc->kgts", query, keys[0], preferred_element_type=jnp.float32)
    score = score + jnp.where(jnp.tril(jnp.ones((T, T), bool)), 0.0, layers.MASKED)[None, None]
    own = [
        jnp.einsum("tkgc,tkc->kgt", query, key, preferred_element_type=jnp.float32)[..., None]
        for key in keys[1:]
    ]
    weight = jax.nn.softmax(jnp.concatenate([score, *own], axis=-1), axis=-1)
    mixed = jnp.einsum("kgts,skc->tkgc", weight[..., :T], values[0])
    for step, value in enumerate(values[1:]):
        mixed += weight[..., T + step].transpose(2, 0, 1)[..., None] * value[:, :, None, :]
    return mixed.reshape(T, H * C)


def _step_loss(
    params: Eagle3Params, config: DraftConfig, hidden_TE: jax.Array, wanted_TX: jax.Array
) -> jax.Array:
    """Soft cross-entropy on the draft's vocabulary, where the target's choice lies in it."""
    wanted_TY = jnp.take(wanted_TX, params.target_token, axis=1)
    known_T = jnp.max(wanted_TY, axis=1) >= jnp.max(wanted_TX, axis=1)
    log_prob_TY = jax.nn.log_softmax(eagle3.logits(params, config, hidden_TE), axis=-1)
    cross_T = -jnp.sum(jax.nn.softmax(wanted_TY, axis=-1) * log_prob_TY, axis=-1)
    return jnp.sum(cross_T * known_T) / jnp.maximum(jnp.sum(known_T), 1)


def mixed_batch(
    streams: list[np.ndarray], texts_BT: np.ndarray, train: TrainConfig, step: int
) -> np.ndarray:
    """Rows [B, T + 1] i32 of a step: half corpus windows, half texts that the target wrote."""
    half = dataclasses.replace(train, batch_tokens=train.batch_tokens // 2)
    corpus_BT = trainer.sample_batch(streams, half, step)
    rows = np.random.default_rng((train.seed, step, 1)).choice(len(texts_BT), len(corpus_BT))
    return np.concatenate([corpus_BT, texts_BT[rows].astype(np.int32)])


def train_draft(
    start: Eagle3Params,
    config: DraftConfig,
    target_config: TargetConfig,
    target_params: TargetParams,
    train: TrainConfig,
    batch: Callable[[int], np.ndarray],
    folder: Path,
) -> Eagle3Params:
    """Trains or resumes; the target, its embedding and the vocabulary map stay as they are.

    Args:
      start: the weights to begin with.
      batch: rows [B, T + 1] i32 of a step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    params = trainer.train(
        lambda: start.replace(embedding=None, target_token=None),
        objective(config, target_config),
        batch,
        train,
        folder,
        {
            "draft": str(config),
            "train": str(train),
            "start": checkpoint.digest(start),
            "target": checkpoint.digest(target_params),
        },
        frozen=(target_params, start.target_token),
    )
    return params.replace(embedding=target_params.embedding, target_token=start.target_token)


@functools.cache
def objective(config: DraftConfig, target_config: TargetConfig) -> Loss:
    """`loss` as the trainer takes it, the same function for the same configs."""

    def of_batch(params: Eagle3Params, frozen: Any, batch_BT: jax.Array) -> jax.Array:
        target_params, target_token = frozen
        whole = params.replace(embedding=target_params.embedding, target_token=target_token)
        return loss(whole, config, target_params, target_config, batch_BT)

    return of_batch
