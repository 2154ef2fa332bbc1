"""Repetition: small models loop, and loops are easy to draft, so they are counted apart."""

import numpy as np

LONGEST_PERIOD = 32  # tokens
SHORTEST_STRETCH = 8  # tokens; shorter runs (an indentation, a row of digits) are no loop


def repeated(tokens_T: np.ndarray) -> np.ndarray:
    """Which tokens lie in an exact repetition of period <= LONGEST_PERIOD; bool [T].

    A stretch counts when it holds at least two whole periods and SHORTEST_STRETCH tokens.
    """
    tokens_T = np.asarray(tokens_T)
    inside = np.zeros(len(tokens_T), bool)
    for period in range(1, min(LONGEST_PERIOD, len(tokens_T) // 2) + 1):
        same = tokens_T[period:] == tokens_T[:-period]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            length = stop - start + period  # from the first period's beginning
            if stop - start >= period and length >= SHORTEST_STRETCH:
                inside[start : stop + period] = True
    return inside


def repetition_share(texts: list[np.ndarray]) -> float:
    """Share of all tokens of some texts that lie in a repetition."""
    return float(np.concatenate([repeated(text) for text in texts]).mean())
