"""Question files: what people ask, turn by turn, as this field's projects write it down.

A question file has one JSON object a line, `{"question_id": 1, "category": "a", "turns": ["..."]}`,
as FastChat, EAGLE, Spec-Bench and LTD have them; only the turns must be there, and other keys (such
as "reference") are not read. Rows of others are read where it is plain what is asked: lists of
messages (Arena-Hard, ShareGPT, chat logs), of which the system message is kept and the answers are
left out, since the target gives its own; MMLU's choices; one "prompt", "question" or "instruction"
(HumanEval, GSM8K, Alpaca).

A task is a question file, or with `by_category` one category of it: so MMLU in one file gives a
task for each of its subjects. A file called question.jsonl has the name of its folder, so a folder
of benchmarks such as EAGLE's `data` gives a task for each. All errors are `UserError`s.
"""

import dataclasses
import json
import os
import re
import string
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ltd_jax import files
from ltd_jax.config import require_at_least
from ltd_jax.files import UserError
from ltd_jax.text import Style, is_integer

TASKS = ("code", "tests", "docs", "tables")
SHARES = (("train", 0.7), ("validation", 0.85), ("test", 1.0))  # of files without splits, summed up
RESERVED_TASK = "mean"  # what reports call the mean of all tasks
Split = Literal["train", "validation", "test", "all"]

EXAMPLE = '{"question_id": 1, "category": "code", "turns": ["..."]}'
SUFFIX = ".jsonl"  # of question files in a folder
LIST_SUFFIX = ".json"  # of a file that is one list of questions
OF_BENCHMARK = f"question{SUFFIX}"  # in a folder that is called as the benchmark
TALKS = ("turns", "messages", "conversations", "conversation")  # keys of lists of turns
PROMPTS = ("prompt", "question", "instruction")  # keys of the only turn
IDS = ("question_id", "task_id", "uid", "id")
CATEGORIES = ("category", "subject")
SPEAKERS = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    "system": "system",
}
LETTERS = string.ascii_uppercase


@dataclasses.dataclass(frozen=True)
class Question:
    """One question of a task: what a person says, turn by turn."""

    question_id: int | str
    category: str  # "" = none
    turns: tuple[str, ...]
    task: str
    system: str = ""  # what the target is told before the first turn
    place: str = dataclasses.field(default="", compare=False)  # file and line, for messages


def load_questions(path: str | Path) -> list[Question]:
    """All questions of a file, in its order; the task is the name of the file (`task_of`).

    Warns of conversations in which nobody asks anything, which are left out.

    Raises:
      UserError: says the file, the line and what is wrong with it.
    """
    path = Path(path)
    questions: dict[int | str, Question] = {}
    silent: list[str] = []
    for place, number, row in rows_of(path):
        with files.user_errors(f"{path}, {place}", name_all=True):
            question = parse_question(row, task_of(path), number)
            if question is None:
                silent.append(place)
                continue
            if question.question_id in questions:
                raise UserError(f"question_id {question.question_id} is taken.")
        place = f"{path.name}, {place}"
        questions[question.question_id] = dataclasses.replace(question, place=place)
    if silent:
        warnings.warn(
            f"{len(silent)} conversations of {path} are left out, the first in {silent[0]}: nobody "
            "asks anything in them.",
            stacklevel=2,
        )
    if not questions:
        raise UserError(f"{path} holds no questions.")
    return list(questions.values())


def task_of(path: Path) -> str:
    """The task of a question file: its name without ending; of question.jsonl its folder's name."""
    if path.name != OF_BENCHMARK:
        return path.stem
    folder = Path(os.path.abspath(path)).parent  # links stay
    is_split = folder.name in dict(SHARES)
    return (folder.parent if is_split else folder).name


