"""`experiments.generate` as a user starts it: streams, JSON, chat, and refusals."""

import json
import sys

import pytest

from experiments import command, generate
from ltd_jax import prompts
from ltd_jax.cycle.pair import ASSETS

TINY = ("--context", "96", "--new-tokens", "12")


def run(monkeypatch, capsys, *arguments):
    """What the command prints on stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["generate", *arguments])
    command.run(generate.main)
    found = capsys.readouterr()
    return found.out, found.err


@pytest.mark.parametrize("name", ["autoregressive", "constant:levels=2,size=4"])
def test_json_and_stream_say_the_same(monkeypatch, capsys, name):
    asked = ("--prompt", "def read(path):", "--controller", name, *TINY)
    out, err = run(monkeypatch, capsys, *asked, "--json")
    found = json.loads(out)
    assert set(found) == {"tokens", "text", "committed_per_cycle", "cycles", "tokens_per_second"}
    assert len(found["tokens"]) == 12 and found["tokens_per_second"] > 0
    assert (found["cycles"] == 11) == (name == "autoregressive")
    assert found["committed_per_cycle"] == pytest.approx(11 / found["cycles"])
    tokenizer = prompts.load_tokenizer(ASSETS / "target")
    assert found["text"] == tokenizer.decode(found["tokens"])
    assert "fingerprint" in err and name in err
    out, _ = run(monkeypatch, capsys, *asked)
    assert out.startswith(found["text"]) and "[12 tokens, " in out
    ids = ",".join(map(str, tokenizer.encode("def read(path):").ids))
    out, _ = run(monkeypatch, capsys, "--prompt-ids", ids, "--controller", name, *TINY, "--json")
    assert json.loads(out)["tokens"] == found["tokens"] and json.loads(out)["text"] is None


def test_chat_answers_until_an_empty_line(monkeypatch, capsys):
    lines = iter(["import os", "import sys", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    out, _ = run(monkeypatch, capsys, "--chat", "--controller", "autoregressive", *TINY)
    assert out.count("[12 tokens, ") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Give one of --prompt, --prompt-ids and --chat"),
        (("--prompt", "a", "--chat"), "Give one of"),
        (("--prompt", "a", "--new-tokens", "0"), "must be at least 1"),
        (("--prompt-ids", "1,two"), "is not a list like 1,2,3"),
        (("--prompt-ids", "1,2048"), "0..2047"),
        (("--prompt", "a", "--controller", "ltd"), "--policies"),
        (("--prompt", "a", "--context", "20", "--new-tokens", "30"), "the context holds 20"),
    ],
)
def test_refusals(monkeypatch, capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, capsys, *arguments)
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and words in lines[-1] and lines[-1].startswith("error: ")
