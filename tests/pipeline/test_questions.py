"""Questions become prompts: splits, turns with the answers between them, clear sentences."""

import json

import pytest

from ltd_jax import text as texts
from ltd_jax import workflow
from ltd_jax.decoding import generate
from ltd_jax.files import UserError
from ltd_jax.models import pair as pairs
from ltd_jax.presets import EMBEDDED_CYCLE
from ltd_jax.workflow import QuestionFlags

NEW = 12


@pytest.fixture(scope="module")
def pair():
    return pairs.load(EMBEDDED_CYCLE)


@pytest.fixture
def folder(tmp_path):
    """Two tasks, one with second turns."""
    talk = [["import os", "import sys"], ["def f(x):"], ["class A:", "    def b(self):"]]
    count = [[f"x = {number}"] for number in range(40)]
    for name, turns in (("talk", talk), ("count", count)):
        rows = [
            {"question_id": 7 + index, "category": "", "turns": turn}
            for index, turn in enumerate(turns)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def plain(pair, prompt_T):
    bursts = generate.generate_plain(pair, prompt_T, NEW)
    return [token for burst in bursts for token in burst.tokens]


def test_second_turns_see_the_first_answer(pair, folder, tmp_path):
    flags = QuestionFlags(folder, tasks=("talk",), new_tokens=NEW)
    asking = workflow.load_prompts(pair, flags, "all", tmp_path / "out")
    assert [(one.question.question_id, one.turn) for one in asking.turns] == [
        (7, 0), (8, 0), (9, 0), (7, 1), (9, 1),
    ]  # fmt: skip
    tokenizer = texts.load_tokenizer(pair.folder)
    text = lambda one: tokenizer.decode(one.prompt.token.tolist())
    for first, second in ((0, 3), (2, 4)):
        answer = tokenizer.decode(plain(pair, asking.turns[first].prompt.token)).strip()
        start, later = asking.turns[first].question.turns
        assert text(asking.turns[second]) == f"{start}\n\n{answer}\n\n{later}"


def test_answers_are_written_once(pair, folder, tmp_path, monkeypatch):
    flags = QuestionFlags(folder, tasks=("talk",), new_tokens=NEW)
    before = workflow.load_prompts(pair, flags, "all", tmp_path / "out")
    monkeypatch.delattr(workflow.record, "texts_of")
    after = workflow.load_prompts(pair, flags, "all", tmp_path / "out")
    assert workflow.digest_of(before.prompts) == workflow.digest_of(after.prompts)
    (path,) = (tmp_path / "out").glob("answers-*.json")
    for content in ("{", "[1, 2]", '["one"]', "{}"):
        path.write_text(content)
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            workflow.load_prompts(pair, flags, "all", tmp_path / "out")


def test_files_without_splits_are_split_by_question(folder):
    flags = QuestionFlags(folder, tasks=("count",), prompts=100)
    found = texts.load_questions(folder / "count.jsonl")
    parts = [workflow.of_split(found, flags, split) for split in ("train", "validation", "test")]
    assert sorted(q.question_id for part in parts for q in part) == list(range(7, 47))
    assert 20 < len(parts[0]) < 36
    assert workflow.of_split(found, flags, "all") == found


def test_folders_of_splits_are_taken_as_they_are(pair, folder, tmp_path):
    (folder / "test").mkdir()
    (folder / "count.jsonl").rename(folder / "test" / "mine.jsonl")
    asking = workflow.load_prompts(pair, QuestionFlags(folder, prompts=5), "test", tmp_path)
    assert asking.tasks == ("mine",) and len(asking.turns) == 5


def test_a_task_for_every_category(folder):
    subjects = ["logic", "law & order", "logic", ""]
    rows = [
        {"question_id": index, "category": subject, "turns": ["a", "b"]}
        for index, subject in enumerate(subjects)
    ]
    (folder / "mmlu.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = QuestionFlags(folder, tasks=("mmlu",), by_category=True, turns=1)
    found = workflow.questions_of(flags, "all")
    ids = {task: [question.question_id for question in found[task]] for task in found}
    assert ids == {"mmlu-logic": [0, 2], "mmlu-law_order": [1], "mmlu": [3]}
    assert {question.turns for task in found.values() for question in task} == {("a",)}
    whole = workflow.questions_of(QuestionFlags(folder, tasks=("mmlu",)), "all")
    assert [len(task) for task in whole.values()] == [4]
    splits = lambda found: {q.question_id: workflow.hashed_split(q) for t in found for q in t}
    assert splits(found.values()) == splits(whole.values())  # the same with and without


@pytest.mark.parametrize("wrong", [{"prompts": 0}, {"turns": 0}, {"new_tokens": 1}])
def test_counts_that_cannot_be(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is {wrong[name]} but must be at least"):
        QuestionFlags(**wrong)


def test_the_embedded_questions(pair, tmp_path):
    asking = workflow.load_prompts(pair, QuestionFlags(prompts=2), "validation", tmp_path)
    assert asking.tasks == texts.TASKS
    assert [prompt.task for prompt in asking.prompts] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("flags", "split", "words"),
    [
        ({"tasks": ("chess",)}, "all", "no task 'chess' in .*; choose from count, talk"),
        ({"questions": None}, "all", "come in splits"),
        ({"new_tokens": 400}, "all", "the context holds 384"),
        ({"tasks": ("talk",)}, "validation", "None of the 3 questions of talk"),
    ],
)
def test_refusals(pair, folder, tmp_path, flags, split, words):
    if split == "validation":  # three questions that all fall into train
        rows = [{"question_id": 7, "category": "", "turns": ["a"]}]
        found = workflow.hashed_split(texts.Question(7, "", ("a",), "talk"))
        split = next(name for name in ("train", "validation", "test") if name != found)
        (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
        words = "None of the 1 questions of talk falls into the split"
    asked = QuestionFlags(**({"questions": folder} | flags))
    with pytest.raises(UserError, match=words):
        workflow.load_prompts(pair, asked, split, tmp_path / "out")


def test_an_empty_folder(pair, tmp_path):
    with pytest.raises(UserError, match="holds no question files"):
        workflow.load_prompts(pair, QuestionFlags(tmp_path), "all", tmp_path)
