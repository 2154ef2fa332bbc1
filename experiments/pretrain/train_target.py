"""Trains the embedded target: next-token prediction on the corpus."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltd_jax.config import TargetConfig
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.pack import Mixture
from ltd_jax.draft_training.train import Progress, TrainConfig
from ltd_jax.models import target
from ltd_jax.models.target import TargetParams

Tokens = jax.Array | np.ndarray  # i32


def cross_entropy(params: TargetParams, config: TargetConfig, batch_BT: Tokens) -> jax.Array:
    """Next-token cross-entropy [B, T] in nats of every token but the first of rows [B, T + 1]."""
    T = batch_BT.shape[1] - 1
    causal_TT, position_T = jnp.tril(jnp.ones((T, T), bool)), jnp.arange(T)

    def logits(token_T: jax.Array) -> jax.Array:
        return target.forward(params, config, token_T, position_T, causal_TT, None)[0]

    logits_BTX = jax.vmap(logits)(jnp.asarray(batch_BT[:, :-1]))
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTX, batch_BT[:, 1:])


@dataclasses.dataclass(frozen=True)
class NextTokenLoss:
    """Mean cross-entropy in nats, as the training loop takes it; equal configs compile once."""

    config: TargetConfig

    def __call__(self, params: TargetParams, frozen: Any, batch_BT: Tokens) -> jax.Array:
        return cross_entropy(params, self.config, batch_BT).mean()


def held_out_loss(
    params: TargetParams, config: TargetConfig, stream: np.ndarray, window: int, windows: int
) -> float:
    """Mean cross-entropy in nats over windows [window + 1] spread evenly over a token stream."""
    starts = np.linspace(0, len(stream) - window - 1, windows).astype(int)
    loss = jax.jit(NextTokenLoss(config))
    rows = [jnp.asarray(stream[start : start + window + 1], jnp.int32) for start in starts]
    return float(np.mean([loss(params, (), row_T[None]) for row_T in rows]))


def train_target(
    config: TargetConfig,
    train: TrainConfig,
    mixture: Mixture,
    folder: Path,
    *,
    progress: Progress = lambda step, steps, loss: None,
) -> TargetParams:
    """Trains or resumes; checkpoints and the log go to `folder`."""
    return trainer.train(
        target.init(jax.random.key(train.seed), config),
        NextTokenLoss(config),
        lambda step: trainer.sample_batch(mixture, train, step),
        train,
        folder,
        {"target": str(config), "train": str(train)},
        progress=progress,
    )
