"""Bad files and outputs: one clear sentence, exit code 2, nothing that a later run would trust."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ltd_jax import files
from ltd_jax.config import GREEDY, PolicyConfig, describe_sampling
from ltd_jax.models import pair as pairs
from ltd_jax.policies import networks, saved
from ltd_jax.replay import latency
from ltd_jax.replay import trace as traces
from tests.replay import synthetic
from tests.system.refusing import refusal
from tests.system.tiny_pair import CYCLE, FLAGS, QUESTION

ROOT = Path(__file__).parents[2]
WIDTHS = PolicyConfig((4,), (4,), (4,), (4,))
ELSEWHERE = "another device"


def fingerprint(root):
    return pairs.load(root / "target", root / "draft", cycle=CYCLE).fingerprint


def table(root, sizes=CYCLE.sizes, levels=CYCLE.max_levels, **origin):
    """A latency table of the pair in root/out."""
    own = {
        "fingerprint": fingerprint(root),
        "dtype": "float32",
        "sampling": describe_sampling(GREEDY),
    }
    found = latency.additive(
        contexts=(16,),
        sizes=sizes,
        draft_seconds=np.ones((1, levels)),
        verify_seconds=np.ones((1, len(sizes))),
        plain_seconds=np.ones(1),
        decision_seconds=(0.0, 0.0),
        provenance=own | {"device": files.device_name()} | origin,
    )
    latency.save(found, root / "out" / "latency.json")
    return found


def edited(edit):
    """A damage of the table's file."""

    def damage(root):
        table(root)
        path = root / "out" / "latency.json"
        path.write_text(edit(path.read_text()))

    return damage


def policies(root, best=True, **origin):
    """Random policies of the pair in root/out/policy.safetensors, with their table."""
    facts = {"best": {"levels": 1, "size": 2, "tokens_per_second": 1.0}, "learning": {}}
    own = {
        "fingerprint": fingerprint(root),
        "latency": latency.fingerprint(table(root)),
        "device": files.device_name(),
        "dtype": "float32",
    }
    policy = networks.init(jax.random.key(0), CYCLE, WIDTHS)
    origin = own | (facts if best else {}) | origin
    saved.save(policy, root / "out" / "policy.safetensors", CYCLE, origin)


def without_content(root):
    policies(root)
    (root / "out" / "policy.safetensors").write_bytes(b"")


def trace(root, **origin):
    """A trace at the place where the pair's would lie."""
    found = synthetic.trace(CYCLE)
    traces.save(
        dataclasses.replace(found, provenance=found.provenance | origin),
        root / "out" / "traces" / "all.npz",
    )


def written(name, content):
    """A damage that writes a file."""

    def damage(root):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def question(*lines):
    return written("asked/mine.jsonl", "\n".join(lines) + "\n")


def nothing(root):
    pass


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
    "policies of another pair": (
        "generate",
        lambda root: policies(root, fingerprint="0ther"),
        (*SAY, *LTD),
        ["out/policy.safetensors", "0ther"],
    ),
    "policies of another device": (
        "generate",
        lambda root: policies(root, device=ELSEWHERE),
        (*SAY, *LTD),
        ["out/policy.safetensors", ELSEWHERE, "--allow-other-hardware"],
    ),
    "policies of another context": (
        "generate",
        policies,
        (*SAY, *LTD, "--context", "60"),
        ["out/policy.safetensors", "64", "--context"],
    ),
    "damaged policies": (
        "generate",
        without_content,
        (*SAY, *LTD),
        ["out/policy.safetensors", "damaged"],
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
    "output is a file": ("record", written("out", "mine"), RECORD, ["out", "--out"]),
    "output cannot be": ("record", nothing, (*RECORD, "--out", "/proc/none"), ["/proc/none"]),
    "no question folder": (
        "record",
        nothing,
        (*RECORD, "--questions", "no"),
        ["no", "*.jsonl"],
    ),
    "unknown task": (
        "record",
        nothing,
        (*RECORD, "--tasks", "chess"),
        ["'chess'", "choose from mine"],
    ),
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
    "broken line": ("record", question(QUESTION, "{"), RECORD, ["mine.jsonl", "line 2"]),
    "line without turns": (
        "record",
        question('{"question_id": 1, "category": ""}'),
        RECORD,
        ["mine.jsonl", "line 1", '"turns"'],
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
    "no questions": ("record", question(""), RECORD, ["mine.jsonl", "no questions"]),
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
    "question longer than the context": (
        "record",
        question(QUESTION.replace("one", "x" * 70)),
        RECORD,
        ["context holds 64"],
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
