"""The stages: questions become prompts, and what was trained or measured is read back."""

import dataclasses
import json
import warnings

import jax
import numpy as np
import pytest

from ltd_jax import questions as asked
from ltd_jax import text as texts
from ltd_jax import workflow
from ltd_jax.baselines import train
from ltd_jax.baselines.train import HeadConfig
from ltd_jax.config import PolicyConfig
from ltd_jax.decoding import generate
from ltd_jax.files import UserError
from ltd_jax.models import pair as pairs
from ltd_jax.questions import QuestionConfig
from ltd_jax.replay import record
from ltd_jax.workflow import StageConfig
from tests.cycle import varieties
from tests.replay import synthetic

NEW = 12


@pytest.fixture(scope="module")
def pair():
    return pairs.load()


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
    steps = generate.generate_plain(pair, prompt_T, NEW)
    return [token for step in steps for token in step.tokens]


def load(pair, folder, split="all", **questions):
    """The prompts of some questions; answers between turns go to a folder."""
    return workflow.load_prompts(pair, StageConfig(folder, QuestionConfig(**questions)), split)


def test_second_turns_see_the_first_answer(pair, folder, tmp_path):
    asking = load(pair, tmp_path / "out", questions=folder, tasks=("talk",), new_tokens=NEW)
    assert [(one.question.question_id, one.turn) for one in asking.turns] == [
        (7, 0), (8, 0), (9, 0), (7, 1), (9, 1),
    ]  # fmt: skip
    tokenizer = texts.load_tokenizer(pair.folder)
    text = lambda one: tokenizer.decode(one.prompt.token.tolist())
    for first, second in ((0, 3), (2, 4)):
        answer = tokenizer.decode(plain(pair, asking.turns[first].prompt.token)).strip()
        start, later = asking.turns[first].question.turns
        assert text(asking.turns[second]) == f"{start}\n\n{answer}\n\n{later}"


def test_a_system_message_stands_in_front_of_every_turn(pair, folder, tmp_path):
    say = lambda role, content: {"role": role, "content": content}
    talk = [say("system", "# Python"), say("user", "import os"), say("assistant", "no")]
    (folder / "talk.jsonl").write_text(json.dumps({"messages": [*talk, say("user", "x = 1")]}))
    asking = load(pair, tmp_path / "out", questions=folder, tasks=("talk",), new_tokens=NEW)
    first, second = (pair.decode(one.prompt.token) for one in asking.turns)
    assert first == "# Python\n\nimport os"
    assert second.startswith(f"{first}\n\n") and second.endswith("\n\nx = 1")


def test_answers_are_written_once(pair, folder, tmp_path, monkeypatch):
    talk = {"questions": folder, "tasks": ("talk",), "new_tokens": NEW}
    before = load(pair, tmp_path / "out", **talk)
    monkeypatch.delattr(record, "texts_of")
    again = load(pair, tmp_path / "out", **talk)
    assert record.digest(before.prompts) == record.digest(again.prompts)
    (path,) = (tmp_path / "out" / "traces").glob("answers-*.json")
    for content in ("{", "[1, 2]", '["one"]', "{}"):
        path.write_text(content)
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            load(pair, tmp_path / "out", **talk)


def test_files_without_splits_are_split_by_question(folder):
    config = QuestionConfig(folder, tasks=("count",), prompts=100)
    of_split = lambda split: asked.load_question_set(config, split)["count"]
    parts = [of_split(split) for split in ("train", "validation", "test")]
    assert sorted(q.question_id for part in parts for q in part) == list(range(7, 47))
    assert 20 < len(parts[0]) < 36
    assert of_split("all") == list(asked.load_questions(folder / "count.jsonl"))
    alone = asked.load_question_set(QuestionConfig(folder / "count.jsonl", prompts=100), "test")
    assert alone == {"count": parts[2]}


@pytest.mark.parametrize("count", [3, 4, 7, 14, 40, 300])
def test_no_split_of_a_file_is_empty(count):
    for start in range(0, 1000, 100):
        questions = [asked.Question(start + n, "", ("a",), "mine") for n in range(count)]
        splits = asked.split_of(questions)
        assert set(splits.values()) == {"train", "validation", "test"}
        assert splits == asked.split_of(questions[::-1])  # in whatever order they are read
        if count == 300:  # enough for the hash alone, which knows one question only
            more = [*questions, asked.Question(5000, "", ("a",), "mine")]
            assert splits.items() < asked.split_of(more).items()


