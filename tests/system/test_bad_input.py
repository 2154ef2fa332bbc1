"""Bad input: one clear sentence, exit code 2, and nothing that a later run would trust."""

import json
import shutil
import sys

import numpy as np
import pytest
import tokenizers

from experiments import command, profile_latency, record_traces
from ltd_jax.cycle.pair import ASSETS
from ltd_jax.presets import EMBEDDED_CYCLE
from ltd_jax.replay import latency

SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture
def folders(tmp_path):
    """A copy of the embedded pair, to be damaged."""
    for name in ("target", "draft"):
        shutil.copytree(ASSETS / name, tmp_path / name)
    return tmp_path


def refusal(module, monkeypatch, capsys, *arguments):
    """What a command prints last when it refuses: one line, without the leading "error: "."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        command.run(module.main)
    printed = capsys.readouterr().err
    *before, last = printed.splitlines()
    assert end.value.code == 2 and last.startswith("error: ") and "Traceback" not in printed
    assert not any("error" in line for line in before)
    return last.removeprefix("error: ")


def lose_a_shard(folders):
    (folders / "target" / SHARD).unlink()


def truncate_a_shard(folders):
    path = folders / "target" / SHARD
    path.write_bytes(path.read_bytes()[:-1000])


def widen_the_drafts_vocabulary(folders):
    path = folders / "draft" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 4096}))


def add_words_to_the_tokenizer(folders):
    path = folders / "target" / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["self.", "import os", "of the"])
    tokenizer.save(str(path))


def break_the_tokenizer(folders):
    (folders / "target" / "tokenizer.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_a_shard, [SHARD]),
        (truncate_a_shard, [SHARD, "truncated"]),
        (widen_the_drafts_vocabulary, ["4096", "2048", "draft"]),
        (add_words_to_the_tokenizer, ["tokenizer", "2048 tokens"]),
        (break_the_tokenizer, ["tokenizer.json"]),
    ],
)
def test_a_damaged_pair(folders, monkeypatch, capsys, damage, words):
    damage(folders)
    where = ("--target", folders / "target", "--draft", folders / "draft")
    out = folders / "out"
    sentence = refusal(record_traces, monkeypatch, capsys, *where, "--out", out)
    assert all(word in sentence for word in words), sentence
    assert not list(out.rglob("*.*"))


def test_more_tokens_than_the_cache_holds(tmp_path, monkeypatch, capsys):
    sentence = refusal(
        record_traces,
        monkeypatch,
        capsys,
        "--out",
        tmp_path,
        "--new-tokens",
        EMBEDDED_CYCLE.context,
    )
    assert f"the context holds {EMBEDDED_CYCLE.context}" in sentence
    assert not list(tmp_path.rglob("*.*"))


def test_an_unknown_split(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--split", "exam", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        command.run(record_traces.main)
    assert end.value.code == 2 and "exam" in capsys.readouterr().err


def test_an_output_that_is_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    sentence = refusal(profile_latency, monkeypatch, capsys, "--out", tmp_path / "file" / "runs")
    assert sentence.startswith(f"Cannot write to {tmp_path / 'file' / 'runs'}")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_latency_table_of_another_pair(tmp_path, monkeypatch, capsys):
    sizes, levels = EMBEDDED_CYCLE.sizes, EMBEDDED_CYCLE.max_levels
    table = latency.additive(
        contexts=(64,),
        sizes=sizes,
        draft_seconds=np.ones((1, levels)),
        verify_seconds=np.ones((1, len(sizes))),
        plain_seconds=np.ones(1),
        decision_seconds=(0.0, 0.0),
        provenance={"fingerprint": "another"},
    )
    latency.save(table, tmp_path / "latency.json")
    sentence = refusal(profile_latency, monkeypatch, capsys, "--out", tmp_path)
    assert "another" in sentence and "latency.json" in sentence
