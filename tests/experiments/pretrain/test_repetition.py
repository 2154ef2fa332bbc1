"""Repetition is counted as its docstring says."""

import numpy as np
import pytest

from experiments.pretrain import repetition


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (list(range(30)), 0),
        ([1, 2, 3] * 4, 12),  # period 3, four times
        ([7] * 7, 0),  # too short
        ([7] * 8, 8),
        ([9, 8] + [1, 2, 3, 4] * 2 + [5, 6], 8),  # just two periods of 4
        (list(range(32)) * 2, 64),  # the longest period
        (list(range(33)) * 2, 0),
    ],
)
def test_counts(tokens, expected):
    assert repetition.repeated(np.asarray(tokens)).sum() == expected


def test_share_is_over_all_texts():
    texts = [np.asarray([7] * 10), np.arange(30)]
    assert repetition.share(texts) == pytest.approx(10 / 40)
