"""The shipped files are what the paper's numbers and the data sheets give."""

import numpy as np
import pytest

from experiments.report import paper
from experiments.studies import model_latency
from ltd_jax import presets
from ltd_jax.replay import latency
from ltd_jax.replay.latency import LatencyTable


@pytest.fixture(scope="module")
def made():
    return model_latency.shipped()


def test_the_files_are_up_to_date(made):
    assert set(made) <= set(latency.shipped_names())
    for name, table in made.items():
        there = LatencyTable.find(name)
        np.testing.assert_allclose(there.cycle_seconds, table.cycle_seconds, rtol=1e-12)
        np.testing.assert_allclose(there.plain_seconds, table.plain_seconds, rtol=1e-12)
        assert there.provenance == table.provenance


def test_what_was_not_measured_says_so(made):
    for name, table in made.items():
        kind = table.provenance["kind"]
        assert kind in ("modelled", "read off a picture")
        assert ("modelled" in name) == (kind == "modelled")
        assert kind in table.provenance["device"]


def test_the_papers_a100_gives_the_papers_speedup(made):
    table = made["a100-vicuna-13b-paper"]
    levels, size = model_latency.PAPER_SETTING
    verify = np.interp(size, table.sizes, table.verify_seconds[0])
    cycle = table.draft_seconds[0, levels - 1] + verify
    eagle3 = paper.TABLE4.rows["eagle3"].mean
    assert eagle3.committed / cycle * table.plain_seconds[0] == pytest.approx(eagle3.speedup)
    policies = levels * table.depth_seconds + table.size_seconds
    assert policies / cycle == pytest.approx(0.0122, abs=1e-4)  # Table 9, Vicuna-13B


def test_every_table_fits_both_cycles(made):
    for table in made.values():
        for cycle in (presets.EMBEDDED_CYCLE, presets.PAPER_CYCLE):
            fitted = latency.fit(table, cycle)
            assert np.all(np.diff(fitted.draft_seconds, axis=1) > 0)
            assert fitted.sizes == cycle.sizes and fitted.max_levels == cycle.max_levels
            assert latency.fingerprint(latency.fit(table, cycle)) == latency.fingerprint(fitted)
