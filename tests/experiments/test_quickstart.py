"""The quickstart in its smallest size, as a user starts it; and started again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import command, evaluate, profile_latency, record_traces
from experiments.report import schema
from ltd_jax import text as texts

ROOT = Path(__file__).parents[2]


def quickstart(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.quickstart", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    done = quickstart("--smoke", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_report_is_whole_and_lossless(out):
    found = json.loads((out / "report.json").read_text())
    schema.check(found)
    assert found["lossless"]["mismatches"] == 0
    assert found["lossless"]["tokens_compared"] > 500
    assert {row["method"] for row in found["methods"]} == {
        "autoregressive",
        "eagle3",
        "best_constant",
        "ltd",
    }
    assert len(found["replay_vs_live"]) >= 5
    assert (out / "report.html").stat().st_size > 10_000


def test_a_second_start_keeps_what_is_done(out):
    before = {path: path.stat().st_mtime_ns for path in (out / "traces").glob("*.npz")}
    runs = (out / "runs.jsonl").read_text()
    assert quickstart("--smoke", "--out", str(out)).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "traces").glob("*.npz")}
    assert (out / "runs.jsonl").read_text() == runs


def said(capsys, monkeypatch, module, *arguments):
    """The JSON object that a command prints about what the quickstart left."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments), "--json"])
    command.run(module.main)
    return json.loads(capsys.readouterr().out)


def test_the_other_commands_go_on_from_there(out, capsys, monkeypatch):
    questions = ("--out", out, "--split", "test", "--prompts", 2, "--new-tokens", 24)
    cycle = ("--cycle.max-levels", 2, "--cycle.sizes", 0, 2, "--cycle.short-catch-ups")
    before = json.loads((out / "report.json").read_text())
    found = said(capsys, monkeypatch, evaluate, *questions, "--policies", out / "policies")
    assert found["methods"] == before["methods"] and found == json.loads(
        (out / "report.json").read_text()
    )
    for task in texts.TASKS:
        written = {path.stem for path in (out / "answers" / task).iterdir()}
        assert written > {"autoregressive", "eagle3", "best_constant", "ltd"}
    trace = said(capsys, monkeypatch, record_traces, *questions, *cycle)
    assert trace["texts"] == 2 * len(texts.TASKS) and trace["positions"] == trace["texts"] * 23
    table = said(capsys, monkeypatch, profile_latency, "--out", out, *cycle)
    assert table == json.loads((out / "latency.json").read_text())


def test_other_settings_in_the_same_folder_are_refused(out):
    done = quickstart("--smoke", "--out", str(out), "--learning.seed", "7")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "seed" in last


def test_an_output_that_cannot_be_written():
    done = quickstart("--smoke", "--out", "/proc/nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: Cannot write to /proc/nowhere")
    assert "Traceback" not in done.stderr
