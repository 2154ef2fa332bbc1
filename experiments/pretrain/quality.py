"""Quality of a pair before any policy: committed tokens at one constant, and how much it loops."""

from collections.abc import Sequence
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
    texts = list(traces.gains(trace, config, LEVELS, SIZE))
    return [
        _judge_task(trace, [text for text in texts if trace.task[text[0]] == task], task)
        for task in np.unique(trace.task)
    ]


def _judge_task(trace: Trace, texts: Sequence[tuple[int, np.ndarray]], task: int) -> Quality:
    outside, masks = [], []
    for start, gained in texts:
        repeated = repetition.repeated(trace.continuation[start : start + gained.sum(), 0])
        masks.append(repeated)
        outside.append(gained[~repeated[np.cumsum(gained) - gained]])
    apart = np.concatenate(outside)
    return Quality(
        task=trace.provenance["tasks"][task],
        committed=float(np.concatenate([gained for _, gained in texts]).mean()),
        committed_outside=float(apart.mean()) if apart.size else float("nan"),
        repetition_share=float(np.concatenate(masks).mean()),
    )
