"""Question files and tokenizers: what is shipped loads, what is broken gets one clear sentence."""

import json
import warnings

import pytest

from experiments.pretrain import corpus
from experiments.pretrain import questions as pretrain
from ltd_jax import files, questions
from ltd_jax import text as texts
from ltd_jax.files import UserError
from ltd_jax.questions import Question, QuestionConfig

GOOD = '{"question_id": 1, "category": "a", "turns": ["one", "two"], "reference": ["x"]}'


@pytest.fixture(scope="module")
def tokenizer():
    return texts.load_tokenizer(files.ASSETS / "target")


def test_tasks_are_the_kinds_of_the_corpus():
    assert questions.TASKS == corpus.KINDS


@pytest.mark.parametrize("task", questions.TASKS)
def test_shipped_questions(task, tokenizer):
    categories = {}
    for split in corpus.SPLITS:
        found = questions.load_question_set(QuestionConfig(prompts=99), split)[task]
        assert len(found) == pretrain.COUNTS[split]
        for question in found:
            length = len(tokenizer.encode("\n\n".join(question.turns)).ids)
            assert pretrain.MIN_TOKENS <= length <= pretrain.MAX_TOKENS
            assert question.task == task
        categories[split] = {question.category for question in found}
    assert not categories["train"] & categories["validation"]
    assert not categories["test"] & (categories["train"] | categories["validation"])


def test_load_questions_keeps_order_and_turns(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(GOOD + "\n\n" + GOOD.replace("1", "0") + "\n")
    first, second = questions.load_questions(path)
    assert first == Question(1, "a", ("one", "two"), "mine")
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
        # Arena-Hard's, whose ids are texts
        (
            '{"question_id": "3f4b", "category": "arena", "cluster": "x",'
            ' "turns": [{"content": "a"}, {"content": "b"}]}',
            ("3f4b", "arena", ("a", "b")),
        ),
        ('{"uid": "9c", "category": "hard", "prompt": "a"}', ("9c", "hard", ("a",))),
        # HumanEval's, GSM8K's, Alpaca's, ARC's in the form of MMLU
        (
            '{"task_id": "HumanEval/0", "prompt": "def f():\\n", "entry_point": "f", "test": "t"}',
            ("HumanEval/0", "", ("def f():\n",)),
        ),
        ('{"question": "2+2?", "answer": "#### 4"}', (1, "", ("2+2?",))),
        ('{"instruction": "Add.", "input": "1, 2", "output": "3"}', (1, "", ("Add.\n\n1, 2",))),
        ('{"instruction": "Sing.", "input": "", "output": "la"}', (1, "", ("Sing.",))),
        # ShareGPT's and logs of chats: the answers are the target's own
        (
            '{"id": "x_0", "conversations": [{"from": "human", "value": "a"},'
            ' {"from": "gpt", "value": "A"}, {"from": "human", "value": "b"}]}',
            ("x_0", "", ("a", "b")),
        ),
        (
            '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user",'
            ' "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},'
            ' {"role": "assistant", "content": null}]}',
            (1, "", ("ab",), "Be brief."),
        ),
        ('{"prompt": [{"role": "user", "content": "a"}]}', (1, "", ("a",))),
        # parts that are not there
        ('{"turns": ["a"]}', (1, "", ("a",))),
        ('{"question_id": null, "category": null, "turns": ["a"]}', (1, "", ("a",))),
        ('{"question_id": 5, "turns": ["a"]}\r', (5, "", ("a",))),
        ('\ufeff{"question_id": 5, "turns": ["é"]}', (5, "", ("é",))),
        ('\n\ufeff{"question_id": 5, "turns": ["é\u2028"]}', (5, "", ("é\u2028",))),
    ],
)
def test_public_rows(tmp_path, line, expected):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(line.encode())
    question_id, category, turns, *system = expected
    assert questions.load_questions(path) == [
        Question(question_id, category, turns, "mine", *system)
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"choices": ["a", "b"]}', '"question" must be a string'),
        ('{"question": "a", "choices": ["b"]}', "a list of 2 to 26 choices"),
        ('{"question_id": 2, ', "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"question_id": 2, "category": "a"}', '"turns" is missing; a line looks like {"ques'),
        (
            '{"input": "a", "context": "b", "_id": "7"}',
            '"turns" is missing; call the one of "input", "context", "_id" that is asked "prompt"; '
            'a line looks like {"ques',
        ),
        ('{"prompt": "a", "question": "b"}', '"prompt" and "question" may both be what is asked'),
        (
            '{"question_id": 1, "answer_id": "x", "model_id": "m", "choices": [{"turns": ["a"]}]}',
            '"turns" is missing; call the one of "answer_id", "model_id", "choices" that',
        ),
        ('{"prompt": 7}', '"prompt" must be a non-empty string'),
        ('{"conversations": "a"}', '"conversations" must be a list'),
        ('{"conversations": ["a", "b"]}', '"conversations" does not say who speaks'),
        ('{"messages": [{"role": "tool", "content": "a"}]}', "a message of 'tool'; there are user"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "is no text"),
        ('{"messages": [{"role": "user"}]}', '"content" is no text'),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}',
            "a system message behind other messages",
        ),
        ("[" * 100_000, "nested too deeply"),
        (GOOD.replace("1", "1.5"), '"question_id" must be an integer or a string'),
        ('{"task_id": ["a"], "prompt": "b"}', '"task_id" must be an integer or a string'),
        (GOOD.replace("1", "true"), '"question_id" must be an integer'),
        (GOOD.replace('"category": "a"', '"subject": 3'), '"subject" must be a string'),
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
        questions.load_questions(path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert sentence in str(error.value)


def test_missing_empty_and_binary_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*none\.jsonl"):
        questions.load_questions(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        questions.load_questions(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no questions"):
        questions.load_questions(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 2\)"):
        questions.load_questions(tmp_path / "binary.jsonl")
    for encoding in ("utf-16-le", "utf-16-be"):
        (tmp_path / "wide.jsonl").write_bytes(("\ufeff" + GOOD).encode(encoding))
        with pytest.raises(UserError, match="wide.jsonl is UTF-16 text; save it as UTF-8"):
            questions.load_questions(tmp_path / "wide.jsonl")


def test_conversations_without_a_question_are_left_out(tmp_path):
    path = tmp_path / "shared.jsonl"
    path.write_text(
        '{"conversations": []}\n'
        '{"conversations": [{"from": "human", "value": "a"}]}\n'
        '{"conversations": [{"from": "gpt", "value": "b"}]}\n'
    )
    with pytest.warns(UserWarning, match="2 conversations of .* the first in line 1: nobody asks"):
        (found,) = questions.load_questions(path)
    assert found.question_id == 2 and found.place == "shared.jsonl, line 2"


def test_a_list_of_rows(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"prompt": "a"}, {"prompt": "b", "id": "x"}], indent=1))
    found = questions.load_question_set(QuestionConfig(path), "all")
    assert [(one.question_id, one.place) for one in found["list"]] == [
        (1, "list.json, entry 1"),
        ("x", "list.json, entry 2"),
    ]
    path.write_text('{"data": []}')
    with pytest.raises(UserError, match=r"list\.json: it must hold a list of questions, or end in"):
        questions.load_questions(path)
    path.write_text('[{"prompt": "a"}, 7]')
    with pytest.raises(UserError, match=r"list\.json, entry 2: a question must be a JSON object"):
        questions.load_questions(path)


