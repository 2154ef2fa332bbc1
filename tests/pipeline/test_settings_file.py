"""Settings come back as they were, and only for what they were found for."""

import json

import pytest

from experiments.studies import settings_file
from experiments.studies.settings_file import DecodeSettings
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 2, 5), context=32, prefill_chunk=8)


@pytest.fixture
def made(tmp_path):
    found = DecodeSettings(
        path=tmp_path / "settings.json",
        controller="ltd",
        policies=tmp_path / "policies",
        cycle=CYCLE,
        fingerprint="pair-1",
        device="a machine",
        dtype="float32",
        latency="table-1",
    )
    settings_file.save(found, {"date": "today"})
    return found


def test_they_come_back_also_from_another_place(made, tmp_path):
    assert settings_file.load(made.path) == made
    moved = tmp_path / "elsewhere" / "settings.json"
    moved.parent.mkdir()
    made.path.rename(moved)
    assert settings_file.load(moved).policies == tmp_path / "elsewhere" / "policies"
    assert json.loads(moved.read_text())["environment"] == {"date": "today"}


def test_only_for_their_pair_and_device(made):
    settings_file.check(made, "pair-1", "a machine", "float32", False)
    with pytest.raises(UserError, match="tuned for pair pair-1, not pair-2"):
        settings_file.check(made, "pair-2", "a machine", "float32", True)
    for device, dtype, words in (
        ("another", "float32", "for a machine, not another; .*--allow-other-hardware"),
        (
            "a machine",
            "bfloat16",
            "in float32, not .* in bfloat16; .*--allow-other-hardware",
        ),
    ):
        with pytest.raises(UserError, match=words):
            settings_file.check(made, "pair-1", device, dtype, False)
        with pytest.warns(UserWarning, match="may be slow here"):
            settings_file.check(made, "pair-1", device, dtype, True)


def test_what_is_wrong_is_named(made):
    record = json.loads(made.path.read_text())
    cases = {
        "{": "no settings file or is truncated",
        "[]": "has schema None",
        json.dumps(record | {"schema": 9}): "has schema 9",
        json.dumps({key: record[key] for key in record if key != "device"}): "lack 'device'",
        json.dumps(record | {"cycle": {"width": 3}}): "lack 'sizes'",
        json.dumps(record | {"cycle": {"sizes": [3, 2]}}): "damaged",
    }
    for content, message in cases.items():
        made.path.write_text(content)
        with pytest.raises(UserError, match=message):
            settings_file.load(made.path)
    made.path.unlink()
    with pytest.raises(UserError, match="Cannot read the settings"):
        settings_file.load(made.path)
