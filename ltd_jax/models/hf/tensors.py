"""Weights folders in Hugging Face style: config.json, weights in one file or in shards.

Weights are safetensors, or torch files read without running their pickle. Names, shapes and kinds
of numbers are read of the files' headers, tensors one by one. Where a folder holds a whole file and
shards, those that are all there are read, else the newer; a doubt says which.
"""

import contextlib
import functools
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ltd_jax import files
from ltd_jax import text as texts
from ltd_jax.files import UserError
from ltd_jax.models.hf import gguf
from ltd_jax.models.hf.gguf import GGUFFile
from ltd_jax.models.hf.torch_file import TorchFile

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
TORCH_SINGLE = "pytorch_model.bin"
TORCH_SUFFIX = ".bin"
PARSERS: dict[str, Callable[[Path], TorchFile | GGUFFile]] = {
    TORCH_SUFFIX: TorchFile,
    gguf.SUFFIX: GGUFFile,
}
SHARD_BYTES = 15_000_000
FINGERPRINT_BLOCKS = 64
FINGERPRINT_BLOCK_BYTES = 4096
FLOATS = ("float64", "float32", "float16", "bfloat16")
DTYPES = {  # of safetensors, those that numpy has
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
}
TRAINERS_FILES = ("training_args.bin", "optimizer.bin", "scheduler.bin")  # no weights
# Files of weights that are not read, and the end of a sentence about a folder that has no others.
ADAPTER = (
    "; it holds an adapter, which is no model of its own: merge it into its base model with "
    "merge_and_unload of peft, and give the merged folder"
)
DEEPSPEED = (
    "; it holds a DeepSpeed checkpoint: run `python zero_to_fp32.py . OUT` in it, and give a "
    "folder of what that writes with the model's config.json"
)
CONSOLIDATED = (
    "; it holds weights in their maker's own form (consolidated): give the same model in the form "
    "of Hugging Face"
)
FSDP = (
    "; it holds the parts of an FSDP checkpoint: join them with `accelerate merge-weights`, and "
    "give the folder that this writes"
)
OTHER_FORMS = {
    "*.gguf": "; of a GGUF file, as there is one here, give the path of the file itself",
    "adapter_model.*": ADAPTER,
    "adapter_config.json": ADAPTER,
    "zero_to_fp32.py": DEEPSPEED,
    "global_step*": DEEPSPEED,
    "consolidated*": CONSOLIDATED,
    "*.distcp": FSDP,
    "pytorch_model_fsdp*": FSDP,
    "model-*-of-*.safetensors": f"; it holds shards without {INDEX}: copy that file, too",
    "pytorch_model-*-of-*.bin": f"; it holds shards without {TORCH_SINGLE}.index.json: copy that "
    "file, too",
    **{
        f"*.{suffix}": f"; its .{suffix} files are not read: save the weights as safetensors"
        for suffix in ("msgpack", "h5", "onnx", "ckpt", "pth", "pt", "ot", "npz")
    },
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UserError when the file is missing or is no JSON object."""
    if not path.exists():
        raise UserError(f"{path} is missing; a model folder needs it{_other_format(path.parent)}.")
    files.refuse_pointer(path)
    return texts.read_settings(path)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds files of weights, of whatever form; copies' leftovers are none."""
    return any(
        path.suffix in (".safetensors", *PARSERS)
        and path.name not in TRAINERS_FILES
        and not path.name.startswith(".")
        for path in folder.glob("*")
    )


class Header(NamedTuple):
    """What a file says of a tensor."""

    shape: tuple[int, ...]
    dtype: str  # numpy's name; the file's own of numbers that numpy has not, such as F8_E4M3


class TensorFolder:
    """The tensors of a folder, read one at a time.

    Args:
      canonical: the name that a stored name is asked for by; two of one name are an error.
    """

    def __init__(self, folder: Path, canonical: Callable[[str], str] = lambda name: name) -> None:
        if not folder.is_dir():
            raise UserError(f"There is no model folder {folder}; check the path.")
        self.folder = folder
        self.stored: dict[str, str] = {}  # by canonical name
        self.file_of, self.doubts = _file_of_tensor(folder, self._names)
        self.headers: dict[Path, dict[str, Header]] = {}
        for file in sorted(set(self.file_of.values())):  # an index may have forgotten a tensor
            for name in self._headers(folder / file):
                self.file_of.setdefault(name, file)
        for name in self.file_of:
            if canonical(name) in self.stored:
                other = self.stored[canonical(name)]
                raise UserError(f"{folder} holds both {other} and {name}, which are one tensor.")
            self.stored[canonical(name)] = name

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.stored))

    def header(self, name: str) -> Header:
        """What its file says of a tensor; UserError where it is missing."""
        path, stored = self._place(name)
        headers = self._headers(path)
        if stored not in headers:
            raise UserError(
                f"{path} has no tensor {stored}, though the index beside it says so; copy both "
                "again."
            )
        return headers[stored]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return self.header(name).shape

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """UserError for a tensor that is missing, of another shape, or of no known numbers."""
        path, stored = self._place(name)
        found = self.header(name)
        if found.shape != shape:
            raise UserError(
                f"Tensor {stored} in {path} is {list(found.shape)} but config.json asks for "
                f"{list(shape)}; weights and config are not of one model."
            )
        if found.dtype not in DTYPES.values():
            self.refuse_numbers(name)

    def check_floats(self, name: str) -> None:
        """UserError for a tensor that holds no floating point numbers."""
        if self.header(name).dtype not in FLOATS:
            self.refuse_numbers(name)

    def refuse_numbers(self, name: str) -> None:
        """UserError that names a tensor and its kind of numbers."""
        path, stored = self._place(name)
        raise UserError(
            f"Tensor {stored} in {path} holds {self.header(name).dtype}, no floating point numbers "
            "of 16 bits or more; quantised weights cannot be read, give the unquantised model."
        )

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One tensor; UserError names it when it is missing, broken or of another shape."""
        ((_, tensor),) = self.blocks(name, shape, sys.maxsize)
        return tensor

    def blocks(
        self, name: str, shape: tuple[int, ...], most_bytes: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """A tensor by blocks of whole rows: each one's first row and the rows; errors as `read`.

        The file is opened for every block: a map of it keeps all pages that were read of it. A
        tensor of a torch or GGUF file is one block.
        """
        self.check(name, shape)
        path, stored = self._place(name)
        if path.suffix in PARSERS:
            yield 0, self._parsed(path).read(stored)
            return
        step = max(1, most_bytes // (4 * math.prod(shape[1:])))
        for start in range(0, shape[0], step):
            with _opened(path) as file:
                block = file.get_slice(stored)[start : min(start + step, shape[0])]
            yield start, block

    def are_equal(self, one: str, other: str, most_bytes: int) -> bool:
        """Whether two tensors hold the same numbers; up to a block that differs."""
        shape = self.shape(one)
        if self.header(other) != self.header(one):
            return False
        pairs = zip(
            self.blocks(one, shape, most_bytes), self.blocks(other, shape, most_bytes), strict=False
        )
        return all(np.array_equal(left, right) for (_, left), (_, right) in pairs)

    def _headers(self, path: Path) -> dict[str, Header]:
        if path not in self.headers:
            self.headers[path] = self._read_headers(path)
        return self.headers[path]

    def _read_headers(self, path: Path) -> dict[str, Header]:
        if path.suffix in PARSERS:
            places = self._parsed(path).places
            return {name: Header(at.shape, at.dtype) for name, at in places.items()}
        with _opened(path) as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {
                name: Header(tuple(part.get_shape()), _dtype(part.get_dtype()))
                for name, part in slices.items()
            }

    def _names(self, path: Path) -> list[str]:
        if path.suffix in PARSERS:
            return list(self._parsed(path).places)
        with _opened(path) as file:
            return list(file.keys())

    def _parsed(self, path: Path) -> TorchFile | GGUFFile:
        return _parsed(path, path.stat().st_mtime_ns)

    def _place(self, name: str) -> tuple[Path, str]:
        if name not in self.stored:
            raise UserError(f"{self.folder} has no tensor {name}; the checkpoint is incomplete.")
        stored = self.stored[name]
        return self.folder / self.file_of[stored], stored


@functools.lru_cache(maxsize=4)
def _parsed(path: Path, written: int) -> TorchFile | GGUFFile:
    """A file, parsed once while it is as it was written: seconds, for a GGUF file's words."""
    return PARSERS[path.suffix](path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (OSError, SafetensorError) as error:
        files.refuse_pointer(path)
        if "unknown variant" in str(error):
            raise UserError(
                f"{path} holds numbers of a kind that is not known here ({error}); quantised "
                "weights cannot be read, give the unquantised model."
            ) from error
        raise UserError(
            f"{path} cannot be read ({error}); the file is truncated or damaged, copy it again."
        ) from error


def _dtype(name: str) -> str:
    """Numpy's name of a safetensors dtype, or its own."""
    return DTYPES.get(name, name)


def _file_of_tensor(
    folder: Path, names_in: Callable[[Path], list[str]]
) -> tuple[dict[str, str], list[str]]:
    """The file of every tensor, and doubts: safetensors where there are any, torch files if not."""
    doubts = []
    if (folder / "adapter_config.json").exists():
        doubts.append(
            f"{folder} holds an adapter beside its weights, which is not applied; merge it into "
            "the model where it belongs to it."
        )
    for single in (SINGLE, TORCH_SINGLE, gguf.LINK):
        whole, index = folder / single, folder / f"{single}.index.json"
        if whole.exists() and index.exists():
            shards, doubt = _newer_shards(whole, index)
            doubts += [doubt] if doubt else []
            return shards or dict.fromkeys(names_in(whole), single), doubts
        if index.exists():
            return _read_index(index, whole.suffix), doubts
        if whole.exists():
            return dict.fromkeys(names_in(whole), single), doubts
    raise UserError(
        f"{folder} has neither {SINGLE} nor {INDEX} nor {TORCH_SINGLE}; there are no weights to "
        f"load{_other_format(folder)}."
    )


def _newer_shards(whole: Path, index: Path) -> tuple[dict[str, str], str]:
    """The shards' files of an index beside a whole file, if they are read; and a doubt, if any."""
    try:
        shards = _read_index(index, whole.suffix)
    except UserError:
        return {}, (
            f"{index} does not belong to {whole.name}, which is read; delete the index and what is "
            "left of its shards."
        )
    if set(shards.values()) == {whole.name}:
        return shards, ""
    written = max(whole.with_name(file).stat().st_mtime for file in shards.values())
    is_newer = written > whole.stat().st_mtime
    read = "the shards are read, which are newer" if is_newer else "it is read, which is newer"
    doubt = f"{whole} lies beside shards; {read}: delete what is old."
    return shards if is_newer else {}, doubt


def _other_format(folder: Path) -> str:
    """The end of a sentence about a folder whose weights have a form that is not read."""
    for pattern, clause in OTHER_FORMS.items():
        if any(not path.name.startswith(".") for path in folder.glob(pattern)):
            return clause
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f"; its folder {inner[-1]} looks like a model, give that" if inner else ""


def _read_index(path: Path, suffix: str) -> dict[str, str]:
    index = read_json(path).get("weight_map")
    is_map = isinstance(index, dict) and all(isinstance(file, str) for file in index.values())
    if not is_map or not index:
        raise UserError(f"{path} has no weight_map of names; copy the file again.")
    for file in sorted(set(index.values())):
        if Path(file).name != file or Path(file).suffix != suffix:
            raise UserError(f"{path} names {file}, which is no weights file beside it.")
        if not path.with_name(file).exists():
            raise UserError(f"{path} names {file}, which is missing; copy that shard.")
    return index


def write_folder(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, np.ndarray] | Iterable[tuple[str, np.ndarray]],
    shard_bytes: int | None = None,
    always_index: bool = False,
) -> None:
    """Writes config.json and the tensors in shards, one shard in memory at a time.

    Args:
      shard_bytes: most bytes of a shard, one tensor may be larger; None = SHARD_BYTES.
      always_index: also of a single shard.
    """
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in list(folder.glob("model*.safetensors*")):
            stale.unlink()  # an older index would hide what is written now
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        shards: list[list[str]] = []
        total = 0
        named = tensors.items() if isinstance(tensors, dict) else tensors
        for shard in _shards(named, shard_bytes or SHARD_BYTES):
            save_file(shard, folder / f"{SINGLE}.part{len(shards)}", metadata={"format": "pt"})
            shards.append(list(shard))
            total += sum(tensor.nbytes for tensor in shard.values())
        if len(shards) == 1 and not always_index:
            (folder / f"{SINGLE}.part0").rename(folder / SINGLE)
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(shards):
            file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
            (folder / f"{SINGLE}.part{number}").rename(folder / file)
            weight_map |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=1))


def _shards(
    tensors: Iterable[tuple[str, np.ndarray]], most_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """The tensors in order, in groups of at most so many bytes or of one."""
    shard: dict[str, np.ndarray] = {}
    filled = 0
    for name, tensor in tensors:
        if shard and filled + tensor.nbytes > most_bytes:
            yield shard
            shard, filled = {}, 0
        shard[name] = np.ascontiguousarray(tensor)
        filled += tensor.nbytes
    yield shard


def fingerprint(*folders: Path, read_as: str = "") -> str:
    """12 hex digits that name the weights: sizes, headers and sampled blocks of the files read.

    Args:
      read_as: how they are read, which makes other models of the same weights.
    """
    digest = hashlib.sha256(read_as.encode())
    for folder in folders:
        for path in sorted({folder / file for file in TensorFolder(folder).file_of.values()}):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as file:
                for block in range(FINGERPRINT_BLOCKS):
                    file.seek(size * block // FINGERPRINT_BLOCKS)
                    digest.update(file.read(FINGERPRINT_BLOCK_BYTES))
    return digest.hexdigest()[:12]
