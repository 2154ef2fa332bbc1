"""Answer files: what FastChat's judges and the speed scripts of EAGLE and LTD read in them."""

import json

import numpy as np
import pytest

from experiments.studies import answers
from ltd_jax.decoding.benchmark import Run
from ltd_jax.replay.record import Prompt
from ltd_jax.text import Question
from ltd_jax.workflow import PromptSet, PromptTurn
from tests.system import tiny_pair

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
    turns = [PromptTurn(Prompt(blank, task), question, turn) for question, turn, task in asked]
    runs = [
        run(method, prompt, task, text, committed)
        for method in METHODS
        for prompt, task, text, committed in (
            (2, 0, "second ", (4, 2)),
            (0, 0, " first", (5,)),
            (1, 0, "short<|end|>", (3, 2)),
            (3, 1, "other", (1, 1, 2)),
        )
    ]
    paths = answers.write(
        tmp_path, PromptSet(turns, ("talk", "other")), runs, tiny_pair.tokenizer()
    )
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


def test_what_speed_scripts_read(folder):
    _, talk = rows_of(folder / "talk" / "constant-levels=1.jsonl")
    choice = talk["choices"][0]
    assert choice["new_tokens"] == [6, 7] and choice["wall_time"] == [2.0, 2.0]
    assert choice["idxs"] == [0, 1] and choice["pre_len_times"] == [0.0, 0.0]
    assert choice["pre_num"] == [5, 4, 2]
    assert choice["dyn_tokens"] == [6, 6, 6] and choice["dyn_depths"] == [2, 2, 2]
