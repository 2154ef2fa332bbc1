"""Bad files and outputs: one clear sentence, exit code 2, nothing that a later run would trust."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.damages import (
    ELSEWHERE,
    edited,
    nothing,
    policies,
    question,
    table,
    trace,
    written,
)
from tests.system.refusing import refusal
from tests.system.tiny_pair import CYCLE, FLAGS, QUESTION

ROOT = Path(__file__).parents[2]
SAY = ("--prompt", "hi", "--new-tokens", "4", "--context", "64")
ASK = ("--questions", "asked", "--out", "out", "--new-tokens", "8")
RECORD = (*ASK, "--split", "all", *FLAGS)
MEASURE = ("--out", "out", *FLAGS)
LTD = ("--policy", "out/policy.safetensors")
BENCH = (*ASK, "--policy", "out")
REFUSED = {
    "no policies there": (
        "generate",
        nothing,
        (*SAY, *LTD),
        ["out/policy.safetensors", "train them"],
    ),
    "policies of another device": (
        "generate",
        lambda root: policies(root, device=ELSEWHERE),
        (*SAY, *LTD),
        ["out/policy.safetensors", ELSEWHERE, "--allow-other-hardware"],
    ),
    "policies of another table": (
        "bench",
        lambda root: policies(root, latency="0ld"),
        BENCH,
        ["out/policy.safetensors", "0ld", "latency.json"],
    ),
    "policies without a constant": (
        "bench",
        lambda root: policies(root, best=False),
        BENCH,
        ["out/policy.safetensors", "best"],
    ),
    "policies without a table": (
        "bench",
        lambda root: (policies(root), (root / "out" / "latency.json").unlink()),
        BENCH,
        ["latency.json"],
    ),
    "policies measured in another dtype": (
        "bench",
        policies,
        (*BENCH, "--dtype", "bfloat16"),
        ["out/policy.safetensors", "in float32", "in bfloat16", "--allow-other-hardware"],
    ),
    "policies measured with other sampling": (
        "bench",
        policies,
        (*BENCH, "--temperature", "1"),
        ["out/policy.safetensors", "greedy decoding", '"temperature": 1.0', "same sampling"],
    ),
    "output cannot be": ("record", nothing, (*RECORD, "--out", "/proc/none"), ["/proc/none"]),
    "task called mean": (
        "record",
        lambda root: (root / "asked" / "mine.jsonl").rename(root / "asked" / "mean.jsonl"),
        RECORD,
        ["'mean'"],
    ),
    "all of the embedded questions": (
        "record",
        nothing,
        ("--out", "out", "--split", "all", *FLAGS),
        ["splits", "--questions"],
    ),
    "question twice": (
        "record",
        question(QUESTION, QUESTION),
        RECORD,
        ["line 2", "question_id 1"],
    ),
    "choices without a question": (
        "record",
        question('{"choices": ["a", "b"]}'),
        RECORD,
        ["line 1", '"question"'],
    ),
    "questions of bytes": (
        "record",
        written("asked/mine.jsonl", b"\xff\xfe"),
        RECORD,
        ["mine.jsonl", "UTF-8"],
    ),
    "split without questions": (
        "record",
        nothing,
        (*RECORD, "--split", "test"),
        ["split test", "mine"],
    ),
    "damaged trace": (
        "record",
        written("out/traces/all.npz", b"PK" + bytes(100)),
        RECORD,
        ["all.npz", "damaged"],
    ),
    "trace of another pair": (
        "record",
        lambda root: trace(root, fingerprint="0ther"),
        RECORD,
        ["all.npz", "pair 0ther"],
    ),
    "damaged table": ("profile", edited(lambda text: text[:99]), MEASURE, ["latency.json"]),
    "table of another schema": (
        "profile",
        edited(lambda text: text.replace('"schema": 1', '"schema": 9')),
        MEASURE,
        ["latency.json", "schema 9"],
    ),
    "NaN seconds": (
        "profile",
        edited(lambda text: text.replace("1.0", "NaN", 1)),
        MEASURE,
        ["latency.json", "draft_seconds", "finite"],
    ),
    "negative seconds": (
        "profile",
        edited(lambda text: text.replace("1.0", "-1.0")),
        MEASURE,
        ["latency.json", "positive"],
    ),
    "table without a field": (
        "profile",
        edited(lambda text: text.replace("plain_seconds", "plain")),
        MEASURE,
        ["latency.json", "plain_seconds"],
    ),
    "table of other sizes": (
        "profile",
        lambda root: table(root, sizes=(0, 1)),
        MEASURE,
        ["latency.json", "sizes (0, 1)"],
    ),
    "table of other levels": (
        "profile",
        lambda root: table(root, levels=3),
        MEASURE,
        ["latency.json", "3 levels"],
    ),
    "table of another pair": (
        "profile",
        lambda root: table(root, fingerprint="0ther"),
        MEASURE,
        ["latency.json", "pair 0ther"],
    ),
    "table of another beam width": (
        "profile",
        lambda root: table(root, cycle=dataclasses.asdict(CYCLE) | {"beam_width": 7}),
        MEASURE,
        ["latency.json", "beam_width 7"],
    ),
    "table timed with other policies": (
        "profile",
        lambda root: table(root, policy={"size_actor": [99]}),
        MEASURE,
        ["latency.json", "policies"],
    ),
    "measuring beyond the context": (
        "profile",
        nothing,
        (*MEASURE, "--profiling.contexts", "90", "--json"),
        ["90 tokens", "context holds 64"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(root, monkeypatch, capsys, name):
    command, damage, arguments, words = REFUSED[name]
    damage(root)
    monkeypatch.chdir(root)
    before = sorted(root.rglob("*.*"))
    where = ("--target", "target", "--draft", "draft")
    sentence = refusal(command, monkeypatch, capsys, *where, *arguments)
    assert all(word in sentence for word in words), sentence
    assert before == sorted(root.rglob("*.*"))  # nothing new that a later run would trust


def test_a_process_says_the_same(root):
    (root / "asked" / "mine.jsonl").write_text("{\n")
    done = subprocess.run(
        [sys.executable, "-m", "ltd_jax.cli", "record", "--split", "all"]
        + ["--target", str(root / "target"), "--draft", str(root / "draft")]
        + ["--questions", str(root / "asked"), "--out", str(root / "out"), *map(str, FLAGS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "mine.jsonl, line 1: " in last
    assert not (root / "out" / "traces").exists()