@pytest.fixture
def benchmarks(tmp_path):
    """A folder of benchmarks, as EAGLE and Learning-to-Draft have theirs."""
    root = tmp_path / "data"
    for name in ("mt_bench", "humaneval", ".ipynb_checkpoints"):
        (root / name / "reference_answer").mkdir(parents=True)
        (root / name / "reference_answer" / "gpt-4.jsonl").write_text("{}")
        (root / name / "question.jsonl").write_text(GOOD + "\n" + GOOD.replace("1", "2"))
        (root / name / "._question.jsonl").write_bytes(b"\x00\x05\x16\x07\xb0")
    return root


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("", ["humaneval", "mt_bench"]),
        ("mt_bench", ["mt_bench"]),
        ("mt_bench/question.jsonl", ["mt_bench"]),
    ],
)
def test_benchmarks_are_tasks_by_their_folders(benchmarks, where, expected, monkeypatch):
    config = QuestionConfig(benchmarks / where)
    found = questions.load_question_set(config, "all")
    assert list(found) == expected and {len(task) for task in found.values()} == {2}
    assert {one.task for task in found.values() for one in task} == set(expected)
    assert config.asked["questions"] == (where.split("/")[0] or "data")
    if where.endswith("jsonl"):
        monkeypatch.chdir(benchmarks / "mt_bench")
        assert (
            list(questions.load_question_set(QuestionConfig(files.Path("question.jsonl")), "all"))
            == expected
        )


def test_some_of_the_benchmarks(benchmarks):
    config = QuestionConfig(benchmarks, tasks=("mt_bench",))
    assert list(questions.load_question_set(config, "all")) == ["mt_bench"]
    with pytest.raises(UserError, match="no task 'qa' in .*; choose from humaneval, mt_bench"):
        questions.load_question_set(QuestionConfig(benchmarks, tasks=("qa",)), "all")


def test_files_beside_benchmarks_are_named(benchmarks):
    (benchmarks / "judge_prompts.jsonl").write_text('{"name": "pair-v2"}')
    with pytest.warns(UserWarning, match="judge_prompts.jsonl is read only as `questions`"):
        found = questions.load_question_set(QuestionConfig(benchmarks), "all")
    assert list(found) == ["humaneval", "mt_bench"]


def test_splits_of_one_benchmark_are_one_task(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "mine" / split).mkdir(parents=True)
        (tmp_path / "mine" / split / "question.jsonl").write_text(GOOD)
        assert list(questions.load_question_set(QuestionConfig(tmp_path / "mine"), split)) == [
            "mine"
        ]


def test_files_that_macos_leaves_are_no_questions(tmp_path):
    (tmp_path / "mine.jsonl").write_text(GOOD)
    (tmp_path / "._mine.jsonl").write_bytes(b"\x00\x05\x16\x07\xb0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(questions.load_question_set(QuestionConfig(tmp_path), "all")) == ["mine"]


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=r"mine\.jsonl is a git-lfs pointer.*run `git lfs pull`"):
        questions.load_questions(path)


def test_ids_that_are_texts_are_split(tmp_path):
    path = tmp_path / "mine.jsonl"
    ids = [*(f"task/{number}" for number in range(40)), *range(20)]
    path.write_text("\n".join(json.dumps({"question_id": one, "turns": ["a"]}) for one in ids))
    parts = [
        questions.load_question_set(QuestionConfig(path, prompts=99), split)["mine"]
        for split in ("train", "validation", "test")
    ]
    found = [one.question_id for part in parts for one in part]
    assert len(found) == 60 and set(found) == set(ids) and len(parts[0]) > 30


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
