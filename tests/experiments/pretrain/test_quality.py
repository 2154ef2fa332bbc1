"""The pair's quality against the replay of the same constant setting."""

import numpy as np
import pytest

from experiments.pretrain import quality, repetition
from ltd_jax.config import CycleConfig
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import simulate
from tests.replay import synthetic

CYCLE = CycleConfig(beam_width=3, max_levels=6, sizes=(0, 4, 24), context=64)


def test_committed_tokens_are_those_of_the_replay():
    trace = synthetic.trace(CYCLE, text_tokens=(40, 30, 25))
    simulator = simulate.build(trace, synthetic.table(CYCLE), CYCLE)
    constant = Constant(quality.LEVELS, quality.SIZE)
    totals = simulate.run(simulator, constant, charge_decisions=False)
    rows = quality.judge_tasks(trace, CYCLE)
    assert [row.task for row in rows] == ["code", "docs"]
    for index, row in enumerate(rows):
        mine = np.asarray(simulator.task) == index
        expected = totals.committed[mine].sum() / totals.cycles[mine].sum()
        assert row.committed == pytest.approx(float(expected))


def test_loops_are_counted_and_left_out():
    trace = synthetic.trace(CYCLE, text_tokens=(24,))
    trace.continuation[:, 0] = [*range(10), *[3, 4] * 7]
    (row,) = quality.judge_tasks(trace, CYCLE)
    repeated = repetition.repeated(trace.continuation[:, 0])
    assert row.repetition_share == pytest.approx(repeated.mean()) and 0.5 < repeated.mean() < 1
    assert row.committed_outside >= 1
