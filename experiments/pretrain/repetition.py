"""Repetition in texts: small models loop, and loops are easy to draft, so they count apart."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

LONGEST_PERIOD = 32  # tokens
SHORTEST_REPETITION = 8  # tokens; shorter runs (an indentation, a row of digits) are no loop


class Repetition(NamedTuple):
    """Tokens [start, stop) of a text that repeat exactly, every `period` tokens."""

    start: int
    period: int
    stop: int


def find_repetitions(
    token_T: np.ndarray, longest_period: int = LONGEST_PERIOD
) -> Iterator[Repetition]:
    """Finds every exact repetition of two whole periods and SHORTEST_REPETITION tokens or more."""
    token_T = np.asarray(token_T)
    for period in range(1, min(longest_period, len(token_T) // 2) + 1):
        same = token_T[period:] == token_T[:-period]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            length = stop - start + period  # from the first period's beginning
            if stop - start >= period and length >= SHORTEST_REPETITION:
                yield Repetition(int(start), period, int(stop) + period)


def repeated(token_T: np.ndarray) -> np.ndarray:
    """Marks the tokens that lie in an exact repetition of period <= LONGEST_PERIOD; bool [T]."""
    repeated_T = np.zeros(len(token_T), bool)
    for repetition in find_repetitions(token_T):
        repeated_T[repetition.start : repetition.stop] = True
    return repeated_T


def share(texts: Sequence[np.ndarray]) -> float:
    """The share of all tokens of some texts that lie in a repetition."""
    return float(np.concatenate([repeated(text) for text in texts]).mean())
