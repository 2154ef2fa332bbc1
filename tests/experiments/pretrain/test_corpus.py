"""The corpus: kinds, splits, the tokenizer's exactness, and questions that training never saw."""

import sys

import numpy as np
import pytest

from experiments.pretrain import corpus, questions
from ltd_jax import files
from ltd_jax import text as texts
from ltd_jax.questions import QuestionConfig, load_question_set

TEXTS = [
    "def f(x):\n\treturn  x\n\n\n    # tab, runs   of spaces \t \n",
    "naïve \u00fcber \u4e2d\u6587 \U0001f600 \u0000 e\u0301\r\n  end",
    "   ",
    "\n\n    \n",
    "0x1F42 1234567 a_b__c 'quoted' <|endoftext|>x",
]


@pytest.fixture(scope="module")
def documents():
    return corpus.find_documents()


@pytest.fixture(scope="module")
def small_tokenizer():
    return corpus.train_tokenizer([text * 3 for text in TEXTS[:2]], vocab_size=300)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("shipped", [True, False])
def test_tokenizer_gives_back_any_text(text, shipped, small_tokenizer):
    shipped_tokenizer = texts.load_tokenizer(files.ASSETS / "target")
    tokenizer = shipped_tokenizer if shipped else small_tokenizer
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_tokenizer_keeps_indentation_in_one_token():
    tokenizer = texts.load_tokenizer(files.ASSETS / "target")
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("if x:\n        return").ids]
    assert "\n        " in pieces
    assert tokenizer.get_vocab_size() == corpus.VOCAB_SIZE
    assert tokenizer.token_to_id(corpus.END_OF_TEXT) == corpus.END_OF_TEXT_ID


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("asyncio/events.py", "code"),
        ("unittest/case.py", "code"),
        ("test/test_re.py", "tests"),
        ("idlelib/idle_test/test_run.py", "tests"),
        ("unittest/test/testmock/testcallable.py", "tests"),
        ("pydoc_data/topics/if", "docs"),
        ("idlelib/NEWS.txt", "docs"),
        ("encodings/cp437.py", "tables"),
        ("html/entities.py", "tables"),
    ],
)
def test_kind_follows_from_the_path(path, kind):
    assert corpus.kind_of(path) == kind


def test_split_follows_from_the_path_alone(documents):
    paths = [document.path for document in documents]
    assert paths == sorted(set(paths))
    for document in documents:
        assert document.split == corpus.split_of(document.path, document.kind)
        assert 0 < len(document.text) <= corpus.MAX_CHARACTERS
    found = {(document.kind, document.split) for document in documents}
    assert found == {(kind, split) for kind in corpus.KINDS for split in corpus.SPLITS}


def test_split_shares_are_about_those_of_the_table():
    for kind, (train, validation) in corpus.SHARES.items():
        splits = [corpus.split_of(f"{number}.py", kind) for number in range(4000)]
        assert splits.count("train") / 4000 == pytest.approx(train, abs=0.02)
        assert splits.count("validation") / 4000 == pytest.approx(validation, abs=0.02)


def test_token_stream_ends_each_document(small_tokenizer):
    documents = [
        corpus.Document(f"{number}.py", "code", split, f"x = {number}\n")
        for number, split in enumerate(("train", "train", "test"))
    ]
    stream = corpus.token_stream(documents, small_tokenizer, "train")
    assert stream.dtype == np.uint16
    assert stream[-1] == corpus.END_OF_TEXT_ID
    text = small_tokenizer.decode(stream.tolist(), skip_special_tokens=False)
    assert sorted(text.split(corpus.END_OF_TEXT)) == ["", "x = 0\n", "x = 1\n"]
    assert len(corpus.token_stream(documents, small_tokenizer, "validation")) == 0


def test_cut_ends_before_a_line_break_and_within_the_limit(small_tokenizer):
    text = "import os\n\n    def f():\n" + "        return 1234567\n" * 40
    prompt = questions.cut(text, text.index("    def"), small_tokenizer, 80)
    assert prompt.startswith("\n\n    def f():")
    assert prompt.endswith("7")
    assert prompt in text
    assert questions.MIN_TOKENS <= len(small_tokenizer.encode(prompt).ids) <= 80
    assert questions.cut("x = 1\n", 0, small_tokenizer, 80) == ""


def test_deal_spreads_over_the_documents():
    rows = [[questions.Prompt(path, turn, "") for turn in range(3)] for path in "ab"]
    assert [prompt.path for prompt in questions.deal(rows, 4)] == ["a", "b", "a", "b"]
    with pytest.raises(ValueError, match="give 6 prompts, but 7"):
        questions.deal(rows, 7)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the questions come from Python 3.11")
def test_no_test_question_occurs_in_a_train_document(documents):
    train = "\0".join(document.text for document in documents if document.split == "train")
    by_task = load_question_set(QuestionConfig(prompts=99), "test")
    for task, asked in by_task.items():
        for question in asked:
            assert "\n\n".join(question.turns) not in train, (task, question.question_id)
