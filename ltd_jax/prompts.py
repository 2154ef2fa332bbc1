"""Prompts: question files enter, token ids leave.

A question file has one JSON object a line, `{"question_id": int, "category": str, "turns": [str]}`,
as FastChat, EAGLE, Spec-Bench and LTD have them; other keys (such as "reference") are allowed and
not read. MMLU's own rows, `{"question": str, "choices": [str], "subject": str}`, are read, too. All
errors are `UserError`s.
"""

import dataclasses
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ltd_jax.errors import UserError

TASKS = ("code", "tests", "docs", "tables")
SPLITS = ("train", "validation", "test")
ASSETS = Path(__file__).parent / "assets"
LETTERS = string.ascii_uppercase


@dataclasses.dataclass(frozen=True)
class Question:
    """One question of a task: what a person says, turn by turn."""

    question_id: int
    category: str
    turns: tuple[str, ...]
    task: str

    @property
    def text(self) -> str:
        """All turns, with an empty line between two."""
        return "\n\n".join(self.turns)


def load_questions(path: str | Path) -> list[Question]:
    """All questions of a file, in its order; the task is the file's name without its ending.

    Raises UserError that names the file, the line and what is wrong with it.
    """
    path = Path(path)
    questions: dict[int, Question] = {}
    for number, line in enumerate(read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            question = parse_question(line, path.stem, number)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if question.question_id in questions:
            raise UserError(f"{path}, line {number}: question_id {question.question_id} is taken.")
        questions[question.question_id] = question
    if not questions:
        raise UserError(f"{path} holds no questions.")
    return list(questions.values())


def parse_question(line: str, task: str, number: int) -> Question:
    """The question of one line; raises UserError with what is wrong with it.

    Args:
      number: the line's, which names questions of files without ids.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"not valid JSON ({error.msg} at column {error.colno}).") from error
    if not isinstance(row, dict):
        raise UserError("a question must be a JSON object.")
    if "turns" not in row and "choices" in row:
        row = of_choices(row, number)
    for key in ("question_id", "category", "turns"):
        if key not in row:
            raise UserError(f'"{key}" is missing.')
    if not is_integer(row["question_id"]):
        raise UserError('"question_id" must be an integer.')
    if not isinstance(row["category"], str):
        raise UserError('"category" must be a string.')
    turns = row["turns"]
    if not isinstance(turns, list) or not turns or not all(is_text(turn) for turn in turns):
        raise UserError('"turns" must be a list of at least one non-empty string.')
    return Question(row["question_id"], row["category"], tuple(turns), task)


def of_choices(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A multiple-choice row (MMLU) as a question of one turn; its subject is the category."""
    asked, choices = row.get("question"), row["choices"]
    if not is_text(asked) or not isinstance(choices, list) or not 1 < len(choices) <= len(LETTERS):
        raise UserError('"question" must be a string and "choices" a list of 2 to 26 choices.')
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return {
        "question_id": row.get("question_id", number),
        "category": row.get("subject", ""),
        "turns": ["\n".join([str(asked).strip(), *lines, "Answer:"])],
    }


def load_task(split: str, task: str) -> list[Question]:
    """The embedded questions of a task; raises UserError for an unknown split or task."""
    for word, name, possible in (("split", split, SPLITS), ("task", task, TASKS)):
        if name not in possible:
            raise UserError(f"There is no {word} {name!r}; choose from {', '.join(possible)}.")
    return load_questions(ASSETS / "prompts" / split / f"{task}.jsonl")


def load_tokenizer(folder: str | Path) -> tokenizers.Tokenizer:
    """The tokenizer of a Hugging Face folder; raises UserError where it is missing or broken."""
    path = Path(folder) / "tokenizer.json"
    if not path.exists() and path.with_suffix(".model").exists():
        raise UserError(
            f"There is no file {path}, only a tokenizer.model; transformers writes one: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    content = read(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
        tokenizer.no_truncation()  # of a training, which would cut prompts
        tokenizer.no_padding()
        return tokenizer
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{path} is no tokenizer that this version can read: {error}.") from error


def encode_prompt(
    tokenizer: tokenizers.Tokenizer, question: Question | str, limit: int
) -> np.ndarray:
    """The token ids [T] int32 of a question or a text.

    Raises UserError where there is no token, or more than `limit`, the context's length.
    """
    text = question if isinstance(question, str) else question.text
    ids = tokenizer.encode(text).ids
    if not ids:
        raise UserError("The prompt has no tokens; give it at least one character.")
    if len(ids) > limit:
        raise UserError(
            f"The prompt has {len(ids)} tokens but the context holds {limit}; "
            "shorten it or raise the context."
        )
    return np.asarray(ids, np.int32)


def stop_tokens(folder: str | Path) -> tuple[int, ...]:
    """`eos_token_id` of a folder as a tuple; () where no file names one.

    generation_config.json says it, config.json where that file or its field is missing.
    """
    for name in ("generation_config.json", "config.json"):
        path = Path(folder) / name
        if not path.exists():
            continue
        try:
            settings = json.loads(read(path))
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not valid JSON ({error}).") from error
        found = settings.get("eos_token_id") if isinstance(settings, dict) else settings
        ids = [] if found is None else found if isinstance(found, list) else [found]
        if not isinstance(settings, dict) or not all(is_token(token) for token in ids):
            raise UserError(f"{path}: eos_token_id must be a token's id or a list of ids.")
        if ids:
            return tuple(ids)
    return ()


def read(path: Path) -> str:
    """The file's text; raises UserError where there is no such file or it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}).") from error


def is_integer(value: Any) -> bool:
    """Whether a JSON value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_token(value: Any) -> bool:
    """Whether a JSON value can be a token's id."""
    return is_integer(value) and 0 <= value < 2**31


def is_text(value: Any) -> bool:
    """Whether a JSON value is a string with more than white space in it."""
    return isinstance(value, str) and bool(value.strip())
