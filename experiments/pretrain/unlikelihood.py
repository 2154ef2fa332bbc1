"""Teaches a target to leave its loops (unlikelihood training, Welleck et al. 2020, Sec. 5).

Rounds of: write greedy texts, find where they start to repeat, train a little. Half of every batch
is corpus with the usual loss, so that the target forgets nothing; on the other half, its own text,
the tokens with which it enters a loop cost -log(1 - p) each.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pretrain import repetition, train_target
from experiments.pretrain.train_target import NextTokenLoss
from ltd_jax import checkpoint
from ltd_jax.config import TargetConfig
from ltd_jax.draft_training import pack
from ltd_jax.draft_training import texts as own_texts
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.pack import Mixture
from ltd_jax.draft_training.train import Progress, TrainConfig
from ltd_jax.models.target import TargetParams

LONGEST_PERIOD = 64  # tokens; longer than what is reported, or loops would only grow longer
ENTRY = 3  # periods after the first one whose tokens count: where a loop could still be left
SURE = 1 - 1e-6  # largest probability whose complement f32 still resolves


class Batch(NamedTuple):
    """One step's rows."""

    corpus_BT: np.ndarray  # i32
    own_BT: np.ndarray  # i32, of the same length
    looped_BT: np.ndarray  # bool, which own tokens shall become less likely


def find_looped(text_T: np.ndarray, written: int) -> np.ndarray:
    """Marks the tokens from index `written` on that lead into a loop: bool [T].

    In every repetition, those of ENTRY periods after the first one. A loop repeats with every
    multiple of its period as well, so the tokens of a short one count for longer.
    """
    looped_T = np.zeros(len(text_T), bool)
    for loop in repetition.find_repetitions(text_T, LONGEST_PERIOD):
        first = max(loop.start + loop.period, written)
        looped_T[first : min(first + ENTRY * loop.period, loop.stop)] = True
    return looped_T


@dataclasses.dataclass(frozen=True)
class UnlikelihoodLoss:
    """Mean cross-entropy of the corpus rows + mean unlikelihood of the looped tokens, in nats."""

    config: TargetConfig

    def __call__(self, params: TargetParams, frozen: Any, batch: Batch) -> jax.Array:
        own_BT, looped_BT = batch.own_BT, batch.looped_BT[:, 1:]
        log_p_BT = -train_target.cross_entropy(params, self.config, own_BT)
        unlikely_BT = -jnp.log1p(-jnp.minimum(jnp.exp(log_p_BT), SURE))
        unlikely = jnp.sum(unlikely_BT * looped_BT) / jnp.maximum(jnp.sum(looped_BT), 1)
        return NextTokenLoss(self.config)(params, (), batch.corpus_BT) + unlikely


def train_round(
    params: TargetParams,
    config: TargetConfig,
    train: TrainConfig,
    mixture: Mixture,
    texts: int,
    folder: Path,
    *,
    progress: Progress = lambda step, steps, loss: None,
) -> tuple[TargetParams, float]:
    """One round or what is left of it; its texts, checkpoints and log go to `folder`.

    Returns:
      The new weights, and the share of the texts' written tokens that lay in a repetition.
    """
    prompt_BP = own_texts.sample_prompts(mixture.streams, texts, train.seed)
    new_tokens = train.window + 1 - own_texts.PROMPT_TOKENS
    text_BT = own_texts.load_or_write(folder / "own.npy", params, config, prompt_BP, new_tokens)
    looped_BT = np.stack([find_looped(text, own_texts.PROMPT_TOKENS) for text in text_BT])
    half = dataclasses.replace(train, batch_tokens=train.batch_tokens // 2, long_share=0.0)

    def batch(step: int) -> Batch:
        corpus_BT = trainer.sample_batch(mixture, half, step)
        row_B = pack.sample_rows(text_BT, rows=len(corpus_BT), seed=train.seed, step=step)
        return Batch(corpus_BT, text_BT[row_B].astype(np.int32), looped_BT[row_B])

    trained = trainer.train(
        params,
        UnlikelihoodLoss(config),
        batch,
        train,
        folder,
        {
            "target": str(config),
            "train": str(train),
            "texts": texts,
            "start": checkpoint.digest(params),
        },
        progress=progress,
    )
    written = [text[own_texts.PROMPT_TOKENS :] for text in text_BT]
    return trained, repetition.share(written)
