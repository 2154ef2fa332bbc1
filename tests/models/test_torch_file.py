"""Torch files: what torch.save wrote is read, and nothing in them is ever run.

The golden files were written by torch 2.13.0; `evil.bin` holds an object whose unpickling would
call `os.system`.
"""

import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from ltd_jax.models.hf.torch_file import TorchFile
from tests.models.refusal import refusal

GOLDEN = Path(__file__).parent / "golden"
BIG = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.fixture(scope="module")
def tensors():
    return TorchFile(GOLDEN / "tensors.bin")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("f32", BIG),
        ("transposed", BIG.T),
        ("row", BIG[2]),
        ("scalar", np.float32(2.5)),
        ("empty", np.zeros((0, 3), np.float32)),
        ("i64", np.arange(-3, 4)),
        ("bool", np.array([True, False, True])),
        ("parameter", np.ones((2, 2), np.float32)),
    ],
)
def test_tensors(tensors, name, expected):
    found = tensors.read(name)
    assert found.dtype == expected.dtype and tensors.shape(name) == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("name", "dtype"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_narrow_floats(tensors, name, dtype):
    found = tensors.read(name)
    assert found.dtype == dtype and 0.1 < np.abs(found.astype(np.float32)).mean() < 3


def test_a_modules_state_dict():
    found = TorchFile(GOLDEN / "module.bin")
    assert list(found.places) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    np.testing.assert_array_equal(found.read("0.weight"), np.full((2, 3), 0.25, np.float32))


def test_a_call_is_refused_and_not_made():
    message = refusal(lambda: TorchFile(GOLDEN / "evil.bin"))
    assert "evil.bin" in message and "system" in message and "not run" in message


def test_damage_is_named(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes((GOLDEN / "tensors.bin").read_bytes()[:-500])
    assert str(path) in refusal(lambda: TorchFile(path))
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # torch's format before 1.6
    assert "before 1.6" in refusal(lambda: TorchFile(path))
    missing = tmp_path / "missing.bin"
    assert str(missing) in refusal(lambda: TorchFile(missing))


def rewritten(path: Path, change) -> Path:
    """A copy of the golden tensors, some members changed."""
    with zipfile.ZipFile(GOLDEN / "tensors.bin") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def test_bytes_that_are_missing(tmp_path):
    cut = lambda name, content: content[:50] if "/data/" in name else content
    file = TorchFile(rewritten(tmp_path / "cut.bin", cut))
    assert "f32" in refusal(lambda: file.read("f32"))
    gone = lambda name, content: None if "/data/" in name else content
    file = TorchFile(rewritten(tmp_path / "gone.bin", gone))
    assert "f32" in refusal(lambda: file.read("f32"))


def test_big_endian_files_are_refused(tmp_path):
    big = lambda name, content: b"big" if name.endswith("byteorder") else content
    assert "big-endian" in refusal(lambda: TorchFile(rewritten(tmp_path / "big.bin", big)))


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"\x80\x02]q\x00.", b"\x80\x02(K\x01t"])
def test_what_is_no_state_dict(tmp_path, content):
    other = lambda name, old: content if name.endswith("data.pkl") else old
    path = rewritten(tmp_path / "other.bin", other)
    assert str(path) in refusal(lambda: TorchFile(path))
