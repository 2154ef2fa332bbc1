"""The comparison with transformers: where answers part, and what is said without transformers."""

import dataclasses
import json
import sys

import pytest

from experiments.proofs import check_transformers
from experiments.proofs.check_transformers import Row
from ltd_jax import files
from ltd_jax.files import UserError
from tests.system import tiny_pair

SAME = Row(
    "chat", 9, 20, 1e-4, 3.0, plain_differs=False, speculative_differs=None, are_near_ties=False
)


@pytest.mark.parametrize(
    ("expected", "found", "tokens"),
    [([1, 2, 3], [1, 2, 3], 3), ([1, 2, 3], [1, 5, 3], 1), ([1, 2], [1, 2, 3], 2), ([], [4], 0)],
)
def test_where_answers_part(expected, found, tokens):
    assert check_transformers.first_difference(expected, found) == tokens


def test_near_ties_are_counted_apart():
    tie = dataclasses.replace(SAME, speculative_differs=True, are_near_ties=True, new_tokens=7)
    wrong = dataclasses.replace(SAME, plain_differs=True, logit_error=0.5)
    unread = dataclasses.replace(SAME, are_near_ties=True)  # that no answer parted at
    found = check_transformers.summarise([SAME, tie, wrong, unread])
    assert (found["answers"], found["tokens"]) == (4, 67)
    assert (found["different"], found["near_ties"], found["logit_error"]) == (2, 1, 0.5)
    assert check_transformers.is_wrong(found)
    assert not check_transformers.is_wrong(check_transformers.summarise([SAME, tie]))
    far = dataclasses.replace(SAME, logit_error=0.01)
    assert check_transformers.is_wrong(check_transformers.summarise([SAME, far]))


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_what_is_not_installed_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, "torch", sys)
    monkeypatch.setitem(sys.modules, "transformers", sys)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"{missing} is not installed.*pip install torch"):
        check_transformers.load_reference(files.ASSETS / "target")


def test_a_folder_says_what_transformers_says(root, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    questions = tmp_path / "questions" / "test"
    questions.mkdir(parents=True)
    (questions / "mine.jsonl").write_text(tiny_pair.QUESTION)
    folders = ("--target", root / "target", "--draft", root / "draft")
    asked = (
        "--questions",
        questions.parent,
        "--new-tokens",
        20,
        "--prompts",
        1,
        "--out",
        tmp_path / "out",
    )
    flags = [str(flag) for flag in (*folders, *asked, *tiny_pair.FLAGS)]
    monkeypatch.setattr(sys, "argv", ["check_transformers", *flags])
    with pytest.raises(SystemExit) as ended:
        check_transformers.main()
    assert ended.value.code == 0
    found = json.loads((tmp_path / "out" / "transformers.json").read_text())
    assert found["different"] == 0 and found["tokens"] > 0
    assert found["logit_error"] < 1e-3 * found["logit_spread"]
