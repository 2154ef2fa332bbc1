"""Trains the embedded target: next-token prediction on the corpus."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltd_jax.config import TargetConfig
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.train import Loss, TrainConfig
from ltd_jax.models import target
from ltd_jax.models.target import TargetParams

Tokens = jax.Array | np.ndarray  # i32


def loss(params: TargetParams, config: TargetConfig, batch_BT: Tokens) -> jax.Array:
    """Mean next-token cross-entropy in nats of windows [B, T + 1]."""
    return cross_entropy(params, config, batch_BT).mean()


@functools.cache
def objective(config: TargetConfig) -> Loss:
    """`loss` as the trainer takes it, the same function for the same config."""
    return lambda params, frozen, batch_BT: loss(params, config, batch_BT)


def cross_entropy(params: TargetParams, config: TargetConfig, batch_BT: Tokens) -> jax.Array:
    """Next-token cross-entropy [B, T] in nats of every token but the first of rows [B, T + 1]."""
    T = batch_BT.shape[1] - 1
    mask, positions = jnp.tril(jnp.ones((T, T), bool)), jnp.arange(T)

    def logits(tokens_T: jax.Array) -> jax.Array:
        return target.forward(params, config, tokens_T, positions, mask, None)[0]

    logits_BTX = jax.vmap(logits)(jnp.asarray(batch_BT[:, :-1]))
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTX, batch_BT[:, 1:])


def held_out_loss(
    params: TargetParams, config: TargetConfig, stream: np.ndarray, window: int, windows: int
) -> float:
    """Mean cross-entropy in nats over windows [window + 1] spread evenly over a token stream."""
    starts = np.linspace(0, len(stream) - window - 1, windows).astype(int)
    judge = jax.jit(objective(config))
    rows = [jnp.asarray(stream[start : start + window + 1], jnp.int32) for start in starts]
    return float(np.mean([judge(params, (), row_T[None]) for row_T in rows]))


def train_target(
    config: TargetConfig, train: TrainConfig, streams: list[np.ndarray], folder: Path
) -> TargetParams:
    """Trains or resumes; checkpoints and the log go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return trainer.train(
        lambda: target.init(jax.random.key(train.seed), config),
        objective(config),
        lambda step: trainer.sample_batch(streams, train, step),
        train,
        folder,
        {"target": str(config), "train": str(train)},
    )
