"""The pair's quality against the replay of the same constant setting."""

import numpy as np
import pytest

from ltd_jax import repetition
from ltd_jax.config import CycleConfig
from ltd_jax.pipeline import pair_quality
from ltd_jax.policies import controller
from ltd_jax.replay import cycles
from tests.replay import synthetic

CYCLE = CycleConfig(beam_width=3, max_levels=6, sizes=(0, 4, 24), context=64)


def test_committed_tokens_are_those_of_the_replay():
    trace = synthetic.trace(CYCLE, text_tokens=(40, 30, 25))
    replay = cycles.build(trace, synthetic.table(CYCLE), CYCLE)
    setting = controller.constant_params(pair_quality.LEVELS, pair_quality.SIZE, CYCLE)
    totals = cycles.run(replay, CYCLE, controller.constant(), setting, False)
    found = pair_quality.by_task(trace, CYCLE)
    assert [row.task for row in found] == ["code", "docs"]
    for index, row in enumerate(found):
        mine = np.asarray(replay.task) == index
        expected = totals.committed[mine].sum() / totals.cycles[mine].sum()
        assert row.committed == pytest.approx(float(expected))


def test_loops_are_counted_and_left_out():
    trace = synthetic.trace(CYCLE, text_tokens=(24,))
    trace.continuation[:, 0] = [*range(10), *[3, 4] * 7]
    (row,) = pair_quality.by_task(trace, CYCLE)
    repeated = repetition.repeated(trace.continuation[:, 0])
    assert row.repetition_share == pytest.approx(repeated.mean()) and 0.5 < repeated.mean() < 1
    assert row.committed_outside >= 1