def rows_of(path: Path) -> Iterator[tuple[str, int, Any]]:
    """The rows of a question file that are not empty: place, number from 1, and JSON value.

    Raises:
      UserError: the file cannot be read, or a row is not valid JSON.
    """
    content = files.read_text(path)
    if path.suffix == LIST_SUFFIX:
        for number, row in enumerate(_json_of(content, f"{path}: ", list), start=1):
            yield f"entry {number}", number, row
        return
    for number, line in enumerate(content.split("\n"), start=1):
        line = line.strip().removeprefix(files.BYTE_ORDER_MARK)  # of files put together
        if line:
            yield f"line {number}", number, _json_of(line, f"{path}, line {number}: ", object)


def _json_of(content: str, place: str, kind: type) -> Any:
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}not valid JSON ({error.msg} at column {error.colno}).") from error
    except RecursionError as error:
        raise UserError(f"{place}not valid JSON (nested too deeply).") from error
    if not isinstance(value, kind):
        raise UserError(f"{place}it must hold a list of questions, or end in {SUFFIX}.")
    return value


def parse_question(row: Any, task: str, number: int) -> Question | None:
    """The question of a row; None for a conversation in which nobody asks anything.

    Args:
      number: the row's, which names questions of files without ids.

    Raises:
      UserError: says what is wrong with the row.
    """
    if not isinstance(row, dict):
        raise UserError("a question must be a JSON object.")
    key, talk = asked_in(row)
    messages = [_message(turn, key) for turn in talk]
    turns = tuple(said for speaker, said in messages if speaker == "user")
    if not turns and key not in ("turns", *PROMPTS):
        return None
    if not turns or not all(map(is_text, turns)):
        raise UserError(f'"{key}" must be a list of at least one non-empty string or message.')
    system = [place for place, (speaker, _) in enumerate(messages) if speaker == "system"]
    if system not in ([], [0]):
        raise UserError(f'"{key}" has a system message behind other messages; put one in front.')
    name, question_id = _first_of(row, IDS, number)
    if not isinstance(question_id, str) and not is_integer(question_id):
        raise UserError(f'"{name}" must be an integer or a string.')
    name, category = _first_of(row, CATEGORIES, "")
    if not isinstance(category, str):
        raise UserError(f'"{name}" must be a string.')
    return Question(question_id, category, turns, task, messages[0][1] if system else "")


def asked_in(row: dict[str, Any]) -> tuple[str, list[Any]]:
    """The key of a row that holds what is asked, and its turns.

    Raises:
      UserError: there is no such key, or there are several.
    """
    for key in TALKS:
        if key in row:
            if not isinstance(row[key], list):
                raise UserError(f'"{key}" must be a list of at least one non-empty string.')
            return key, row[key]
    if "choices" in row and "answer_id" not in row:
        return "question", [of_choices(row)]
    found = [key for key in PROMPTS if key in row]
    if len(found) == 1:
        (key,) = found
        asked = row[key]
        if key == "instruction" and is_text(row.get("input")):  # Alpaca's: what it is about
            asked = f"{asked}\n\n{row['input']}"
        return key, asked if isinstance(asked, list) else [asked]
    if found:
        raise UserError(f'"{found[0]}" and "{found[1]}" may both be what is asked; keep one.')
    others = [f'"{key}"' for key in row if key not in (*IDS, *CATEGORIES)]
    rename = f'call the one of {", ".join(others)} that is asked "prompt"; ' if others else ""
    raise UserError(f'"turns" is missing; {rename}a line looks like {EXAMPLE}.')


def _message(turn: Any, key: str) -> tuple[str, Any]:
    """Who speaks in a turn, and what; UserError where that cannot be told."""
    if not isinstance(turn, dict):
        if not isinstance(turn, str) and key in PROMPTS:
            raise UserError(f'"{key}" must be a non-empty string.')
        if isinstance(turn, str) and key not in ("turns", *PROMPTS):
            raise UserError(
                f'"{key}" does not say who speaks; give {{"role": "user", "content": "..."}}.'
            )
        return "user", turn
    who, said = turn.get("role", turn.get("from", "user")), turn.get("content", turn.get("value"))
    speaker = SPEAKERS.get(who) if isinstance(who, str) else None
    if speaker is None:
        raise UserError(f'"{key}" has a message of {who!r}; there are user, assistant and system.')
    if isinstance(said, list) and all(isinstance(part, dict) for part in said):
        parts = [part.get("text") for part in said]
        said = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if speaker != "assistant" and not isinstance(said, str):
        raise UserError(f'"{key}" has a message whose "content" is no text.')
    return speaker, said


