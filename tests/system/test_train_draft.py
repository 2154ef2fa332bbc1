"""`ltd train-draft` and `ltd fetch` as a person starts them, on a tiny target."""

import json
import os
import subprocess
import sys

import pytest

from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import fetch
from tests.system import refusing, tiny_pair

QUICK = (
    *("--tokens", 900, "--talk.rows", 6, "--talk.slots", 128, "--talk.user-cap", 4),
    *("--talk.answer-cap", 12, "--talk.again-room", 10),
    *("--train.window", 40, "--train.batch-tokens", 80, "--train.tokens", 320),
    *("--draft-vocab-size", 64, "--held-out", 0.2, "--no-compile-cache"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tiny_pair.write(tmp_path_factory.mktemp("pair"))
    questions = root / "questions"
    for split in ("train", "test"):
        (questions / split).mkdir(parents=True)
        row = tiny_pair.QUESTION
        rows = [row.replace("1", f"{n}", 1).replace("one", f"{n}?") for n in range(1, 9)]
        (questions / split / "asked.jsonl").write_text("\n".join(rows))
    return root


def train(monkeypatch, capsys, root, out, *more):
    arguments = ("--target", root / "target", "--out", out, *QUICK, "--json", *more)
    return refusing.run("train-draft", monkeypatch, capsys, *arguments)


def test_a_draft_for_a_target_from_nothing(root, tmp_path, monkeypatch, capsys):
    asked = ("--questions", root / "questions", "--judge", 2)
    printed = train(monkeypatch, capsys, root, tmp_path / "asked", *asked)
    report = json.loads(printed.out)
    *_, judged = report["judgements"]
    assert [row["step"] for row in report["judgements"]] == [1, 3, 4]
    assert judged["tasks"].keys() == {"asked"} and judged["mean"] >= 1
    assert f"Next: ltd tune --target {root / 'target'} --draft {tmp_path}" in printed.err
    page = (tmp_path / "asked" / "README.md").read_text()
    assert page.startswith("# An EAGLE-3 draft for target") and "tokens in a cycle (asked" in page
    pair = pairs.load(root / "target", tmp_path / "asked" / "draft", cycle=tiny_pair.CYCLE)
    assert pair.config.draft.draft_vocab_size == 64
    talks = train(monkeypatch, capsys, root, tmp_path / "talks", "--judge", 0)
    report = json.loads(talks.out)
    assert "judgements" not in report and report["conversations"]["learned"] > 5

    monkeypatch.chdir(tmp_path)
    for word in ("one", "two", "six"):
        (tmp_path / f"{word}.txt").write_text(f"{word} is a number. " * 40)
    start = ("--start", tmp_path / "asked" / "draft", "--dialect", "layers.0", "--judge", 0)
    more = ("--no-talks", "--texts", "one.txt", "two.txt", "six.txt")
    found = train(monkeypatch, capsys, root, tmp_path / "gone-on", *start, *more)
    assert json.loads(found.out)["conversations"] == {"learned": 41, "held_out": 10}


def test_replicas_are_judged_too(root, tmp_path):
    """The judge decodes on one replica's devices."""
    places = ("--replicas", 2, "--devices", 2, "--judgements", 1, "--judge", 1)
    arguments = ("--target", root / "target", "--out", tmp_path, *QUICK, "--json", *places)
    devices = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    ran = subprocess.run(
        [sys.executable, "-m", "ltd_jax", "train-draft", *map(str, arguments)]
        + ["--questions", str(root / "questions")],
        env=os.environ | {"XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    (judged,) = json.loads(ran.stdout)["judgements"]
    assert judged["step"] == 4 and judged["mean"] >= 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--train.batch-tokens", 2560, "--talk.rows", 64, "--replicas", 64),
            "--replicas is 64, but there",
        ),
        (("--no-talks",), "There are 0 questions or texts"),
        (("--texts", "nowhere.txt"), "There is no file nowhere.txt"),
        (("--target", "nowhere"), "There is no model folder nowhere"),
    ],
    ids=str,
)
def test_impossible_settings_are_one_sentence(flags, words, root, tmp_path, monkeypatch, capsys):
    first = ("--target", root / "target", "--out", tmp_path, *QUICK)
    said = refusing.refusal("train-draft", monkeypatch, capsys, *first, *flags)
    assert words in said


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--tokens", 0, "tokens is 0"),
        ("--minutes", 0, "minutes is 0"),
        ("--held-out", 0.9, "held_out is 0.9"),
        ("--train.window", 8, "train.window is 8"),
        ("--talk.slots", 4, "slots is 4"),
        ("--train.batch-tokens", 600, "must be a multiple of 1 times train.window (512)"),
        ("--devices", 0, "devices is 0"),
        ("--talk.rows", 0, "rows is 0"),
        ("--replicas", 3, "talk.rows is 32 but must be a multiple of replicas, which is 3"),
        ("--train.long-share", 0.5, "train.long_share must be 0"),
        ("--train.seed", -1, "seed is -1"),
        ("--judge", -1, "judge is -1"),
        ("--judgements", 0, "judgements is 0"),
        ("--dialect", "x", "invalid choice"),
    ],
)
def test_impossible_values_are_named(flag, value, words, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        refusing.run("train-draft", monkeypatch, capsys, flag, value)
    printed = capsys.readouterr()
    assert end.value.code == 2 and words in " ".join(printed.err.split()) and not printed.out


def test_a_published_pair_that_was_not_fetched_says_how(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = refusing.refusal("generate", monkeypatch, capsys, "--pair", "smollm2", "--prompt", "a")
    assert "run `ltd fetch smollm2` once" in said


def test_fetch_says_where_the_model_is(tmp_path, monkeypatch, capsys):
    model = tmp_path / "model.gguf"
    monkeypatch.setattr(fetch, "find", lambda name: model)
    printed = refusing.run("fetch", monkeypatch, capsys, "smollm2")
    assert printed.out.strip() == str(model) and "ltd generate --pair smollm2" in printed.err
