"""Teaches a target to leave its loops (unlikelihood training, Welleck et al. 2020, Sec. 5).

Rounds of: write greedy texts, find where they start to repeat, train a little. Half of every batch
is corpus with the usual loss, so that the target forgets nothing; on the other half, its own text,
the tokens with which it enters a loop cost -log(1 - p) each.
"""

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pretrain import repetition, train_target
from ltd_jax import checkpoint
from ltd_jax.config import TargetConfig
from ltd_jax.draft_training import texts as own_texts
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.train import Loss, TrainConfig
from ltd_jax.models.target import TargetParams

LONGEST_PERIOD = 64  # tokens; longer than what is reported, or loops would only grow longer
ENTRY = 3  # periods after the first one whose tokens count: where a loop could still be left
SURE = 1 - 1e-6  # largest probability whose complement f32 still resolves


class Batch(NamedTuple):
    """One step's rows."""

    corpus_BT: np.ndarray  # i32
    own_BT: np.ndarray  # i32, of the same length
    looped_BT: np.ndarray  # bool, which own tokens shall become less likely


def looped(text_T: np.ndarray, written: int) -> np.ndarray:
    """Which tokens from index `written` on lead into a loop: bool [T].

    In every repetition, those of ENTRY periods after the first one. A loop repeats with every
    multiple of its period as well, so the tokens of a short one count for longer.
    """
    entering = np.zeros(len(text_T), bool)
    for start, period, stop in repetition.stretches(text_T, LONGEST_PERIOD):
        first = max(start + period, written)
        entering[first : min(first + ENTRY * period, stop)] = True
    return entering


def loss(params: TargetParams, config: TargetConfig, batch: Batch) -> jax.Array:
    """Mean cross-entropy of the corpus rows + mean unlikelihood of the looped tokens, in nats."""
    own_BT, looped_BT = batch.own_BT, batch.looped_BT[:, 1:]
    log_p_BT = -train_target.cross_entropy(params, config, own_BT)
    unlikely_BT = -jnp.log1p(-jnp.minimum(jnp.exp(log_p_BT), SURE))
    unlikely = jnp.sum(unlikely_BT * looped_BT) / jnp.maximum(jnp.sum(looped_BT), 1)
    return train_target.loss(params, config, batch.corpus_BT) + unlikely


@functools.cache
def objective(config: TargetConfig) -> Loss:
    """`loss` as the trainer takes it, the same function for the same config."""
    return lambda params, frozen, batch: loss(params, config, batch)


def train_round(
    params: TargetParams,
    config: TargetConfig,
    train: TrainConfig,
    streams: list[np.ndarray],
    texts: int,
    folder: Path,
) -> tuple[TargetParams, float]:
    """One round or what is left of it; its texts, checkpoints and log go to `folder`.

    Returns:
      The new weights, and the share of the texts' written tokens that lay in a repetition.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prompts_BP = own_texts.prompts(streams, texts, train.seed)
    new = train.sequence + 1 - own_texts.PROMPT
    texts_BT = own_texts.saved(folder / "own.npy", params, config, prompts_BP, new)
    looped_BT = np.stack([looped(text, own_texts.PROMPT) for text in texts_BT])
    half = dataclasses.replace(train, batch_tokens=train.batch_tokens // 2, long_share=0.0)

    def batch(step: int) -> Batch:
        corpus_BT = trainer.sample_batch(streams, half, step)
        rows = np.random.default_rng((train.seed, step, 1)).choice(len(texts_BT), len(corpus_BT))
        return Batch(corpus_BT, texts_BT[rows].astype(np.int32), looped_BT[rows])

    trained = trainer.train(
        lambda: params,
        objective(config),
        batch,
        train,
        folder,
        {
            "target": str(config),
            "train": str(train),
            "texts": texts,
            "start": checkpoint.digest(params),
        },
    )
    return trained, repetition.share([text[own_texts.PROMPT :] for text in texts_BT])
