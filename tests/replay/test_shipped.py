"""Tables by name, and tables fitted to another grid, against values worked out by hand."""

import dataclasses

import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.replay import latency
from tests.replay import synthetic

# 2 levels and sizes 10, 20, 40; a plain step takes 4, verifying 5, 5 and 9
PUBLISHED = latency.additive(
    contexts=(100,),
    sizes=(10, 20, 40),
    draft_seconds=np.array([[1.0, 3.0]]),
    verify_seconds=np.array([[5.0, 5.0, 9.0]]),
    plain_seconds=np.array([4.0]),
    decision_seconds=(0.1, 0.2),
    provenance={"device": "paper"},
)
CYCLE = CycleConfig(beam_width=4, max_levels=4, sizes=(0, 5, 15, 30, 60), context=256)


def test_a_published_table_on_another_grid():
    found = latency.fit(PUBLISHED, CYCLE)
    # size 0 is a plain step; 5 halfway to size 10; 60 goes on with (9 - 5) / 20 from 20 to 40
    verify = np.array([4.0, 4.5, 5.0, 7.0, 13.0])
    draft = np.array([1.0, 3.0, 5.0, 7.0])  # (3 - 1) a level from level 1 on
    np.testing.assert_allclose(found.verify_seconds, verify[None])
    np.testing.assert_allclose(found.draft_seconds, draft[None])
    np.testing.assert_allclose(found.cycle_seconds[0], draft[:, None] + verify[None])
    assert found.sizes == CYCLE.sizes and found.plain_seconds == [4.0]
    assert (found.depth_seconds, found.size_seconds) == (0.1, 0.2)
    assert found.provenance == {
        "device": "paper",
        "fitted_from": latency.fingerprint(PUBLISHED),
    }


def test_levels_are_cut_and_known_sizes_kept():
    cut = dataclasses.replace(CYCLE, beam_width=7, max_levels=1, sizes=(10, 40))
    found = latency.fit(PUBLISHED, cut)
    np.testing.assert_array_equal(found.cycle_seconds, [[[6.0, 10.0]]])


def test_a_table_of_the_same_grid_is_not_touched():
    table = synthetic.table(CYCLE)
    assert latency.fit(table, CYCLE) is table


def test_times_never_fall_beyond_what_is_known():
    falling = np.array([[3.0, 2.0, 1.5]])
    found = latency.along(falling, np.array([1, 2, 3]), np.array([2, 3, 4, 9]), 1)
    np.testing.assert_array_equal(found, [[2.0, 1.5, 1.5, 1.5]])
    np.testing.assert_array_equal(
        latency.along(np.array([[7.0]]), np.array([4]), np.array([4, 8]), 1), [[7.0, 7.0]]
    )


def test_found_by_name_or_file(tmp_path):
    latency.save(PUBLISHED, tmp_path / "mine.json")
    here = latency.find(str(tmp_path / "mine.json"))
    assert latency.fingerprint(here) == latency.fingerprint(PUBLISHED)
    for name in latency.shipped_names():
        assert latency.find(name).provenance["device"]
    with pytest.raises(UserError, match="no latency table 'nowhere'; .*a100-vicuna-13b-paper"):
        latency.find("nowhere")
    with pytest.raises(UserError, match="Cannot read the latency table"):
        latency.find(str(tmp_path / "nowhere.json"))
