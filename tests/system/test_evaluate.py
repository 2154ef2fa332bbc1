"""`experiments.evaluate` on a pair of one's own: the report, and answers as FastChat has them."""

import json

import jax
import numpy as np
import pytest

from experiments import evaluate, record_traces
from ltd_jax import provenance, report
from ltd_jax.config import PolicyConfig
from ltd_jax.models import tensor_files
from ltd_jax.policies import networks, saved
from ltd_jax.replay import latency
from tests.system import tiny_pair
from tests.system.refusing import refusal, run
from tests.system.tiny_pair import CYCLE, FLAGS

WIDTHS = PolicyConfig((4,), (4,), (4,), (4,))
QUESTIONS = (
    {"question_id": 9, "category": "math", "turns": ["one"]},
    {"question_id": 7, "category": "", "turns": ["two", "three"], "reference": ["x"]},
)
FASTCHAT = {"question_id", "answer_id", "model_id", "choices", "tstamp"}
PER_TURN = ("turns", "idxs", "new_tokens", "wall_time", "pre_len_times")
PER_CYCLE = ("pre_num", "dyn_tokens", "dyn_depths")


def save_policies(root, seed):
    """Random policies and a table of round numbers, as a training leaves them."""
    table = latency.additive(
        contexts=(16,),
        sizes=CYCLE.sizes,
        draft_seconds=np.array([[1e-3, 2e-3]]),
        verify_seconds=np.array([[1e-3, 2e-3]]),
        plain_seconds=np.array([1e-3]),
        decision_seconds=(1e-5, 1e-5),
        provenance={
            "fingerprint": tensor_files.fingerprint(root / "target", root / "draft"),
            "device": provenance.device_name(),
            "dtype": "float32",
        },
    )
    latency.save(table, root / "trained" / "latency.json")
    best = {"levels": 1, "size": 2, "tokens_per_second": 500.0}
    learning = {"decisions": 1, "seconds": 1.0, "positions_recorded": 1, "recording_seconds": 1.0}
    origin = table.provenance | {"latency": latency.fingerprint(table)}
    params = networks.init_learned(jax.random.key(seed), CYCLE, WIDTHS)
    found = origin | {"best": best, "learning": learning}
    saved.save(root / "trained" / "policies", params, CYCLE, WIDTHS, found)


@pytest.fixture(scope="module")
def evaluated(whole, tmp_path_factory):
    """A folder with policies, questions and an evaluation's arguments."""
    root = tmp_path_factory.mktemp("evaluated")
    for name in ("target", "draft"):
        (root / name).symlink_to(whole / name)
    (root / "asked").mkdir()
    (root / "asked" / "mine.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    save_policies(root, 0)
    return root


def asked(root):
    where = ("--target", root / "target", "--draft", root / "draft", "--out", root / "out")
    return (*where, "--questions", root / "asked", "--new-tokens", "6")


def evaluation(root):
    return (*asked(root), "--policies", root / "trained" / "policies")


def test_report_and_answers(evaluated, monkeypatch, capsys):
    out = run(evaluate, monkeypatch, capsys, *evaluation(evaluated), "--json").out
    found = json.loads(out)
    report.check(found)
    assert found["lossless"]["mismatches"] == 0 and found["pair"]["target"] == "target"
    assert found == json.loads((evaluated / "out" / "report.json").read_text())
    methods = {path.stem for path in (evaluated / "out" / "answers" / "mine").iterdir()}
    assert methods >= {"autoregressive", "eagle3", "best_constant", "ltd"}
    for method in methods:
        check_answers(evaluated / "out" / "answers" / "mine" / f"{method}.jsonl")
    again = run(evaluate, monkeypatch, capsys, *evaluation(evaluated), "--json").out
    assert json.loads(again)["methods"] == found["methods"]  # runs are kept


def check_answers(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["question_id"] for row in rows] == [7, 9]
    for row, question in zip(rows, reversed(QUESTIONS), strict=True):
        assert set(row) == FASTCHAT and len(row["answer_id"]) == 22 and row["tstamp"] > 1e9
        assert row["model_id"] == path.stem.replace("constant-", "constant:")
        (choice,) = row["choices"]
        assert choice["index"] == 0 and all(isinstance(turn, str) for turn in choice["turns"])
        assert {len(choice[name]) for name in PER_TURN} == {len(question["turns"])}
        assert all(seconds > 0 for seconds in choice["wall_time"])
        cycles = sum(choice["idxs"]) + len(choice["idxs"])
        assert {len(choice[name]) for name in PER_CYCLE} == {cycles}
        assert sum(choice["pre_num"]) + len(choice["idxs"]) == sum(choice["new_tokens"])


def test_what_a_later_run_does_not_trust(evaluated, monkeypatch, capsys):
    path = evaluated / "out" / "runs.jsonl"
    whole, answers = path.read_text(), next((evaluated / "out" / "traces").glob("answers-*.json"))
    refused = lambda: refusal(evaluate, monkeypatch, capsys, *evaluation(evaluated))
    path.write_text("\n".join(whole.splitlines()[:-1]))
    assert "runs.jsonl is damaged (a prompt lacks a method)" in refused()
    path.write_text(whole[:-40])
    assert "runs.jsonl is damaged" in refused()
    path.write_text("")
    assert "runs.jsonl is damaged" in refused()
    path.write_text(whole)
    save_policies(evaluated, 1)
    assert "runs.jsonl was made with methods" in refused()
    kept = answers.read_text()
    for content in ("[1]", '["one"', "[]"):
        answers.write_text(content)
        assert answers.name in refused()
    answers.write_text(kept)


def test_a_trace_is_counted(evaluated, monkeypatch, capsys):
    arguments = (*asked(evaluated), "--split", "all", *FLAGS, "--json")
    found = json.loads(run(record_traces, monkeypatch, capsys, *arguments).out)
    assert found["texts"] == 3 and found["positions"] == 3 * 5
    assert found["trace"] == str(evaluated / "out" / "traces" / "all.npz")
    assert found["provenance"]["fingerprint"] == tensor_files.fingerprint(
        evaluated / "target", evaluated / "draft"
    )
    other = ("--cycle.beam-width", tiny_pair.CYCLE.beam_width + 1)
    sentence = refusal(record_traces, monkeypatch, capsys, *arguments[:-1], *other)
    assert "all.npz was made with levels and beam width (2, 2), not (2, 3)" in sentence
