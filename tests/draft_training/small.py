"""Streams of two kinds that repeat, texts of random tokens, a small target, a short training."""

import dataclasses

import numpy as np

from ltd_jax.draft_training.pack import Mixture
from ltd_jax.draft_training.train import TrainConfig
from tests.cycle import tiny

TARGET = dataclasses.replace(tiny.CONFIG.target, vocab_size=32, layer_count=2)
TRAIN = TrainConfig(
    tokens=16 * 24,
    window=12,
    long_window=16,
    batch_tokens=24,
    warmup_steps=2,
    save_every=100,
)


def mixture() -> Mixture:
    """A period of ten tokens, forwards and backwards."""
    period = np.random.default_rng(0).integers(0, TARGET.vocab_size, 10)
    return Mixture((np.tile(period, 40), np.tile(period[::-1], 40)), (0.5, 0.5))


def texts() -> np.ndarray:
    """Three texts of random tokens, uint16 [3, 21]."""
    draw = np.random.default_rng(1).integers(0, TARGET.vocab_size, (3, 21))
    return draw.astype(np.uint16)
