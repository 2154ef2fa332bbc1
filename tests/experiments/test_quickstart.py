"""The quickstart in its smallest size, as a user starts it; and started again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ltd_jax import cli

ROOT = Path(__file__).parents[2]
METHODS = {"autoregressive", "eagle3", "best_constant", "ltd"}
FIELDS = {
    *("schema", "environment", "pair", "lossless", "methods", "without_repetition"),
    *("ltd_over_best_constant", "replay_vs_live", "optimum", "learning", "skipped"),
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.quickstart", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    done = run("--smoke", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_report_is_whole_and_lossless(out):
    report = json.loads((out / "report.json").read_text())
    assert set(report) == FIELDS
    assert report["lossless"]["mismatches"] == 0
    methods, tasks, new_tokens = 4, 4, 24  # but plain decoding; one prompt of every task
    assert report["lossless"]["tokens_compared"] == methods * tasks * new_tokens
    assert {row["method"] for row in report["methods"]} == METHODS
    assert len(report["replay_vs_live"]) >= 5
    assert (out / "report.html").stat().st_size > 10_000


def test_a_second_start_keeps_what_is_done(out):
    before = {path: path.stat().st_mtime_ns for path in (out / "traces").glob("*.npz")}
    runs = (out / "runs.jsonl").read_text()
    assert run("--smoke", "--out", str(out)).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "traces").glob("*.npz")}
    assert (out / "runs.jsonl").read_text() == runs


def printed(capsys, monkeypatch, *arguments):
    """The JSON object that `ltd` prints about what the quickstart left."""
    monkeypatch.setattr(sys, "argv", ["ltd", *map(str, arguments), "--json"])
    cli.main()
    return json.loads(capsys.readouterr().out)


def test_the_other_commands_go_on_from_there(out, capsys, monkeypatch):
    questions = ("--out", out, "--prompts", 1, "--new-tokens", 24)
    cycle = ("--max-levels", 2, "--sizes", 0, 2, "--short-catch-ups")
    trace = printed(capsys, monkeypatch, "record", *questions, "--split", "test", *cycle)
    assert trace["texts"] == 4 and trace["positions"] == trace["texts"] * 23
    table = printed(capsys, monkeypatch, "profile", "--out", out, *cycle)
    assert table == json.loads((out / "latency.json").read_text())


def test_other_settings_in_the_same_folder_are_refused(out):
    done = run("--smoke", "--out", str(out), "--learning.seed", "7")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "seed" in last


def test_an_output_that_cannot_be_written():
    done = run("--smoke", "--out", "/proc/nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: Cannot write to /proc/nowhere")
    assert "Traceback" not in done.stderr
