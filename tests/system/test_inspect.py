"""`experiments.inspect`: what it finds in a good pair, and what it doubts in a bad one."""

import json
import shutil
import sys

import numpy as np
import pytest
import tokenizers

from experiments import command, inspect
from ltd_jax.files import ASSETS
from ltd_jax.models.hf import tensors as hf_tensors
from tests.models.test_weights import rewrite


@pytest.fixture
def folders(tmp_path):
    for name in ("target", "draft"):
        shutil.copytree(ASSETS / name, tmp_path / name)
    return tmp_path


def run(monkeypatch, capsys, folders, *arguments):
    where = ("--target", str(folders / "target"), "--draft", str(folders / "draft"))
    monkeypatch.setattr(sys, "argv", ["inspect", *where, "--context", "256", *arguments])
    command.run(inspect.main)
    return capsys.readouterr().out


def test_a_good_pair(folders, monkeypatch, capsys):
    found = json.loads(run(monkeypatch, capsys, folders, "--json"))
    assert found["doubts"] == [] and found["accepted_per_cycle"] > 0.5
    files = {"target": 0, "draft": 0}
    for name in files:
        folder = hf_tensors.TensorFolder(folders / name)
        shapes = [folder.shape(tensor) for tensor in folder.stored if "2" not in tensor[:3]]
        files[name] = sum(4 * int(np.prod(shape)) for shape in shapes)
    assert found["bytes"]["target"] == files["target"]
    ids = 4 * found["draft"]["draft_vocab_size"]
    assert (
        abs(found["bytes"]["draft"] - files["draft"]) <= 2 * ids
    )  # d2t and t2d are kept otherwise
    slots, layers = 256 + 64, found["target"]["layer_count"] + 1
    assert found["bytes"]["caches"] == pytest.approx(2 * layers * 2 * slots * 32 * 4, abs=100)


def test_config_alone(folders, monkeypatch, capsys):
    for path in (folders / "target").glob("*.safetensors"):
        path.unlink()
    out = run(monkeypatch, capsys, folders, "--no-weights")
    assert "Features enter layers (2, 6, 9) of 12" in out and "no doubts" in out
    assert "memory: target 34 MiB" in out
    out = run(monkeypatch, capsys, folders, "--no-weights", "--devices", "2")
    assert "memory on each of 2 devices: target 18 MiB" in out


def test_doubts(folders, monkeypatch, capsys):
    path = folders / "target" / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["self.x", "of the"])
    tokenizer.save(str(folders / "draft" / "tokenizer.json"))
    random = np.random.default_rng(0)
    draw = lambda tensors: tensors.update(
        {"lm_head.weight": random.normal(size=(1280, 256)).astype(np.float32)}
    )
    rewrite(folders / "draft", draw)
    out = " ".join(run(monkeypatch, capsys, folders).split())
    assert "another tokenizer" in out
    assert "were accepted on a probe text; check --feature-layers" in out
