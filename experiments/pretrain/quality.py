"""What a pair gives before any policy: committed tokens at one setting, and how much it loops."""

from typing import NamedTuple

import numpy as np

from experiments.pretrain import repetition
from ltd_jax.config import CycleConfig
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace

LEVELS, SIZE = 6, 24


class Quality(NamedTuple):
    """One task."""

    task: str
    committed: float  # tokens per cycle
    committed_outside: float  # the same in cycles that start outside of repetitions; nan = none
    repetition_share: float  # of the generated tokens


def by_task(trace: Trace, config: CycleConfig) -> list[Quality]:
    """Every task at LEVELS levels and size SIZE, by replay."""
    accepted_P = traces.accepted(trace, config)[:, LEVELS - 1, config.sizes.index(SIZE)]
    return [_quality(trace, accepted_P, index) for index in np.unique(trace.task)]


def _quality(trace: Trace, accepted_P: np.ndarray, task: int) -> Quality:
    committed: list[int] = []
    outside: list[int] = []
    masks = []
    for first in trace.first[trace.task[trace.first] == task]:
        count = int(trace.remaining[first])
        repeated = repetition.repeated(trace.continuation[first : first + count, 0])
        masks.append(repeated)
        place = 0
        while place < count:
            gained = min(int(accepted_P[first + place]) + 1, count - place)
            committed.append(gained)
            outside += [] if repeated[place] else [gained]
            place += gained
    return Quality(
        task=trace.provenance["tasks"][task],
        committed=float(np.mean(committed)),
        committed_outside=float(np.mean(outside)) if outside else float("nan"),
        repetition_share=float(np.concatenate(masks).mean()),
    )
