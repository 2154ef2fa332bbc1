"""`experiments.generate` as a user starts it: streams, JSON, chat, and refusals."""

import json
import sys

import pytest

from experiments import command, generate
from ltd_jax import text as texts
from ltd_jax.files import ASSETS

TINY = ("--context", "96", "--new-tokens", "12")


def run(monkeypatch, capsys, *arguments):
    """What the command prints on stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["generate", *arguments])
    command.run(generate.main, resumes=False)
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
    tokenizer = texts.load_tokenizer(ASSETS / "target")
    assert found["text"] == tokenizer.decode(found["tokens"])
    assert "fingerprint" in err and name in err
    out, _ = run(monkeypatch, capsys, *asked)
    assert out.startswith(found["text"]) and "[12 tokens, " in out
    ids = ",".join(map(str, tokenizer.encode("def read(path):").ids))
    out, _ = run(monkeypatch, capsys, "--prompt-ids", ids, "--controller", name, *TINY, "--json")
    assert json.loads(out)["tokens"] == found["tokens"] and json.loads(out)["text"] is None


def test_a_seed_names_a_sampled_text(monkeypatch, capsys):
    asked = ("--prompt", "def read(path):", *TINY, "--json", "--controller", "autoregressive")
    warm = ("--temperature", "1.2", "--top-p", "0.95", "--repetition-penalty", "1.1")
    tokens = []
    for seed in ("3", "4", "3"):
        out, err = run(monkeypatch, capsys, *asked, *warm, "--seed", seed)
        tokens.append(tuple(json.loads(out)["tokens"]))
        assert "temperature 1.2" in err and f"seed {seed}" in err
    assert tokens[0] == tokens[2] and tokens[0] != tokens[1]


def test_chat_answers_until_an_empty_line(monkeypatch, capsys):
    lines = iter(["import os", "import sys", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    out, _ = run(monkeypatch, capsys, "--chat", "--controller", "autoregressive", *TINY)
    assert out.count("[12 tokens, ") == 2


def asked_of(monkeypatch, *lines):
    """What the keyboard gives, line by line; exceptions are raised, and then nothing more comes."""
    left = iter([*lines, EOFError()])

    def keyboard(prompt):
        line = next(left)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", keyboard)


def test_a_stopped_answer_is_forgotten_and_the_chat_goes_on(monkeypatch, capsys):
    whole, seen = generate.decode, []
    tokenizer = texts.load_tokenizer(ASSETS / "target")

    def decode(pair, method, prompt_T, *rest):
        seen.append(tokenizer.decode(prompt_T.tolist()))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(pair, method, prompt_T, *rest)

    monkeypatch.setattr(generate, "decode", decode)
    asked_of(monkeypatch, "import os", "import sys", "import os", KeyboardInterrupt())
    out, _ = run(monkeypatch, capsys, "--chat", "--controller", "autoregressive", *TINY)
    assert out.count("[12 tokens, ") == 2
    assert out.count("[stopped; the question is forgotten]") == 1
    assert seen[0] == "import os" and seen[1].endswith("\n\nimport sys")
    assert seen[2] == seen[1].removesuffix("import sys") + "import os"


def test_a_chat_forgets_its_oldest_turns_before_its_context_is_full(monkeypatch, capsys):
    asked_of(monkeypatch, "x = 1", "y = 2\n" * 12, "z = 3\n" * 40, "w = 4")
    out, _ = run(monkeypatch, capsys, "--chat", "--controller", "autoregressive", *TINY)
    too_long, forgets = "the context holds 96; shorten the prompt", "[the oldest turn is forgotten"
    assert out.count(too_long) == 1 and out.count(forgets) == 1
    assert out.index(too_long) < out.index(forgets)  # the third alone is too long, and costs none
    assert out.count("[12 tokens, ") == 3


def test_termination_ends_a_chat(monkeypatch, capsys):
    asked_of(monkeypatch, command.Terminated())
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, capsys, "--chat", "--controller", "autoregressive", *TINY)
    assert end.value.code == 130 and "Interrupted" in capsys.readouterr().err


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
