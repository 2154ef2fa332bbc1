"""A torch checkpoint (`pytorch_model.bin`, `policy.pth`) read without running its pickle.

The file is a zip: `data.pkl` says which tensor lies where, `data/KEY` holds the bytes. The pickle's
instructions are read one by one and followed only as far as a state dict needs: containers,
strings, numbers, and the names of storages. Whatever else it asks for is refused, not called.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ltd_jax.files import UserError

DTYPES = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
}
PUSHES = frozenset(
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BININT BININT1 BININT2 LONG1 BINFLOAT".split()
)
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Name(NamedTuple):
    """The name of a function or class; never looked up."""

    full: str


class Place(NamedTuple):
    """Where a tensor lies in the zip; offset and strides count elements."""

    dtype: np.dtype
    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(Exception):
    """What a pickle asked for that no state dict needs."""


class TorchFile:
    """The tensors of one file, read one at a time.

    Args:
      path: of the file, or the name for it in messages where `content` is given.
      content: the file's bytes, where it lies within another one.

    Raises:
      UserError: the file is missing, damaged, of torch's old format, or asks for more than tensors.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path, self.content = path, content
        try:
            with self.open() as file:
                self.root = next(n for n in file.namelist() if n.endswith("data.pkl"))[:-8]
                self.places = places(file.read(f"{self.root}data.pkl"))
                order = f"{self.root}byteorder"
                if order in file.namelist() and file.read(order) != b"little":
                    raise Refused("bytes in big-endian order")
        except (OSError, zipfile.BadZipFile, StopIteration) as error:
            raise UserError(
                f"{path} cannot be read as a torch file ({error}); it is damaged or of torch's "
                "format before 1.6, save it again as safetensors."
            ) from error
        except Refused as error:
            raise UserError(
                f"{path} asks for {error}, which no weights need; it was not run, save the weights "
                "as safetensors."
            ) from error

    def open(self) -> zipfile.ZipFile:
        """The zip, to read from."""
        return zipfile.ZipFile(self.path if self.content is None else io.BytesIO(self.content))

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self.places[name].shape

    def read(self, name: str) -> np.ndarray:
        """A tensor."""
        place = self.places[name]
        size = place.dtype.itemsize
        steps = zip(place.shape, place.strides, strict=True)
        span = 1 + sum((count - 1) * stride for count, stride in steps)
        span = 0 if 0 in place.shape else span
        try:
            with (
                self.open() as file,
                file.open(f"{self.root}data/{place.key}") as at,
            ):
                at.seek(place.offset * size)
                found = at.read(span * size)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self.path} has no bytes for {name} ({error}); copy it again."
            ) from error
        if len(found) != span * size:
            raise UserError(f"{self.path} ends within {name}; the file is damaged, copy it again.")
        strides = tuple(size * stride for stride in place.strides)
        flat = np.frombuffer(found, place.dtype)
        return np.lib.stride_tricks.as_strided(flat, place.shape, strides, writeable=False)


def places(data: bytes) -> dict[str, Place]:
    """The tensors that a pickled state dict names; Refused for anything else."""
    try:
        found = _Reader().run(data)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise Refused(f"something unreadable ({error})") from error
    if not isinstance(found, dict):
        raise Refused(f"a {type(found).__name__} where a dict of tensors is needed")
    return {name: place for name, place in found.items() if isinstance(place, Place)}


class _Reader:
    """A stack machine for the few instructions that a state dict is made of."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for instruction, argument, _ in pickletools.genops(data):
            name = instruction.name
            if name == "STOP":
                return self.stack.pop()
            self.follow(name, argument)
        raise Refused("an end that never comes")

    def follow(self, name: str, argument: Any) -> None:
        if name in PUSHES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name in TUPLES:
            items = [self.stack.pop() for _ in range(TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            method = getattr(self, f"on_{name.lower()}", None)
            if method is None:
                raise Refused(f"the pickle instruction {name}")
            method(argument)

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items, self.stack[start:] = self.stack[start:], []
        return items

    def on_mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def on_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def on_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.since_mark()))

    def on_global(self, argument: str) -> None:
        self.stack.append(Name(argument.replace(" ", ".")))

    def on_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Name(f"{module}.{name}"))

    def on_binpersid(self, _: Any) -> None:
        kind, storage, key, *_ = self.stack.pop()
        if kind != "storage" or storage.full not in DTYPES:
            raise Refused(f"a {storage.full}")
        self.stack.append((DTYPES[storage.full], key))

    def on_reduce(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if called.full == "collections.OrderedDict":
            self.stack.append(dict(*arguments))
        elif called.full == "torch._utils._rebuild_tensor_v2":
            (dtype, key), offset, shape, strides, *_ = arguments
            self.stack.append(Place(dtype, key, offset, shape, strides))
        elif called.full == "torch._utils._rebuild_parameter":
            self.stack.append(arguments[0])
        else:
            raise Refused(f"a call of {called.full}")

    def on_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def on_setitems(self, _: Any) -> None:
        items = self.since_mark()
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def on_append(self, _: Any) -> None:
        item = self.stack.pop()
        self.stack[-1].append(item)

    def on_appends(self, _: Any) -> None:
        items = self.since_mark()
        self.stack[-1].extend(items)

    def on_build(self, _: Any) -> None:
        self.stack.pop()  # a state dict's `_metadata`
