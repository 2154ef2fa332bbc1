"""Packs token streams into training batches; every batch is a function of (seed, step).

In: token streams, one per kind of text (code, prose, ...), each its documents end to end, and texts
that the target wrote itself. Out: windows [B, T + 1] i32, the last token of each only predicted.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import AnyDraftConfig
from ltd_jax.files import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Token streams of several kinds, and how often a window comes from each."""

    streams: tuple[np.ndarray, ...]  # integers [tokens] of each kind
    weights: tuple[float, ...]  # chance of each kind, sum 1

    def __post_init__(self) -> None:
        if len(self.streams) != len(self.weights):
            raise ValueError(
                f"There are {len(self.streams)} streams but {len(self.weights)} weights; give one "
                "weight for each stream."
            )


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned type, from uint16 on, that holds every token of a vocabulary."""
    return np.promote_types(np.min_scalar_type(max(vocab_size - 1, 0)), np.uint16)


def known_tokens(tokens: np.ndarray, vocab_size: int, what: str) -> np.ndarray:
    """The same token ids, once all are of a vocabulary; a model would read others as its last.

    Args:
      what: names the tokens in the message.

    Raises:
      UserError: they are no integers, or some are negative or too large.
    """
    if not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"{what} is of {tokens.dtype}; token ids are integers.")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise UserError(
            f"{what} has token {wrong}, but the vocabulary has {vocab_size} tokens; it was made "
            "with another tokenizer."
        )
    return tokens


def sample_windows(mixture: Mixture, *, rows: int, window: int, seed: int, step: int) -> np.ndarray:
    """Windows [rows, window + 1] i32 that start anywhere in streams drawn by their weights.

    Raises:
      ValueError: a stream is shorter than a window.
    """
    shortest = min(len(stream) for stream in mixture.streams)
    if shortest <= window:
        raise ValueError(
            f"A stream has {shortest} tokens, too few for windows of {window} and the token after."
        )
    random = np.random.default_rng((seed, step))
    kinds = random.choice(len(mixture.streams), size=rows, p=np.asarray(mixture.weights))
    starts = [random.integers(0, len(mixture.streams[kind]) - window) for kind in kinds]
    windows = [
        mixture.streams[kind][start : start + window + 1]
        for kind, start in zip(kinds, starts, strict=True)
    ]
    return np.stack(windows).astype(np.int32)


def sample_rows(text_BT: np.ndarray, *, rows: int, seed: int, step: int) -> np.ndarray:
    """Indices [rows] of texts, drawn with replacement; other draws than `sample_windows`' own."""
    return np.random.default_rng((seed, step, 1)).choice(len(text_BT), rows)


def frequent_tokens(streams: Sequence[np.ndarray], config: AnyDraftConfig) -> jax.Array:
    """The draft's vocabulary: the most frequent target tokens, i32 [Y] in ascending order.

    Raises:
      UserError: a stream has tokens that the target does not know.
    """
    for number, stream in enumerate(streams):
        known_tokens(stream, config.vocab_size, f"Stream {number}")
    counts = sum(np.bincount(stream, minlength=config.vocab_size) for stream in streams)
    most_frequent = np.argsort(-counts, kind="stable")[: config.draft_vocab_size]
    return jnp.asarray(np.sort(most_frequent), jnp.int32)
