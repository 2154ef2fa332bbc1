import dataclasses
import json

import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.replay import latency
from tests.oracle import replay as oracle
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 4, 8), context=64)


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
