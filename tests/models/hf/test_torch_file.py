"""Torch files: what torch.save wrote is read, and nothing in them is ever run.

The golden files were written by torch 2.13.0; `evil.bin` holds an object whose unpickling would
call `os.system`.
"""

import os
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from ltd_jax.models.hf.torch_file import Refused, TorchFile, places
from tests.models.refusal import refusal
from tests.torch_writer import Call, Global, Stored, instructions

GOLDEN = Path(__file__).parents[1] / "golden"
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
    assert found.dtype == expected.dtype and tensors.places[name].shape == expected.shape
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


class Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def stack_global(module: str, name: str, *arguments: str) -> bytes:
    """A pickle of protocol 4 that calls what STACK_GLOBAL finds, which follows dots in names."""
    push = lambda text: b"\x8c" + bytes([len(text)]) + text.encode()
    call = b"(" + b"".join(map(push, arguments)) + b"tR"
    return b"\x80\x04" + push(module) + push(name) + b"\x93" + call + b"."


SYSTEM = Global("os", "system")
MALICIOUS = {  # by the command that they would run
    "reduce": lambda command: pickle.dumps({"w": Calls(os.system, command)}, 2),
    "eval": lambda command: pickle.dumps(Calls(eval, f"__import__('os').system({command!r})"), 4),
    "getattr, called": lambda command: instructions(
        Call(Call(Global("builtins", "getattr"), (Global("os", "path"), "system")), (command,))
    ),
    "argument of a known function": lambda command: instructions(
        Call(Global("collections", "OrderedDict"), ([("w", Call(SYSTEM, (command,)))],))
    ),
    "INST": lambda command: f"(S'{command}'\nios\nsystem\n.".encode(),
    "OBJ": lambda command: f"(cos\nsystem\nV{command}\no.".encode(),
    "STACK_GLOBAL": lambda command: stack_global("os", "system", command),
    "dots after a known module": lambda command: stack_global("torch._utils", "os.system", command),
    "dots after a known name": lambda command: stack_global(
        "collections", "OrderedDict.__init__.__globals__", command
    ),
    "a known name elsewhere": lambda command: stack_global("os", "OrderedDict", command),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_what_is_not_on_the_list_is_refused_and_not_run(tmp_path, name):
    made = tmp_path / "made"
    program = MALICIOUS[name](f"touch {made}")
    change = lambda member, old: program if member.endswith("data.pkl") else old
    path = rewritten(tmp_path / "bad.bin", change)
    message = refusal(lambda: TorchFile(path))
    assert "asks for a call of" in message and "not run" in message and not made.exists()


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
STORAGE = Stored(("storage", Global("torch", "FloatStorage"), "0", "cpu", 4))


def changed(value, state) -> bytes:
    """A pickle that sets the state of what it has made or named (BUILD)."""
    return instructions(value)[:-1] + instructions(state)[2:-1] + b"b."


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (changed(REBUILD, {"call": 1}), "a change of a function"),
        (changed(REBUILD, (None, {"call": Global("torch", "ByteStorage")})), "a change of a"),
        (changed(Global("torch", "FloatStorage"), {"dtype": "u1"}), "a change of a function"),
        (instructions(Call(Global("torch", "FloatStorage"), ())), "a call of a storage"),
        (instructions(Call(Call(Global("collections", "OrderedDict"), ()), ())), "not callable"),
        (instructions(Global("collections", "OrderedDict"))[:-1] + b")\x81.", "unreadable"),
        (instructions(Stored(("storage", REBUILD, "0"))), "no storage"),
        (instructions(Stored(("module", Global("torch", "FloatStorage"), "0"))), "no storage"),
        (instructions(Call(REBUILD, ("ab", 0, (2,), (1,)))), "no view"),
        (instructions(Call(REBUILD, (STORAGE, 0, (2, 2), (1,)))), "no view"),
        (instructions(Call(REBUILD, (STORAGE, 0, (2,), (-1,)))), "no view"),
        (instructions(Call(REBUILD, (STORAGE, 0.5, (2,), (1,)))), "no view"),
    ],
)
def test_what_is_on_the_list_cannot_be_misused(program, words):
    with pytest.raises(Refused, match=words):
        places(program)
    test_tensors(TorchFile(GOLDEN / "tensors.bin"), "f32", BIG)  # it is as it was


def test_the_state_of_a_state_dict_is_left_away():
    program = changed(Call(Global("collections", "OrderedDict"), ()), {"__class__": "w"})
    assert places(program) == {}
