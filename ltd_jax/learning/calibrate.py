"""Calibration of the draft: a node at a level is accepted with probability score ** power.

One power per level; the order of the nodes within a level stays. Fitted by binary cross-entropy
over all nodes of a trace.
"""

import numpy as np

from ltd_jax.learning.examples import nodes
from ltd_jax.replay.trace import Trace

POWERS = np.geomspace(0.25, 4.0, 81)
MOST_POSITIONS = 2000
BINS = 10
LEAST = 1e-6


def fit(trace: Trace, seed: int = 0) -> np.ndarray:
    """The power of every level, f32 [D]; 1 where a level has no node."""
    parts = _by_level(trace, seed)
    return np.asarray([_best_power(*part) for part in parts], np.float32)


def expected_error(trace: Trace, power_D: np.ndarray, seed: int = 0) -> float:
    """Expected calibration error: mean over nodes of |said - happened| of their tenth."""
    parts = _by_level(trace, seed)
    said = np.concatenate([np.exp(p * score) for p, (score, _) in zip(power_D, parts, strict=True)])
    happened = np.concatenate([label for _, label in parts])
    tenth = np.minimum((said * BINS).astype(int), BINS - 1)
    count = np.bincount(tenth, minlength=BINS)
    gap = np.bincount(tenth, said, BINS) - np.bincount(tenth, happened, BINS)
    return float(np.abs(gap).sum() / count.sum())


def _by_level(trace: Trace, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per level: scores of its nodes and whether they are accepted."""
    count = len(trace.remaining)
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(count)[:MOST_POSITIONS])
    known, label = (block[rows] for block in nodes(trace))
    score = trace.score[rows]
    return [
        (score[:, level][known[:, level]].astype(np.float64), label[:, level][known[:, level]])
        for level in range(score.shape[1])
    ]


def _best_power(score: np.ndarray, label: np.ndarray) -> float:
    if not len(score):
        return 1.0
    losses = []
    for power in POWERS:
        chance = np.clip(np.exp(power * score), LEAST, 1 - LEAST)
        losses.append(-np.where(label, np.log(chance), np.log1p(-chance)).mean())
    return float(POWERS[int(np.argmin(losses))])
