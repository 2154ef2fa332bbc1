"""What the report says of runs: outside of repetitions, choices by place, the policies' share."""

import numpy as np
import pytest

from experiments import comparison
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Run
from ltd_jax.replay import latency, simulate
from tests.cycle import tiny
from tests.replay import synthetic

CYCLE = tiny.CONFIG.cycle
TABLE = synthetic.table(CYCLE)


@pytest.fixture(scope="module")
def simulator():
    return simulate.build(synthetic.trace(CYCLE, text_tokens=(16,)), TABLE, CYCLE)


def test_without_repetition_leaves_out_what_starts_in_a_loop(simulator):
    size = CYCLE.sizes[-1]
    loop = (1, 2, 3, 4, 5, 6) + (9, 8) * 5 + (7,)
    run = Run("eagle3", 0, 0, loop, 0.1, 1.0, (2, 1, 2, 2), (size,) * 4, (3, 3, 6, 4))
    (row, mean) = comparison.without_repetition([run], ["code"], simulator, TABLE)
    assert row["repetition_share"] == pytest.approx(10 / 17)
    assert row["committed_per_cycle"] == 3  # cycles at 0, 3; those at 6 and 12 start in the loop
    lengths = np.asarray([7, 10])
    plain = 3 * latency.interpolate(TABLE, TABLE.plain_seconds, lengths)
    seconds = latency.interpolate(TABLE, TABLE.cycle_seconds, lengths)
    seconds = seconds[[0, 1], [1, 0], len(CYCLE.sizes) - 1]
    assert row["speedup"] == pytest.approx(plain.sum() / seconds.sum())
    assert mean == {**row, "task": "mean"}


def test_the_policies_time_counts_outside_of_loops_too(simulator):
    tokens, size = tuple(range(17)), CYCLE.sizes[-1]
    runs = [
        Run(name, 0, 0, tokens, 0.1, 1.0, (1,) * 4, (size,) * 4, (4,) * 4)
        for name in ("eagle3", benchmark.LEARNED)
    ]
    rows = comparison.without_repetition(runs, ["code"], simulator, TABLE)
    constant, learned = (row["speedup"] for row in rows if row["task"] == "mean")
    assert learned < constant


def test_tasks_that_only_loop_have_no_row(simulator):
    run = Run("eagle3", 0, 0, (1, 2) * 8 + (1,), 0.1, 1.0, (1,) * 4, (1,) * 4, (4,) * 4)
    assert comparison.without_repetition([run], ["code"], simulator, TABLE) == []


def test_texts_that_end_at_once_have_no_place_in_the_replay():
    trace = synthetic.trace(CYCLE, text_tokens=(5, 5))
    simulator = simulate.build(trace, TABLE, CYCLE)
    longer = [
        Run("eagle3", prompt, 0, (1, 2, 3, 4, 5), 0.1, 1.0, (2, 2), (1, 1), (2, 2))
        for prompt in (1, 3)
    ]
    ended = [
        Run("eagle3", prompt, task, (7,), 0.1, 0.0, (), (), ()) for prompt, task in ((0, 0), (2, 1))
    ]
    renumbered = [Run(**(vars(run) | {"prompt": run.prompt // 2})) for run in longer]
    easy, hard = comparison.choices([*ended, *longer], simulator)
    np.testing.assert_array_equal((easy, hard), comparison.choices(renumbered, simulator))
    assert (easy + hard).sum() == 4
    tasks = ["some", "none"]
    outside = comparison.without_repetition([*ended, *longer], tasks, simulator, TABLE)
    assert outside == comparison.without_repetition(renumbered, tasks, simulator, TABLE)


def test_the_policies_share_is_of_the_tables_own_time():
    """However long decoding took: the seconds of a run are of another minute than the table's."""
    levels, size = np.asarray((2, 1)), CYCLE.sizes[1]
    runs = [
        Run("ltd", 0, 0, (1, 2, 3, 4, 5), 0.1, seconds, tuple(levels), (size, size), (2, 2))
        for seconds in (1.0, 2.0)
    ]
    shares = [comparison.policy_share([run], TABLE) for run in runs]
    decisions = 3 * TABLE.depth_seconds + 2 * TABLE.size_seconds
    cycles = TABLE.cycle_seconds.mean(axis=0)[levels - 1, 1].sum()
    assert shares == [pytest.approx(decisions / (cycles + decisions))] * 2 and shares[0] > 0