def _first_of(row: dict[str, Any], keys: Sequence[str], default: Any) -> tuple[str, Any]:
    """The first of some keys that a row has, and its value."""
    return next(((key, row[key]) for key in keys if row.get(key) is not None), ("", default))


def of_choices(row: dict[str, Any]) -> str:
    """A multiple-choice row (MMLU) as one text."""
    asked, choices = row.get("question"), row["choices"]
    if not is_text(asked) or not isinstance(choices, list) or not 1 < len(choices) <= len(LETTERS):
        raise UserError('"question" must be a string and "choices" a list of 2 to 26 choices.')
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([str(asked).strip(), *lines, "Answer:"])


def is_text(value: Any) -> bool:
    """Whether a JSON value is a string with more than white space in it."""
    return isinstance(value, str) and bool(value.strip())


@dataclasses.dataclass(frozen=True)
class QuestionConfig:
    """Which questions are asked, and how they are put."""

    questions: Path | None = None
    """a question file or a folder of them; None = those that ship for the target"""
    tasks: tuple[str, ...] = ()  # names of files; none = all that are there
    by_category: bool = False  # every category of a file is a task of its own
    style: Style = "auto"  # how a prompt is put to the target
    prompts: int = 24  # questions per task, at most
    turns: int | None = None  # per question, at most; None = all
    new_tokens: int = 128  # per turn

    def __post_init__(self) -> None:
        require_at_least(1, self, "prompts", "turns")
        require_at_least(2, self, "new_tokens")

    @property
    def asked(self) -> dict[str, Any]:
        """What the prompts depend on, as JSON values; the folder by its name alone."""
        settings = {name: value for name, value in vars(self).items() if name != "new_tokens"}
        where = "embedded"
        if self.questions is not None:
            is_benchmark = self.questions.name == OF_BENCHMARK
            where = task_of(self.questions) if is_benchmark else self.questions.name
        return settings | {"questions": where, "tasks": list(self.tasks)}


def load_question_set(config: QuestionConfig, split: Split) -> dict[str, list[Question]]:
    """The questions of a split by task, each cut to the wanted number of turns.

    Warns of categories that have no question in the split.

    Raises:
      UserError: a file is missing or broken, or has too few questions to be split.
    """
    by_task: dict[str, list[Question]] = {}
    for path in question_files(config, split).values():
        questions = load_questions(path)
        for question in _of_split(questions, path, config, split):
            short = dataclasses.replace(question, turns=question.turns[: config.turns])
            by_task.setdefault(task_name(question, config), []).append(short)
        empty = {task_name(question, config) for question in questions} - by_task.keys()
        if empty:
            warnings.warn(
                f"No question of {', '.join(sorted(empty))} falls into the split {split}; it goes "
                "without.",
                stacklevel=2,
            )
    if RESERVED_TASK in by_task:
        raise UserError(
            f"A task cannot be called {RESERVED_TASK!r}, which reports use; rename that file."
        )
    return {task: questions[: config.prompts] for task, questions in by_task.items()}


def task_name(question: Question, config: QuestionConfig) -> str:
    """The file's name, with `by_category` and the category; it names a folder of answers."""
    if not (config.by_category and question.category):
        return question.task
    category = re.sub(r"[^\w.-]+", "_", question.category)
    return f"{question.task}-{category}"


