"""Repetition: small models loop, and loops are easy to draft, so they are counted apart."""

from collections.abc import Iterator

import numpy as np

LONGEST_PERIOD = 32  # tokens
SHORTEST_STRETCH = 8  # tokens; shorter runs (an indentation, a row of digits) are no loop


def stretches(
    tokens_T: np.ndarray, longest_period: int = LONGEST_PERIOD
) -> Iterator[tuple[int, int, int]]:
    """Every exact repetition as (start, period, stop), tokens [start, stop) in all.

    A stretch holds at least two whole periods and SHORTEST_STRETCH tokens.
    """
    tokens_T = np.asarray(tokens_T)
    for period in range(1, min(longest_period, len(tokens_T) // 2) + 1):
        same = tokens_T[period:] == tokens_T[:-period]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            length = stop - start + period  # from the first period's beginning
            if stop - start >= period and length >= SHORTEST_STRETCH:
                yield int(start), period, int(stop) + period


def repeated(tokens_T: np.ndarray) -> np.ndarray:
    """Which tokens lie in an exact repetition of period <= LONGEST_PERIOD; bool [T]."""
    inside = np.zeros(len(tokens_T), bool)
    for start, _, stop in stretches(tokens_T):
        inside[start:stop] = True
    return inside


def share(texts: list[np.ndarray]) -> float:
    """Share of all tokens of some texts that lie in a repetition."""
    return float(np.concatenate([repeated(text) for text in texts]).mean())
