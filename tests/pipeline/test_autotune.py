"""What autotune chooses from numbers: by replay, unless live decoding says that it is slower."""

import dataclasses

import numpy as np
import pytest

from experiments.studies import autotune
from ltd_jax.replay import latency
from tests.replay import synthetic
from tests.replay.test_latency import CONFIG
from tests.test_advice import found


def test_the_fastest_by_replay_is_chosen():
    methods = [
        found("autoregressive", 100.0),
        found("eagle3", 500.0, 5, 16),  # no candidate: the best constant is never slower
        found("best_constant", 120.0, 1, 3),
        found("ltd", 119.0),
        found("optimum", 900.0),
    ]
    assert autotune.choose(methods) == "best_constant"
    assert autotune.choose([each | {"tokens_per_second": 100.0} for each in methods[:2]]) == (
        "autoregressive"
    )


@pytest.mark.parametrize(("high", "chosen"), [(0.98, "autoregressive"), (1.02, "ltd")])
def test_unless_it_is_surely_slower_live(high, chosen):
    live = (0.95, 0.9, high)
    methods = [found("autoregressive", 100.0), found("ltd", 130.0, live=live)]
    assert autotune.choose(methods) == chosen


def test_a_table_of_one_of_its_contexts():
    table = synthetic.table(CONFIG)
    for row, context in enumerate(table.contexts):
        only = autotune.at(table, row)
        assert only.contexts.tolist() == [context]
        there = latency.interpolate(table, table.cycle_seconds, np.asarray(context))
        np.testing.assert_array_equal(only.cycle_seconds[0], there)
        assert dataclasses.replace(only, provenance={}).plain_seconds == table.plain_seconds[row]
