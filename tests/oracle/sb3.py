"""Plain-Python twin of the published code's observations, from its own description.

In: levels as lists of (row, child) scores, in the order in which the published code appends them.
"""


def depth_row(newest: list[list[float]], length: float, rounds: int) -> list[float]:
    """128 numbers: the newest round's children row by row, then the scalars, 14 times each."""
    row = [score for children in newest for score in children]
    row += [0.0] * (100 - len(row))
    return row + [length / 1000] * 14 + [rounds / 10] * 14


def size_row(levels: list[list[list[float]]], length: float) -> list[float]:
    """1268 numbers: the root's children, then every round's, zeros up to 1210, then scalars."""
    row: list[float] = list(levels[0][0])
    for level in levels[1:]:
        for children in level:
            row.extend(children)
    rounds = len(levels) - 1
    assert len(row) == 10 + 100 * rounds
    row += [0.0] * (1210 - len(row))
    return row + [length / 1000] * 29 + [rounds / 10] * 29
