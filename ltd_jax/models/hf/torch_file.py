"""Torch checkpoints (`pytorch_model.bin`, `policy.pth`), read without calling what they name.

The file is a zip: `data.pkl` says which tensor lies where, `data/KEY` holds the bytes. A pickle may
name any function and have it called. Here it is given stand-ins for the few names that a state dict
needs (`STAND_INS`), which are ours and cannot be changed by it; any other name is refused before it
is looked up. So nothing is imported, and nothing is called that is not on the list.
"""

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ltd_jax import files
from ltd_jax.files import UserError

DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}  # by class of the module torch


class Refused(Exception):
    """A pickle asked for something that no state dict needs, which is the message."""


class Quantised(Exception):
    """A pickle holds numbers of a kind that is not read, which is the message."""


class Storage(NamedTuple):
    """The bytes that tensors are views of, by the name of their file in the zip."""

    dtype: np.dtype
    key: str


class Place(NamedTuple):
    """A tensor as a view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """The numbers' name in numpy."""
        return self.storage.dtype.name


class StateDict(dict):
    """The stand-in for an OrderedDict; what torch hangs on one (`_metadata`) is left away."""

    def __setstate__(self, state: Any) -> None:
        pass


class StandIn:
    """The object that a pickle gets for a name on the list; it cannot be changed by a pickle."""

    def __init__(self, call: Callable[..., Any], dtype: np.dtype | None = None) -> None:
        self.call, self.dtype = call, dtype

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused("a change of a function")


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *unused: Any) -> Place:
    """The view of a storage that arguments of torch's function of this name describe."""
    counts = (offset, *shape, *strides)
    is_view = isinstance(storage, Storage) and len(shape) == len(strides)
    if not is_view or not all(type(count) is int and count >= 0 for count in counts):
        raise Refused("a tensor that is no view of a storage")
    return Place(storage, offset, tuple(shape), tuple(strides))


def _refuse_call(*arguments: Any) -> None:
    raise Refused("a call of a storage")


QUANTISED = re.compile(  # what torch calls for tensors of numbers that numpy has not
    r"torch\._utils\._rebuild_(tensor_v3|qtensor|wrapper_subclass)"
    r"|torch\._tensor\._rebuild_from_type(_v2)?|torch\.(Complex|Q)\w+Storage"
    r"|torch\.(float[48]|q?u?int[1-8])\w*|(torchao|bitsandbytes)\..*"
)
STAND_INS = {
    ("collections", "OrderedDict"): StandIn(StateDict),
    ("torch._utils", "_rebuild_tensor_v2"): StandIn(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): StandIn(lambda tensor, *unused: tensor),
    **{("torch", name): StandIn(_refuse_call, dtype) for name, dtype in DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """The restricted unpickler of Python's documentation: an allow-list of names."""

    def find_class(self, module: str, name: str) -> StandIn:
        if (module, name) not in STAND_INS and QUANTISED.fullmatch(f"{module}.{name}"):
            raise Quantised(f"{module}.{name}")
        if (module, name) not in STAND_INS:
            raise Refused(f"a call of {f'{module}.{name}'!r}")
        return STAND_INS[module, name]

    def persistent_load(self, identity: Any) -> Storage:
        kind, storage, key, *_ = identity
        if kind != "storage" or not isinstance(storage, StandIn) or storage.dtype is None:
            raise Refused("an object that is no storage")
        return Storage(storage.dtype, str(key))


def places(data: bytes) -> dict[str, Place]:
    """The tensors that a pickled state dict names; Refused or Quantised for anything else."""
    try:
        state = _Unpickler(io.BytesIO(data)).load()
    except (Refused, Quantised):
        raise
    except Exception as error:  # damaged pickles raise whatever their instructions lead to
        raise Refused(f"something unreadable ({error})") from error
    if not isinstance(state, dict):
        raise Refused(f"a {type(state).__name__} where a dict of tensors is needed")
    is_tensor = lambda name, value: isinstance(name, str) and isinstance(value, Place)
    return {name: value for name, value in state.items() if is_tensor(name, value)}


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
            files.refuse_pointer(path)
            raise UserError(
                f"{path} cannot be read as a torch file ({error}); it is damaged or of torch's "
                "format before 1.6, save it again as safetensors."
            ) from error
        except Quantised as error:
            raise UserError(
                f"{path} holds tensors of {error}, no floating point numbers of 16 bits or more; "
                "quantised weights cannot be read, give the unquantised model."
            ) from error
        except Refused as error:
            raise UserError(
                f"{path} asks for {error}, which no weights need; it was not run, save the weights "
                "as safetensors."
            ) from error

    def open(self) -> zipfile.ZipFile:
        """The zip, to read from."""
        return zipfile.ZipFile(self.path if self.content is None else io.BytesIO(self.content))

    def read(self, name: str) -> np.ndarray:
        """A tensor."""
        (dtype, key), offset, shape, strides = self.places[name]
        size = dtype.itemsize
        last = sum((count - 1) * stride for count, stride in zip(shape, strides, strict=True))
        span = 0 if 0 in shape else last + 1
        try:
            with self.open() as file, file.open(f"{self.root}data/{key}") as storage:
                storage.seek(offset * size)
                content = storage.read(span * size)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self.path} has no bytes for {name} ({error}); copy it again."
            ) from error
        if len(content) != span * size:
            raise UserError(f"{self.path} ends within {name}; the file is damaged, copy it again.")
        flat, steps = np.frombuffer(content, dtype), [size * stride for stride in strides]
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
