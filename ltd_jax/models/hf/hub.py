"""Hub ids: a folder's name that is no folder here but `owner/name` is downloaded and cached.

Only the files that are read here are fetched: settings, tokenizer, and the weights as safetensors;
older tokenizer files and torch files where there are no newer ones. Needs `huggingface_hub` (the
extra `hf`).
"""

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from ltd_jax import text as texts
from ltd_jax.files import ASSETS, UserError
from ltd_jax.models.hf import fetch, gguf

SETTINGS = (
    "config.json",
    "generation_config.json",
    *(texts.TOKENIZER, texts.SETTINGS, *texts.OLDER_SETTINGS),
    *(texts.TEMPLATE, texts.PROCESSOR_TEMPLATE, f"{texts.TEMPLATES}/*.jinja"),
)
SAFETENSORS = ("model*.safetensors", "model.safetensors.index.json")
TORCH = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def folder_of(name: Path | str, argument: str) -> Path:
    """The folder itself, or the one where a hub id's files lie now, or that stands for a GGUF file.

    A name is an id when it reads `owner/name` and no folder `owner` is here. The names of published
    pairs (fetch.py) stand for the target that was fetched and for the draft that ships.

    Args:
      argument: the argument's name, for messages.

    Raises:
      UserError: there is no such folder and no such id, or the hub cannot be reached.
    """
    name = Path(name)
    if str(name) in fetch.PAIRS and not name.exists():
        is_draft = argument in ("draft", "start")
        name = fetch.PAIRS[str(name)].draft if is_draft else fetch.require(str(name))
    if name.suffix == gguf.SUFFIX and not name.is_dir():
        return gguf.folder_of(name)
    if name.is_dir():
        return name
    if not ID.fullmatch(str(name)) or Path(name.parts[0]).exists():
        raise UserError(f"There is no model folder {name}; check `{argument}`.")
    by_hand = (
        f"fetch it with `hf download {name} --local-dir FOLDER` where the hub can be reached, and "
        f"give its path as `{argument}`"
    )
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(
            f"There is no folder {name}, and hub ids need huggingface_hub: install the extra "
            f"ltd-jax[hf], or {by_hand}."
        )
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        folder = Path(hub.snapshot_download(str(name), allow_patterns=[*SETTINGS, *SAFETENSORS]))
        has_weights, has_tokenizer = any(folder.glob(SAFETENSORS[0])), folder / texts.TOKENIZER
        older = (() if has_weights else TORCH) + (
            () if has_tokenizer.exists() else texts.OLDER_TOKENIZERS
        )
        if older:
            hub.snapshot_download(str(name), allow_patterns=[*older])
        return folder
    except Exception as error:  # it lets through what its own libraries raise
        reason = str(error).strip().split("\n")[0].rstrip(".:")
        raise UserError(
            f"There is no folder {name} and as a hub id it cannot be fetched ({reason}); {by_hand}."
        ) from error


def name_of(folder: Path) -> str:
    """The name of a folder in reports: its hub id or its own, without the machine's paths."""
    if folder in (ASSETS / "target", ASSETS / "draft"):
        return f"embedded {folder.name}"
    return _id_of(folder) or folder.resolve().name


def given_as(folder: Path) -> str | None:
    """What names a folder to `folder_of` again: hub id, GGUF file or path; None = the embedded."""
    if folder in (ASSETS / "target", ASSETS / "draft"):
        return None
    published = {pair.draft: name for name, pair in fetch.PAIRS.items()}
    return published.get(folder) or _id_of(folder) or str(gguf.file_of(folder) or folder)


def _id_of(folder: Path) -> str | None:
    """The hub id of a folder of the hub's cache, models--OWNER--NAME/snapshots/HASH."""
    if folder.parent.name != "snapshots":
        return None
    return folder.parents[1].name.removeprefix("models--").replace("--", "/")
