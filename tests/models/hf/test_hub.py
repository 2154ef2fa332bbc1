"""Hub ids: what is fetched, what is not taken for an id, and what is said where nothing comes."""

import importlib.util
import types
from fnmatch import fnmatch
from pathlib import Path

import pytest

from ltd_jax import text
from ltd_jax.files import UserError
from ltd_jax.models.hf import hub
from tests.models.refusal import refusal

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
    "original/consolidated.00.pth",
)
SHARDS = ("model-00001-of-00002.safetensors", "model.safetensors.index.json")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub that serves FILES and whatever a test adds, into its cache."""
    files, cache = list(FILES), tmp_path / "cache"

    def snapshot_download(name, allow_patterns):
        folder = cache / ("models--" + name.replace("/", "--")) / "snapshots" / "0123"
        for file in files:
            if any(fnmatch(file, pattern) for pattern in allow_patterns):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).touch()
        return str(folder)

    fake = types.ModuleType("huggingface_hub")
    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(hub.importlib.sys.modules, "huggingface_hub", fake)
    fake.__spec__ = importlib.util.spec_from_loader("huggingface_hub", loader=None)
    monkeypatch.chdir(tmp_path)
    return fake, files


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_read_is_fetched(served):
    _, files = served
    files += [*SHARDS, "pytorch_model.bin"]
    folder = hub.folder_of(Path("some-owner/Some-8B.v1"), "target")
    assert names(folder) == {*FILES[:4], *SHARDS}
    assert hub.name_of(folder) == "some-owner/Some-8B.v1"


def test_torch_files_where_there_are_no_others(served):
    _, files = served
    files += ["pytorch_model.bin", "training_args.bin"]
    folder = hub.folder_of(Path("some-owner/draft"), "draft")
    assert names(folder) == {*FILES[:4], "pytorch_model.bin"}


def test_older_tokenizers_are_fetched_where_there_is_no_newer_one(served):
    """As FastChat's own repositories have it: a hub id and a folder get the same sentence."""
    _, there = served
    there += [SHARDS[0], "tokenizer.model", "special_tokens_map.json", "chat_template.jinja"]
    folder = hub.folder_of(Path("owner/both"), "target")
    assert names(folder) == {*FILES[:4], *there[len(FILES) :]} - {"tokenizer.model"}
    there.remove("tokenizer.json")
    folder = hub.folder_of(Path("owner/older"), "target")
    assert "tokenizer.model" in names(folder)
    if importlib.util.find_spec("transformers") is None:
        with pytest.raises(UserError, match=r"only a tokenizer.model: pip install 'ltd-jax\[hf\]'"):
            text.load_tokenizer(folder)


def test_all_that_tokenizers_and_templates_read_is_fetched(served):
    _, there = served
    more = [
        *("added_tokens.json", "special_tokens_map.json", "chat_template.json"),
        *("chat_template.jinja", "additional_chat_templates/rag.jinja"),
    ]
    there += [*more, SHARDS[0]]
    assert names(hub.folder_of(Path("owner/model"), "target")) >= set(more)


def test_folders_are_no_ids(served, tmp_path):
    fake, _ = served
    fake.snapshot_download = None  # would fail
    (tmp_path / "runs" / "pair").mkdir(parents=True)
    assert hub.folder_of(Path("runs/pair"), "target") == Path("runs/pair")
    for name in ("runs/other", "/some/where", "../a/b", "a/b/c", "alone", "./none"):
        said = refusal(lambda name=name: hub.folder_of(Path(name), "draft"))
        assert said == f"There is no model folder {Path(name)}; check `draft`."


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError])
def test_what_is_said_offline(served, error):
    fake, _ = served

    def fail(name, allow_patterns):
        raise error("No way\nto the hub.")

    fake.snapshot_download = fail
    said = refusal(lambda: hub.folder_of(Path("owner/model"), "target"))
    assert "There is no folder owner/model" in said and "(No way)" in said
    assert "`hf download owner/model --local-dir FOLDER`" in said and "as `target`" in said


def test_what_is_said_without_the_extra(served, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refusal(lambda: hub.folder_of(Path("owner/model"), "target"))
    assert "ltd-jax[hf]" in said and "hf download owner/model" in said
