"""Packs texts into training batches; every batch is a function of (seed, step).

In: token streams, one per kind of text (code, prose, ...), each its documents end to end; or the
conversations of talk.py. Out: windows. Those of streams hold one text, cut anywhere; those of
conversations hold several whole ones, which do not see each other.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import AnyDraftConfig
from ltd_jax.draft_training.talk import ANSWER, Spoken
from ltd_jax.files import UserError

LEAST_ANSWER = 6  # tokens of answers that a conversation must have


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


@struct.dataclass
class Windows:
    """Tokens of several texts side by side, arrays [W, T]; T is the window's length."""

    token: Any  # i32
    text: Any  # i32, number of the token's text in its window, from 1; 0 = no token
    position: Any  # i32, in its text
    kind: Any  # i32, who chose the token (talk.py)

    @property
    def count(self) -> int:
        """W."""
        return self.token.shape[0]


def one_text_each(token_WT: np.ndarray) -> Windows:
    """Windows of one text each, of which the target counts as the author."""
    whole = np.ones_like(token_WT, np.int32)
    position_WT = np.broadcast_to(np.arange(token_WT.shape[1], dtype=np.int32), token_WT.shape)
    return Windows(np.asarray(token_WT, np.int32), whole, position_WT, ANSWER * whole)


class Conversation(NamedTuple):
    """A conversation that a target had with itself, or a text."""

    token: np.ndarray  # i32 [n]
    kind: np.ndarray  # u8 [n]


def conversations(spoken: Spoken, least_answer: int = LEAST_ANSWER) -> Iterator[Conversation]:
    """The conversations of a round, also those that its end cut off.

    Args:
      least_answer: tokens of answers that one must have; less teaches nothing.
    """
    rows = zip(spoken.token.T, spoken.kind.T, spoken.first.T, strict=True)
    for token_N, kind_N, first_N in rows:
        starts = np.flatnonzero(first_N)
        for start, end in zip(starts, [*starts[1:], len(token_N)], strict=True):
            if np.count_nonzero(kind_N[start:end] == ANSWER) >= least_answer:
                yield Conversation(token_N[start:end], kind_N[start:end])


def without_doubles(talks: Sequence[Conversation]) -> list[Conversation]:
    """The conversations, each once."""
    return list({one.token.tobytes(): one for one in talks}.values())


def fill(talks: Sequence[Conversation], window: int) -> Windows:
    """Whole conversations in windows, longest first, each where it leaves the least room.

    Longer ones than a window are cut into several texts.
    """
    pieces = [
        Conversation(one.token[start : start + window], one.kind[start : start + window])
        for one in talks
        for start in range(0, len(one.token), window)
    ]
    pieces.sort(key=lambda one: -len(one.token))
    rooms: list[tuple[int, int]] = []  # room left and window, ascending
    places = []
    count = 0
    for piece in pieces:
        size = len(piece.token)
        at = bisect.bisect_left(rooms, (size, 0))
        if at < len(rooms):
            room, row = rooms.pop(at)
        else:
            room, row, count = window, count, count + 1
        places.append((row, window - room))
        bisect.insort(rooms, (room - size, row))
    blank = lambda: np.zeros((count, window), np.int32)
    filled = Windows(blank(), blank(), blank(), blank())
    texts_in = np.zeros(count, int)
    for (row, start), piece in zip(places, pieces, strict=True):
        here = (row, slice(start, start + len(piece.token)))
        texts_in[row] += 1
        filled.token[here], filled.kind[here] = piece
        filled.text[here] = texts_in[row]
        filled.position[here] = np.arange(len(piece.token))
    return filled


def sample_packed(windows: Windows, rows: int, seed: int, step: int) -> Windows:
    """The windows of a step: every epoch takes each once, in an order of its own."""
    taken = np.arange(step * rows, (step + 1) * rows)
    order = {
        epoch: np.random.default_rng((seed, epoch, 2)).permutation(windows.count)
        for epoch in np.unique(taken // windows.count)
    }
    chosen = [order[one // windows.count][one % windows.count] for one in taken]
    return jax.tree.map(lambda part_WT: part_WT[chosen], windows)
