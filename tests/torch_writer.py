"""Tensors and small objects written as torch reads them, without torch and without pickling.

A pickle is a list of instructions for a stack machine; the few that a file of tensors needs are
written out here, byte by byte. `torch.load(weights_only=True)` and `torch_file` read the result.
"""

import io
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

from ltd_jax.models.hf.torch_file import DTYPES

STORAGES = {dtype: name for name, dtype in DTYPES.items()}
STAMP = (1980, 1, 1, 0, 0, 0)  # equal contents give equal files


class Global(NamedTuple):
    """A class or function that the reader looks up by name."""

    module: str
    name: str


class Call(NamedTuple):
    """A call that the reader makes."""

    function: Global
    arguments: tuple[Any, ...]


class Stored(NamedTuple):
    """What the reader finds by a persistent id."""

    identity: tuple[Any, ...]


def instructions(value: Any) -> bytes:
    """The pickle (protocol 2) that gives a value.

    Args:
      value: None, bool, int below 2^31, float, str, tuples, lists, dicts, and the classes above.

    Raises:
      TypeError: anything else.
    """
    return b"\x80\x02" + _push(value) + b"."


def tensors(value: Any) -> bytes:
    """A torch file of a dict, at any depth with numpy arrays as its tensors."""
    storages: list[np.ndarray] = []
    program = instructions(_stored(value, storages))
    files = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
    files |= {f"data/{key}": array.tobytes() for key, array in enumerate(storages)}
    return archive({f"archive/{name}": content for name, content in files.items()})


def archive(files: dict[str, bytes]) -> bytes:
    """A zip of files by name, not compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name, STAMP), content)
    return buffer.getvalue()


def _push(value: Any) -> bytes:
    """Instructions that leave a value on the stack."""
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return _push(value.function) + _push(tuple(value.arguments)) + b"R"
    if isinstance(value, Stored):
        return _push(tuple(value.identity)) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_push, value)) + b"t" if value else b")"
    if isinstance(value, list):
        return b"](" + b"".join(map(_push, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_push(k) + _push(v) for k, v in value.items()) + b"u"
    return _push_atom(value)


def _push_atom(value: Any) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    raise TypeError(f"A {type(value).__name__} is not written.")


def _stored(value: Any, storages: list[np.ndarray]) -> Any:
    """The value with every array as a tensor over a storage, appended to `storages`."""
    if isinstance(value, dict):
        return {key: _stored(each, storages) for key, each in value.items()}
    if isinstance(value, list):
        return [_stored(each, storages) for each in value]
    if not isinstance(value, np.ndarray):
        return value
    storages.append(np.ascontiguousarray(value))
    kind = Global("torch", STORAGES[value.dtype])
    place = Stored(("storage", kind, str(len(storages) - 1), "cpu", value.size))
    strides = tuple(int(np.prod(value.shape[axis + 1 :])) for axis in range(value.ndim))
    hooks = Call(Global("collections", "OrderedDict"), ())
    arguments = (place, 0, tuple(value.shape), strides, False, hooks)
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)
