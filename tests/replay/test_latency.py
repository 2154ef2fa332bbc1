"""Latency tables: read, by name, and fitted to another grid, against values worked out by hand."""

import dataclasses
import json

import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.replay import latency
from ltd_jax.replay.latency import LatencyTable
from tests.oracle import replay as oracle
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 4, 8), context=64)
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


@pytest.mark.parametrize("contexts", [(5,), (8, 32), (1, 10, 11)])
def test_interpolation_is_linear_and_clamped(contexts):
    table = synthetic.table(CONFIG, contexts=contexts)
    lengths = np.arange(40)
    found = latency.interpolate(table, table.cycle_seconds, lengths)
    expected = [
        [
            [oracle.cycle_seconds(table, n, levels, size) for size in range(4)]
            for levels in range(1, 5)
        ]
        for n in lengths.tolist()
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(latency.interpolate(table, table.plain_seconds, 7).shape, ())


def test_additive_is_the_sum_of_both_parts():
    table = synthetic.table(CONFIG)
    assert table.cycle_seconds.shape == (2, 4, 4) and table.max_levels == 4
    np.testing.assert_array_equal(
        table.cycle_seconds[1, 2, 3], table.draft_seconds[1, 2] + table.verify_seconds[1, 3]
    )


def test_save_and_load_return_the_same_table(tmp_path):
    table, path = synthetic.table(CONFIG), tmp_path / "new" / "latency.json"
    latency.save(table, path)
    back = latency.load(path)
    for field in dataclasses.fields(table):
        value = getattr(back, field.name)
        assert type(value) is type(getattr(table, field.name))
        np.testing.assert_array_equal(value, getattr(table, field.name))
    assert latency.fingerprint(back) == latency.fingerprint(table)


def test_the_fingerprint_follows_the_numbers_only():
    table = synthetic.table(CONFIG)
    name = latency.fingerprint(table)
    assert len(name) == 12 and int(name, 16) >= 0
    assert latency.fingerprint(dataclasses.replace(table, provenance={})) == name
    for change in ({"size_seconds": 1.0}, {"plain_seconds": table.plain_seconds * (1 + 1e-15)}):
        assert latency.fingerprint(dataclasses.replace(table, **change)) != name


def test_load_names_what_is_wrong(tmp_path):
    path = tmp_path / "latency.json"
    with pytest.raises(UserError, match="Cannot read"):
        latency.load(path)
    latency.save(synthetic.table(CONFIG), path)
    text = path.read_text()
    record = json.loads(text)
    record.pop("plain_seconds")
    cases = {
        text[: len(text) // 2]: "truncated",
        "[]": "schema None",
        text.replace('"schema": 1', '"schema": 7'): "schema 7",
        json.dumps(record): "lacks 'plain_seconds'",
        json.dumps(record | {"plain_seconds": [1.0]}): "plain_seconds has shape",
        json.dumps(record | {"plain_seconds": "fast"}): "damaged",
    }
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            latency.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contexts": np.array([32, 8], np.int32)}, "contexts .* must rise"),
        ({"sizes": (0, 1, 4)}, "cycle_seconds has shape"),
        ({"plain_seconds": np.array([0.0, 1.0])}, "plain_seconds must hold positive"),
        ({"depth_seconds": float("nan")}, "depth_seconds must be finite"),
    ],
)
def test_a_table_must_make_sense(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(synthetic.table(CONFIG), **change)


def test_a_published_table_on_another_grid():
    fitted = latency.fit(PUBLISHED, CYCLE)
    # size 0 is a plain step; 5 halfway to size 10; 60 goes on with (9 - 5) / 20 from 20 to 40
    verify = np.array([4.0, 4.5, 5.0, 7.0, 13.0])
    draft = np.array([1.0, 3.0, 5.0, 7.0])  # (3 - 1) a level from level 1 on
    np.testing.assert_allclose(fitted.verify_seconds, verify[None])
    np.testing.assert_allclose(fitted.draft_seconds, draft[None])
    np.testing.assert_allclose(fitted.cycle_seconds[0], draft[:, None] + verify[None])
    assert fitted.sizes == CYCLE.sizes and fitted.plain_seconds == [4.0]
    assert (fitted.depth_seconds, fitted.size_seconds) == (0.1, 0.2)
    assert fitted.provenance == {
        "device": "paper",
        "fitted_from": latency.fingerprint(PUBLISHED),
    }


def test_levels_are_cut_and_known_sizes_kept():
    cut = dataclasses.replace(CYCLE, beam_width=7, max_levels=1, sizes=(10, 40))
    fitted = latency.fit(PUBLISHED, cut)
    np.testing.assert_array_equal(fitted.cycle_seconds, [[[6.0, 10.0]]])


def test_a_table_of_the_same_grid_is_not_touched():
    table = synthetic.table(CYCLE)
    assert latency.fit(table, CYCLE) is table


def test_times_never_fall_beyond_what_is_known():
    falling = np.array([[3.0, 2.0, 1.5]])
    values = latency.resample(falling, np.array([1, 2, 3]), np.array([2, 3, 4, 9]), axis=1)
    np.testing.assert_array_equal(values, [[2.0, 1.5, 1.5, 1.5]])
    np.testing.assert_array_equal(
        latency.resample(np.array([[7.0]]), np.array([4]), np.array([4, 8]), axis=1), [[7.0, 7.0]]
    )


def test_found_by_name_or_file(tmp_path):
    latency.save(PUBLISHED, tmp_path / "mine.json")
    here = LatencyTable.find(str(tmp_path / "mine.json"))
    assert latency.fingerprint(here) == latency.fingerprint(PUBLISHED)
    for name in latency.shipped_names():
        assert LatencyTable.find(name).provenance["device"]
    with pytest.raises(UserError, match="no latency table 'nowhere'; .*a100-vicuna-13b-paper"):
        LatencyTable.find("nowhere")
    with pytest.raises(UserError, match="Cannot read the latency table"):
        LatencyTable.find(str(tmp_path / "nowhere.json"))