def question_files(config: QuestionConfig, split: Split) -> dict[str, Path]:
    """The files of the asked tasks, in the order of their names (the embedded ones in theirs)."""
    if config.questions is None:
        if split == "all":
            raise UserError("The embedded questions come in splits; name one, or `questions`.")
        root = files.ASSETS / "prompts" / split
        found = {task: root / f"{task}{SUFFIX}" for task in TASKS}
    elif config.questions.is_file() and config.questions.suffix in (SUFFIX, LIST_SUFFIX):
        root, found = config.questions.parent, {task_of(config.questions): config.questions}
    else:
        root = config.questions
        if split == "all" and (root / SHARES[-1][0]).is_dir():
            raise UserError(f"The questions in {root} come in splits; name one, or `questions`.")
        root = root / split if (root / split).is_dir() else root
        found = _files_in(root)
    unknown = [task for task in config.tasks if task not in found]
    if unknown:
        raise UserError(
            f"There is no task {unknown[0]!r} in {root}; choose from {', '.join(found)}."
        )
    return {task: found[task] for task in config.tasks or found}


def _files_in(root: Path) -> dict[str, Path]:
    """The question files of a folder by task: those of its benchmarks, or else its own.

    Files whose name begins with a dot are none, such as the ._ files that macOS writes.

    Raises:
      UserError: there is no such folder, or it holds none.
    """
    if not root.exists():
        raise UserError(f"There is no file or folder {root}; check `questions`.")
    if not root.is_dir():
        raise UserError(
            f"{root} is no question file: these end in {SUFFIX}, and a line looks like {EXAMPLE}; "
            "check `questions`."
        )
    own = [path for path in sorted(root.glob(f"*{SUFFIX}")) if not path.name.startswith(".")]
    benchmarks = {
        path.parent.name: path
        for path in sorted(root.glob(f"*/{OF_BENCHMARK}"))
        if not path.parent.name.startswith(".") and path.parent.name not in dict(SHARES)
    }
    if benchmarks and own:
        warnings.warn(
            f"{root} holds benchmarks in folders of their own; {own[0].name} is read only as "
            "`questions` of its own.",
            stacklevel=2,
        )
    found = benchmarks or {task_of(path): path for path in own}
    if not found:
        raise UserError(
            f"{root} holds no question files (*{SUFFIX}); check `questions` and `split`: files lie "
            "in the folder itself, or in its train/, validation/ and test/, or each as "
            f"{OF_BENCHMARK} in a folder of its benchmark."
        )
    return found


def _of_split(
    questions: list[Question], path: Path, config: QuestionConfig, split: Split
) -> list[Question]:
    """The questions of a file that a split has; where files have no splits, `split_of` says.

    Raises:
      UserError: the file has too few questions to be split.
    """
    if config.questions is None or split == "all" or (config.questions / split).is_dir():
        return questions
    if len(questions) < len(SHARES):
        raise UserError(
            f"{path} has too few questions ({len(questions)}) for a split {split}; add some up to "
            f"{len(SHARES)} or more, or give files in train/, validation/ and test/ folders."
        )
    splits = split_of(questions)
    return [question for question in questions if splits[question.question_id] == split]


def split_of(questions: Sequence[Question]) -> dict[int | str, str]:
    """The split of every question of a file, by its id; of three questions or more none is empty.

    A hash of the question says it. Of a file with so few questions that a split got none, that
    split gets the question of the largest split whose hash is nearest.
    """
    place = {question.question_id: hashed_place(question) for question in questions}
    splits = {number: next(s for s, up_to in SHARES if place[number] < up_to) for number in place}
    for split, up_to in SHARES:
        if split not in splits.values():
            members = [[n for n in place if splits[n] == other] for other, _ in SHARES]
            largest = max(members, key=len)
            splits[min(largest, key=lambda number: abs(place[number] - up_to))] = split
    return splits


def hashed_place(question: Question) -> float:
    """A number from 0 to below 1: the same for a question wherever it is read."""
    return zlib.crc32(f"{question.task} {question.question_id}".encode()) / 2**32