def test_categories_without_a_question_in_a_split_are_named(folder):
    rows = [
        {"question_id": n, "category": "many" if n else "one", "turns": ["a"]} for n in range(40)
    ]
    (folder / "mixed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = QuestionConfig(folder, tasks=("mixed",), by_category=True)
    found = asked.split_of(asked.load_questions(folder / "mixed.jsonl"))[0]
    elsewhere = next(split for split in ("train", "test") if split != found)
    with pytest.warns(UserWarning, match=f"No question of mixed-one falls into .* {elsewhere};"):
        assert asked.load_question_set(config, elsewhere).keys() == {"mixed-many"}


def test_folders_of_splits_are_taken_as_they_are(pair, folder, tmp_path):
    (folder / "test").mkdir()
    (folder / "count.jsonl").rename(folder / "test" / "mine.jsonl")
    asking = load(pair, tmp_path, "test", questions=folder, prompts=5)
    assert asking.tasks == ("mine",) and len(asking.turns) == 5


def test_a_task_for_every_category(folder):
    subjects = ["logic", "law & order", "logic", ""]
    rows = [
        {"question_id": index, "category": subject, "turns": ["a", "b"]}
        for index, subject in enumerate(subjects)
    ]
    (folder / "mmlu.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = QuestionConfig(folder, tasks=("mmlu",), by_category=True, turns=1)
    found = asked.load_question_set(config, "all")
    ids = {task: [question.question_id for question in found[task]] for task in found}
    assert ids == {"mmlu-logic": [0, 2], "mmlu-law_order": [1], "mmlu": [3]}
    assert {question.turns for task in found.values() for question in task} == {("a",)}
    whole = asked.load_question_set(QuestionConfig(folder, tasks=("mmlu",)), "all")
    assert [len(task) for task in whole.values()] == [4]
    assert sorted(q.question_id for task in found.values() for q in task) == [0, 1, 2, 3]
    for split in ("train", "validation", "test"):  # the same with and without
        both = (dataclasses.replace(config, by_category=by) for by in (True, False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of categories that have none
            sets = [asked.load_question_set(one, split).values() for one in both]
        ids = [sorted(q.question_id for task in tasks for q in task) for tasks in sets]
        assert ids[0] == ids[1] != []


@pytest.mark.parametrize("wrong", [{"prompts": 0}, {"turns": 0}, {"new_tokens": 1}])
def test_counts_that_cannot_be(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is {wrong[name]} but must be at least"):
        QuestionConfig(**wrong)


def test_the_embedded_questions(pair, tmp_path):
    asking = load(pair, tmp_path, "validation", prompts=2)
    assert asking.tasks == asked.TASKS
    assert [prompt.task for prompt in asking.prompts] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("questions", "split", "words"),
    [
        ({"tasks": ("chess",)}, "all", "no task 'chess' in .*; choose from count, talk"),
        ({"questions": None}, "all", "come in splits"),
        ({"new_tokens": 400}, "all", "None of the 27 questions fits the context of 384 .* 400 new"),
        ({"tasks": ("few",)}, "train", "few.jsonl has too few questions .2. for a split train"),
    ],
)
def test_questions_that_are_refused(pair, folder, tmp_path, questions, split, words):
    rows = [{"question_id": number, "category": "", "turns": ["a"]} for number in range(2)]
    if "few" in words:
        (folder / "few.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=words):
        load(pair, tmp_path / "out", split, **({"questions": folder} | questions))


def test_turns_that_do_not_fit_are_skipped_and_named(pair, folder, tmp_path):
    rows = [
        {"question_id": 1, "category": "", "turns": ["import os", "x = 1\n" * 200]},
        {"question_id": 2, "category": "", "turns": ["y = 2\n" * 200, "import os"]},
        {"question_id": 3, "category": "", "turns": ["import sys"]},
    ]
    (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match="2 of 3 questions are skipped .* the context of 384"):
        asking = load(pair, tmp_path / "out", questions=folder, tasks=("talk",), new_tokens=NEW)
    assert [(one.question.question_id, one.turn) for one in asking.turns] == [(1, 0), (3, 0)]
    first, second = asking.skipped
    assert first.startswith("talk.jsonl, line 1: ") and first.endswith(" tokens from turn 2 on")
    assert second.startswith("talk.jsonl, line 2: ") and second.endswith(" tokens")


def test_a_task_without_a_question_that_fits_is_left_out(pair, folder, tmp_path):
    long = {"question_id": 1, "category": "", "turns": ["y = 2\n" * 200]}
    (folder / "a_first.jsonl").write_text(json.dumps(long))
    with pytest.warns(UserWarning, match="1 of 5 questions are skipped"):
        asking = load(pair, tmp_path / "out", questions=folder, new_tokens=NEW, turns=1, prompts=2)
    assert asking.tasks == ("count", "talk")
    assert [prompt.task for prompt in asking.prompts] == [0, 0, 1, 1]


def test_an_empty_folder(pair, tmp_path):
    with pytest.raises(UserError, match="holds no question files"):
        load(pair, tmp_path, questions=tmp_path)


SMALL = HeadConfig(width=4, epochs=1, learning_rate=1e-3)


def test_classifiers_are_read_back_also_of_a_draft_with_a_wider_output(tmp_path, monkeypatch):
    pair = varieties.pair("griffin")
    width = 2 * pair.config.draft.hidden_size  # of a Griffin draft's output
    trace = synthetic.trace(pair.config.cycle, text_tokens=(30, 30))
    hidden = np.random.default_rng(0).normal(size=(*trace.parent.shape, width))
    trace = dataclasses.replace(trace, hidden=hidden.astype(np.float16))
    monkeypatch.setattr(workflow, "load_or_record", lambda *_, **__: trace)
    monkeypatch.setattr(train, "head_config", lambda name, inputs: SMALL)
    path, shares = tmp_path / "classifiers.safetensors", []
    trained = workflow.train_classifiers(
        pair, StageConfig(tmp_path), path, progress=lambda stage, share: shares.append(share)
    )
    assert set(trained.networks) == {"disco", "specdec", "c2t"} and trained.path == path
    assert width in {leaf.shape[0] for leaf in jax.tree.leaves(trained.networks["specdec"])}
    assert shares[-1] == 1


@pytest.mark.parametrize("record", [{"size_actor": [99]}, dataclasses.asdict(PolicyConfig((99,)))])
def test_a_table_timed_with_other_policies_is_refused(tmp_path, record):
    pair = varieties.pair("griffin")
    table = synthetic.table(pair.config.cycle)
    table.provenance.update(fingerprint=pair.fingerprint, device=pair.device, policy=record)
    path = tmp_path / "latency.json"
    with pytest.raises(UserError, match="policies of other widths"):
        workflow.require_table(table, path, pair, PolicyConfig())
