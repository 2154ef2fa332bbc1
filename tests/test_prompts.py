"""Question files and tokenizers: what is shipped loads, what is broken gets one clear sentence."""

import json

import pytest

from experiments.pretrain import corpus, questions
from ltd_jax import files
from ltd_jax import text as texts
from ltd_jax.files import UserError

GOOD = '{"question_id": 1, "category": "a", "turns": ["one", "two"], "reference": ["x"]}'


@pytest.fixture(scope="module")
def tokenizer():
    return texts.load_tokenizer(files.ASSETS / "target")


def test_tasks_are_the_kinds_of_the_corpus():
    assert texts.TASKS == corpus.KINDS


@pytest.mark.parametrize("task", texts.TASKS)
def test_shipped_questions(task, tokenizer):
    categories = {}
    for split in corpus.SPLITS:
        found = texts.load_question_set(texts.QuestionConfig(prompts=99), split)[task]
        assert len(found) == questions.COUNTS[split]
        for question in found:
            length = len(tokenizer.encode("\n\n".join(question.turns)).ids)
            assert questions.MIN_TOKENS <= length <= questions.MAX_TOKENS
            assert question.task == task
        categories[split] = {question.category for question in found}
    assert not categories["train"] & categories["validation"]
    assert not categories["test"] & (categories["train"] | categories["validation"])


def test_load_questions_keeps_order_and_turns(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(GOOD + "\n\n" + GOOD.replace("1", "0") + "\n")
    first, second = texts.load_questions(path)
    assert first == texts.Question(1, "a", ("one", "two"), "mine")
    assert (first.place, second.place) == ("mine.jsonl, line 1", "mine.jsonl, line 3")
    assert second.question_id == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # FastChat's and EAGLE's rows, Spec-Bench's and LTD's
        (
            '{"question_id": 81, "category": "writing", "turns": ["a", "b"], "reference": []}',
            (81, "writing", ("a", "b")),
        ),
        (
            '{"question_id": 241, "category": "summarization", "turns": ["a"], "reference": "x"}',
            (241, "summarization", ("a",)),
        ),
        ('{"question_id": 0, "category": "", "turns": ["a"]}', (0, "", ("a",))),
        # MMLU's
        (
            '{"question": " Why? ", "subject": "logic", "choices": ["x", "y", 3, "z"]}',
            (1, "logic", ("Why?\nA. x\nB. y\nC. 3\nD. z\nAnswer:",)),
        ),
        ('{"question": "a", "choices": ["x", "y"]}', (1, "", ("a\nA. x\nB. y\nAnswer:",))),
    ],
)
def test_public_rows(tmp_path, line, expected):
    path = tmp_path / "mine.jsonl"
    path.write_text(line)
    assert texts.load_questions(path) == [texts.Question(*expected, "mine")]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"choices": ["a", "b"]}', '"question" must be a string'),
        ('{"question": "a", "choices": ["b"]}', "a list of 2 to 26 choices"),
        ('{"question_id": 2, ', "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"question_id": 2, "category": "a"}', '"turns" is missing; a line looks like {"ques'),
        ('{"turns": ["a"]}', '"question_id" and "category" are missing'),
        ('{"prompt": "a"}', '"question_id", "category" and "turns" are missing'),
        (GOOD.replace("1", '"1"'), '"question_id" must be an integer'),
        (GOOD.replace("1", "true"), '"question_id" must be an integer'),
        (GOOD.replace('"a"', "7"), '"category" must be a string'),
        (GOOD.replace('"one"', "7"), '"turns" must be a list'),
        (GOOD.replace('"one"', '" "'), '"turns" must be a list'),
        (GOOD.replace('["one", "two"]', "[]"), '"turns" must be a list'),
        (GOOD, "question_id 1 is taken"),
    ],
)
def test_broken_line_is_named(tmp_path, line, sentence):
    path = tmp_path / "broken.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(UserError) as error:
        texts.load_questions(path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert sentence in str(error.value)


def test_missing_empty_and_binary_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*none\.jsonl"):
        texts.load_questions(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        texts.load_questions(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no questions"):
        texts.load_questions(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 2\)"):
        texts.load_questions(tmp_path / "binary.jsonl")


def test_prompts_are_neither_cut_nor_padded_as_a_training_left_it(tokenizer, tmp_path):
    left = texts.load_tokenizer(files.ASSETS / "target")
    left.enable_truncation(3)
    left.enable_padding(length=64)
    left.save(str(tmp_path / "tokenizer.json"))
    found = texts.load_tokenizer(tmp_path)
    assert found.encode("def f(x): return x").ids == tokenizer.encode("def f(x): return x").ids


def test_tokenizer_folder_errors(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*tokenizer\.json"):
        texts.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(UserError, match="only a tokenizer.model; transformers writes one"):
        texts.load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer"):
        texts.load_tokenizer(tmp_path)


def test_stop_tokens(tmp_path):
    path = tmp_path / "generation_config.json"
    assert texts.stop_tokens(files.ASSETS / "target") == (0,)
    assert texts.stop_tokens(tmp_path) == ()
    for value, expected in ((7, (7,)), ([1, 2], (1, 2)), (None, ())):
        path.write_text(json.dumps({"eos_token_id": value}))
        assert texts.stop_tokens(tmp_path) == expected
    (tmp_path / "config.json").write_text('{"eos_token_id": 9}')
    assert texts.stop_tokens(tmp_path) == (9,)  # the other file names none
    path.write_text('{"eos_token_id": [4, 5]}')
    assert texts.stop_tokens(tmp_path) == (4, 5)
    for content in ('{"eos_token_id": "x"}', '{"eos_token_id": [1, -1]}', "[3]", "{"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"generation_config\.json"):
            texts.stop_tokens(tmp_path)
