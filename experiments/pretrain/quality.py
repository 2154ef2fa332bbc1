"""Quality of a pair before any policy: committed tokens at one constant, and how much it loops."""

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


def judge_tasks(trace: Trace, config: CycleConfig) -> list[Quality]:
    """Every task at LEVELS levels and SIZE nodes, by replay."""
    accepted_P = traces.accepted(trace, config)[:, LEVELS - 1, config.sizes.index(SIZE)]
    return [_judge_task(trace, accepted_P, task) for task in np.unique(trace.task)]


def _judge_task(trace: Trace, accepted_P: np.ndarray, task: int) -> Quality:
    committed: list[int] = []
    outside: list[int] = []
    masks = []
    for start in trace.text_start[trace.task[trace.text_start] == task]:
        count = int(trace.tokens_left[start])
        repeated = repetition.repeated(trace.continuation[start : start + count, 0])
        masks.append(repeated)
        place = 0
        while place < count:
            gained = min(int(accepted_P[start + place]) + 1, count - place)
            committed.append(gained)
            outside += [] if repeated[place] else [gained]
            place += gained
    return Quality(
        task=trace.provenance["tasks"][task],
        committed=float(np.mean(committed)),
        committed_outside=float(np.mean(outside)) if outside else float("nan"),
        repetition_share=float(np.concatenate(masks).mean()),
    )
