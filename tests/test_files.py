import numpy as np
import pytest

from ltd_jax import files
from ltd_jax.files import ResumableStore, UserError

SETTINGS = {"fingerprint": "abc", "contexts": (64, 256)}


class Killed(Exception):
    """Stands for kill -9."""


def test_a_killed_measurement_goes_on(tmp_path):
    path, measured = tmp_path / "partial.json", []

    def measure(value: float) -> np.ndarray:
        measured.append(value)
        if len(measured) == 3:
            raise Killed
        return np.full((2, 2), value)

    def run() -> list[np.ndarray]:
        kept = ResumableStore(path, SETTINGS)
        return [kept.entry(f"visit {i}", lambda i=i: measure(i / 3)) for i in range(4)]

    with pytest.raises(Killed):
        run()
    found = run()
    assert measured == [0, 1 / 3, 2 / 3, 2 / 3, 1]  # two entries were kept, bit for bit
    for index, entry in enumerate(found):
        np.testing.assert_array_equal(entry, np.full((2, 2), index / 3))


def test_other_settings_and_damaged_files_are_measured_anew(tmp_path):
    path = tmp_path / "partial.json"
    ResumableStore(path, SETTINGS).entry("plain", lambda: 1.0)
    with pytest.warns(UserWarning, match=r"partial\.json is of another pair, device or setting"):
        assert (
            ResumableStore(path, SETTINGS | {"fingerprint": "xyz"}).entry("plain", lambda: 2.0) == 2
        )
    content = path.read_text()
    for damaged in (content[: len(content) // 2], "[]", '{"settings": {}, "entries": "b"}'):
        path.write_text(damaged)
        with pytest.warns(UserWarning, match="is damaged"):
            assert ResumableStore(path, SETTINGS).entry("plain", lambda: 3.0) == 3


def test_rows_are_kept_as_they_are(tmp_path):
    path, row = tmp_path / "rows.partial", ({"name": "a", "share": None}, [1.5])
    make = lambda: ResumableStore(path, SETTINGS)
    assert make().value("a", lambda: row) == [{"name": "a", "share": None}, [1.5]]
    assert make().value("a", lambda: pytest.fail("made twice")) == list(row)


def test_nothing_is_kept_without_a_file():
    kept = ResumableStore(None, SETTINGS)
    assert kept.entry("one", lambda: [1, 2]).tolist() == [1, 2]
    assert kept.entry("one", lambda: pytest.fail("measured twice")).tolist() == [1, 2]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_written(tmp_path, number):
    path = tmp_path / "rates.json"
    files.write_json(path, {"rate": 1.0})
    with pytest.raises(UserError, match=r"rates\.json: rate is (nan|infinite), no finite"):
        files.write_json(path, {"rate": number})
    assert path.read_text() == '{\n "rate": 1.0\n}\n'
    store = ResumableStore(tmp_path / "kept.json", SETTINGS)
    with pytest.raises(UserError, match=r"visit 1 cannot be kept: \[0\]\[1\] is (nan|inf)"):
        store.entry("visit 1", lambda: [[1.0, number]])
    assert not (tmp_path / "kept.json").exists()


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_not_read(tmp_path, word):
    path = tmp_path / "rates.json"
    path.write_text(f'{{"schema": 1, "rate": {word}}}')
    with pytest.raises(UserError, match="table .*rates.json is damaged .rate is (nan|inf).*; go"):
        with files.reading_json(path, "table", 1, "go"):
            pytest.fail("it was read")
    path.write_text(f'{{"settings": {{}}, "entries": {{"a": [{word}]}}}}')
    with pytest.warns(UserWarning, match=r"is damaged .entries.a\[0\] is (nan|inf)"):
        assert not ResumableStore(path, {}).entries
