"""Runs as files: which of an earlier comparison are trusted, and what other programs read."""

import dataclasses
import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.decoding import benchmark, runs
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.decoding.runs import Turn
from ltd_jax.policies.policy import Constant
from ltd_jax.questions import Question
from ltd_jax.replay.record import Prompt
from tests.cycle import tiny
from tests.models.refusal import refusal
from tests.system import tiny_pair

PROMPTS = [Prompt(np.array([token], np.int32), 0) for token in (3, 4)]


def compared(levels=2):
    return [Method("autoregressive"), Method("fixed", Constant(levels, 6))]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A file with the runs of both prompts, a function that compares again, and the pair."""

    def decode(pair, method, prompt, index, new_tokens):
        return Run(method.name, index, 0, (1, 2), 0.1, 0.2, (0,), (0,), (1,))

    monkeypatch.setattr(benchmark, "decode", decode)
    pair, path = tiny.pair(0), tmp_path / "runs.jsonl"

    def again(methods=None, pair=pair, prompts=PROMPTS, new_tokens=6):
        return runs.load_or_decode(pair, methods or compared(), prompts, new_tokens, path)

    again()
    return path, again, pair


def test_runs_are_kept(measured, monkeypatch):
    path, again, _ = measured
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    monkeypatch.delattr(benchmark, "decode")  # nothing is decoded again
    assert sorted(run.prompt for run in again()) == [0, 0, 1, 1]


def test_an_interrupted_comparison_goes_on(measured):
    path, again, _ = measured
    path.write_text("\n".join(path.read_text().splitlines()[:3]))
    assert sorted(run.prompt for run in again()) == [0, 0, 1, 1]
    assert len(path.read_text().splitlines()) == 5


def test_runs_of_another_comparison_are_refused(measured):
    path, again, pair = measured
    other = {
        "pair": lambda: again(pair=dataclasses.replace(pair, fingerprint="other")),
        "other prompts": lambda: again(prompts=PROMPTS[::-1]),
        "other new tokens": lambda: again(new_tokens=7),
        "other methods": lambda: again(compared(levels=3)),
        "other methods ": lambda: again(compared()[:1]),
    }
    for words, action in other.items():
        assert f"runs.jsonl was made with {words.strip()}" in refusal(action)
    half = dataclasses.replace(pair, dtype=jnp.bfloat16)
    assert "in float32, not" in refusal(lambda: again(pair=half))


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:-1],  # a prompt lacks a method
        lambda lines: [*lines[:-1], lines[-1][:-9]],
        lambda lines: [],
        lambda lines: ["[]", *lines[1:]],
        lambda lines: [lines[0], json.dumps({"method": "fixed"})],
    ],
)
def test_damaged_runs_are_refused(measured, damage):
    path, again, _ = measured
    path.write_text("\n".join(damage(path.read_text().splitlines())))
    assert "runs.jsonl is damaged" in refusal(again)


FASTCHAT = ["question_id", "answer_id", "model_id", "choices", "tstamp"]  # in its order
METHODS = ("autoregressive", "constant:levels=1")
TALK = Question(9, "", ("one", "two"), "talk")
SHORT = Question(7, "", ("three",), "talk")
OTHER = Question(9, "", ("four",), "other")


def run(method, prompt, task, text, committed):
    """A run that says a text; its first token comes from prefill."""
    tokens = tuple(tiny_pair.tokenizer().encode(text).ids)
    assert len(tokens) == 1 + sum(committed)
    levels, sizes = (2,) * len(committed), (6,) * len(committed)
    return Run(method, prompt, task, tokens, 0.5, 1.5, levels, sizes, committed)


@pytest.fixture
def folder(tmp_path):
    blank = np.zeros(1, np.int32)
    asked = [(TALK, 0, 0), (SHORT, 0, 0), (TALK, 1, 0), (OTHER, 0, 1)]
    turns = [Turn(Prompt(blank, task), question, turn) for question, turn, task in asked]
    decoded = [
        run(method, prompt, task, text, committed)
        for method in METHODS
        for prompt, task, text, committed in (
            (2, 0, "second ", (4, 2)),
            (0, 0, " first", (5,)),
            (1, 0, "short<|end|>", (3, 2)),
            (3, 1, "other", (1, 1, 2)),
        )
    ]
    pair = SimpleNamespace(decode=lambda tokens: tiny_pair.tokenizer().decode(list(tokens)))
    paths = runs.write_answers(tmp_path, pair, turns, ("talk", "other"), decoded)
    assert all(path.exists() for path in paths) and len(paths) == 4
    return tmp_path


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_for_every_task_and_method(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.jsonl")}
    files = ("autoregressive.jsonl", "constant-levels=1.jsonl")
    assert names == {f"{task}/{file}" for task in ("talk", "other") for file in files}


def test_what_judges_read(folder):
    short, talk = rows_of(folder / "talk" / "constant-levels=1.jsonl")
    for row in (short, talk):
        assert list(row) == FASTCHAT and row["model_id"] == "constant:levels=1"
        assert len(row["answer_id"]) == 22 and row["tstamp"] > 1e9 and len(row["choices"]) == 1
    assert short["question_id"] == 7 and short["choices"][0]["turns"] == ["short"]
    assert talk["question_id"] == 9 and talk["choices"][0]["turns"] == ["first", "second"]
    assert talk["choices"][0]["index"] == 0 and talk["answer_id"] != short["answer_id"]


def test_questions_with_ids_of_any_kind_are_sorted(tmp_path):
    ids = ("task/10", 12, "task/2", 9, "9")
    asked = [Question(one, "", ("a",), "mixed") for one in ids]
    turns = [Turn(Prompt(np.zeros(1, np.int32), 0), one, 0) for one in asked]
    decoded = [run("eagle3", prompt, 0, "ok", (1,)) for prompt in range(len(ids))]
    pair = SimpleNamespace(decode=lambda tokens: tiny_pair.tokenizer().decode(list(tokens)))
    (path,) = runs.write_answers(tmp_path, pair, turns, ("mixed",), decoded)
    assert [row["question_id"] for row in rows_of(path)] == [9, 12, "9", "task/10", "task/2"]


def test_what_speed_scripts_read(folder):
    _, talk = rows_of(folder / "talk" / "constant-levels=1.jsonl")
    choice = talk["choices"][0]
    assert choice["new_tokens"] == [6, 7] and choice["wall_time"] == [2.0, 2.0]
    assert choice["idxs"] == [0, 1] and choice["pre_len_times"] == [0.0, 0.0]
    assert choice["pre_num"] == [5, 4, 2]
    assert choice["dyn_tokens"] == [6, 6, 6] and choice["dyn_depths"] == [2, 2, 2]
