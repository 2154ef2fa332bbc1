"""Weights folders: what is written is read back; every kind of damage gets one clear sentence."""

import json

import ml_dtypes
import numpy as np
import pytest

from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf.tensors import INDEX, SINGLE, TensorFolder, write_folder
from tests.models.refusal import refusal

TENSORS = {
    "first": np.arange(12, dtype=np.float32).reshape(3, 4),
    "second": np.arange(6, dtype=ml_dtypes.bfloat16),
    "third": np.arange(-2, 3),
    "fourth": np.array([True, False]),
}


@pytest.fixture
def single(tmp_path):
    write_folder(tmp_path, {"a": 1}, TENSORS)
    return tmp_path


@pytest.fixture
def sharded(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_tensors, "SHARD_BYTES", 64)
    write_folder(tmp_path, {"a": 1}, TENSORS)
    return tmp_path


def check_all_read(folder):
    files = TensorFolder(folder)
    for name, tensor in TENSORS.items():
        found = files.read(name, tensor.shape)
        assert found.dtype == tensor.dtype
        np.testing.assert_array_equal(found, tensor)
    assert sorted(files) == sorted(TENSORS)


def test_one_file(single):
    check_all_read(single)
    assert sorted(path.name for path in single.iterdir()) == ["config.json", SINGLE]
    assert hf_tensors.read_json(single / "config.json") == {"a": 1}


def test_shards_and_index(sharded):
    check_all_read(sharded)
    index = json.loads((sharded / INDEX).read_text())
    assert index["metadata"] == {"total_size": 48 + 12 + 40 + 2}
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    expected = {"first": first, "second": first, "third": second, "fourth": second}
    assert index["weight_map"] == expected
    assert not (sharded / SINGLE).exists()


def test_a_tensor_larger_than_a_shard_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_tensors, "SHARD_BYTES", 1)
    write_folder(tmp_path, {}, TENSORS)
    check_all_read(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == len(TENSORS)


def test_writing_again_leaves_nothing_of_before(sharded, monkeypatch):
    monkeypatch.undo()
    write_folder(sharded, {}, TENSORS | {"first": np.zeros((3, 4), np.float32)})
    assert not TensorFolder(sharded).read("first", (3, 4)).any()
    assert [path.name for path in sharded.glob("model*")] == [SINGLE]


def test_names_and_headers_are_known(single):
    files = TensorFolder(single)
    assert list(files) == ["first", "fourth", "second", "third"]
    assert "third" in files and "fifth" not in files
    assert files.header("second") == ((6,), "bfloat16") and files.header("fourth").dtype == "bool"


def test_missing_tensor(single):
    message = refusal(lambda: TensorFolder(single).read("fifth", (1,)))
    assert str(single) in message and "fifth" in message


def test_wrong_shape(single):
    message = refusal(lambda: TensorFolder(single).read("first", (4, 3)))
    for part in (str(single / SINGLE), "first", "[3, 4]", "[4, 3]"):
        assert part in message


def test_missing_folder_and_missing_weights(tmp_path):
    assert str(tmp_path / "no") in refusal(lambda: TensorFolder(tmp_path / "no"))
    message = refusal(lambda: TensorFolder(tmp_path))
    assert SINGLE in message and INDEX in message


@pytest.mark.parametrize("bytes_left", (0, 5, 100, -1))
def test_truncated_file(single, bytes_left):
    path = single / SINGLE
    path.write_bytes(path.read_bytes()[:bytes_left])
    assert str(path) in refusal(lambda: TensorFolder(single))


def test_truncated_shard(sharded):
    path = sharded / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert str(path) in refusal(lambda: TensorFolder(sharded))


def test_a_tensor_that_the_index_forgot_is_read(sharded):
    index = json.loads((sharded / INDEX).read_text())
    del index["weight_map"]["second"]
    (sharded / INDEX).write_text(json.dumps(index))
    check_all_read(sharded)


def test_index_names_a_missing_shard(sharded):
    path = sharded / "model-00002-of-00002.safetensors"
    path.unlink()
    message = refusal(lambda: TensorFolder(sharded))
    assert str(sharded / INDEX) in message and path.name in message


def test_index_puts_a_tensor_into_the_wrong_shard(sharded):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["first"] = index["weight_map"]["third"]
    (sharded / INDEX).write_text(json.dumps(index))
    message = refusal(lambda: TensorFolder(sharded).read("first", (3, 4)))
    assert index["weight_map"]["third"] in message and "first" in message


@pytest.mark.parametrize("content", ("{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'))
def test_index_without_a_map(sharded, content):
    (sharded / INDEX).write_text(content)
    assert str(sharded / INDEX) in refusal(lambda: TensorFolder(sharded))


@pytest.mark.parametrize("content", (b"", b'{"a": 1', b"[1, 2]", b"\xff\xfe"))
def test_broken_json(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert str(path) in refusal(lambda: hf_tensors.read_json(path))


def test_missing_json(tmp_path):
    path = tmp_path / "config.json"
    assert str(path) in refusal(lambda: hf_tensors.read_json(path))


def test_fingerprint_follows_the_weights_and_how_they_are_read(single, tmp_path_factory):
    before = hf_tensors.fingerprint(single)
    same = tmp_path_factory.mktemp("same")
    write_folder(same, {"other": "config"}, TENSORS)
    assert hf_tensors.fingerprint(same) == before and len(before) == 12
    write_folder(same, {}, TENSORS | {"first": TENSORS["first"] + 1})
    assert hf_tensors.fingerprint(same) != before
    assert hf_tensors.fingerprint(single, same) != hf_tensors.fingerprint(same, single)
    assert hf_tensors.fingerprint(single, read_as="otherwise") != before
