"""Weights folders in Hugging Face style: config.json, weights in one file or in shards.

Weights are safetensors, or torch files read without running their pickle. Reading is tensor by
tensor; every name that was not asked for is reported, every name that is missing is an error.
"""

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UserError when the file is missing or is no JSON object."""
    if not path.exists():
        raise UserError(f"{path} is missing; a model folder needs it{_other_format(path.parent)}.")
    return texts.read_settings(path)


class TensorFolder:
    """The tensors of a folder, read one at a time; remembers which names were used.

    Args:
      canonical: the name that a stored name is asked for by; two of one name are an error.
    """

    def __init__(self, folder: Path, canonical: Callable[[str], str] = lambda name: name) -> None:
        if not folder.is_dir():
            raise UserError(f"There is no model folder {folder}; check the path.")
        self.folder = folder
        self.stored: dict[str, str] = {}  # by canonical name
        self.parsed: dict[Path, TorchFile | GGUFFile] = {}  # once, not for every tensor
        self.file_of = _file_of_tensor(folder, self._names)
        for name in self.file_of:
            if canonical(name) in self.stored:
                other = self.stored[canonical(name)]
                raise UserError(f"{folder} holds both {other} and {name}, which are one tensor.")
            self.stored[canonical(name)] = name
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        path, stored = self._place(name)
        if path.suffix in PARSERS:
            return self._parsed(path).places[stored].shape
        with _opened(path) as file:
            return tuple(file.get_slice(stored).get_shape())

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
        path, stored = self._place(name)
        found = self.shape(name)
        if found != shape:
            raise UserError(
                f"Tensor {stored} in {path} is {list(found)} but config.json asks for "
                f"{list(shape)}; weights and config are not of one model."
            )
        self.used.add(name)
        if path.suffix in PARSERS:
            yield 0, self._parsed(path).read(stored)
            return
        step = max(1, most_bytes // (4 * math.prod(shape[1:])))
        for start in range(0, shape[0], step):
            with _opened(path) as file:
                block = file.get_slice(stored)[start : min(start + step, shape[0])]
            yield start, block

    def unused(self) -> list[str]:
        """Names in the files that nothing read."""
        return sorted(self.stored[name] for name in set(self.stored) - self.used)

    def _names(self, path: Path) -> list[str]:
        if path.suffix in PARSERS:
            return list(self._parsed(path).places)
        with _opened(path) as file:
            return list(file.keys())

    def _parsed(self, path: Path) -> TorchFile | GGUFFile:
        if path not in self.parsed:
            self.parsed[path] = PARSERS[path.suffix](path)
        return self.parsed[path]

    def _place(self, name: str) -> tuple[Path, str]:
        if name not in self.stored:
            raise UserError(f"{self.folder} has no tensor {name}; the checkpoint is incomplete.")
        stored = self.stored[name]
        return self.folder / self.file_of[stored], stored


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (OSError, SafetensorError) as error:
        files.refuse_pointer(path)
        raise UserError(
            f"{path} cannot be read ({error}); the file is truncated or damaged, copy it again."
        ) from error


def _file_of_tensor(folder: Path, names_in: Callable[[Path], list[str]]) -> dict[str, str]:
    """The file of every tensor: safetensors where there are any, torch files otherwise."""
    for single in (SINGLE, TORCH_SINGLE, gguf.LINK):
        index = folder / f"{single}.index.json"
        if index.exists():
            return _read_index(index, Path(single).suffix)
        if (folder / single).exists():
            return dict.fromkeys(names_in(folder / single), single)
    raise UserError(
        f"{folder} has neither {SINGLE} nor {INDEX} nor {TORCH_SINGLE}; there are no weights to "
        f"load{_other_format(folder)}."
    )


def _other_format(folder: Path) -> str:
    """The end of a sentence about a folder whose weights have a form that is not read."""
    if not any(folder.glob("*.gguf")):
        return ""
    return "; of a GGUF file, as there is one here, give the path of the file itself"


def _read_index(path: Path, suffix: str) -> dict[str, str]:
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(f, str) for f in index.values()):
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
    """12 hex digits that name the weights: sizes, headers and sampled blocks of all files.

    Args:
      read_as: how they are read, which makes other models of the same weights.
    """
    digest = hashlib.sha256(read_as.encode())
    for folder in folders:
        suffixes = (Path(SINGLE).suffix, *PARSERS)
        for path in sorted(path for suffix in suffixes for path in folder.glob(f"*{suffix}")):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as file:
                for block in range(FINGERPRINT_BLOCKS):
                    file.seek(size * block // FINGERPRINT_BLOCKS)
                    digest.update(file.read(FINGERPRINT_BLOCK_BYTES))
    return digest.hexdigest()[:12]
