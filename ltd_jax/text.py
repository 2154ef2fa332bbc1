"""Text: question files and chat templates in, token ids out, and token ids back as they come.

A question file has one JSON object a line, `{"question_id": int, "category": str, "turns": [str]}`,
as FastChat, EAGLE, Spec-Bench and LTD have them; other keys (such as "reference") are allowed and
not read. MMLU's own rows, `{"question": str, "choices": [str], "subject": str}`, are read, too. A
task is a question file, or with `by_category` one category of it: so MMLU in one file gives a task
for each of its subjects.

A conversation is put to the target as its folder's chat template says, in Vicuna's own form, or as
the bare text. Templates are run by jinja2 in its immutable sandbox: they see the messages and the
names of the special tokens, nothing else. Named styles are the ways in which published evaluations
ask. All errors are `UserError`s.
"""

import dataclasses
import datetime
import json
import re
import string
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import jinja2
import jinja2.sandbox
import numpy as np
import tokenizers
from tokenizers.decoders import DecodeStream

from ltd_jax import files
from ltd_jax.config import require_at_least
from ltd_jax.files import UserError

TASKS = ("code", "tests", "docs", "tables")
SHARES = (("train", 0.7), ("validation", 0.85), ("test", 1.0))  # of files without splits, summed up
RESERVED_TASK = "mean"  # what reports call the mean of all tasks
Split = Literal["train", "validation", "test", "all"]
Style = Literal[
    "auto", "plain", "template", "llama3", "deepseek", "qwen3", "qwen3-thinking", "vicuna"
]

QUESTION_KEYS = ("question_id", "category", "turns")
EXAMPLE = '{"question_id": 1, "category": "code", "turns": ["..."]}'
SUFFIX = ".jsonl"  # of question files
LETTERS = string.ascii_uppercase


@dataclasses.dataclass(frozen=True)
class Question:
    """One question of a task: what a person says, turn by turn."""

    question_id: int
    category: str
    turns: tuple[str, ...]
    task: str
    place: str = dataclasses.field(default="", compare=False)  # file and line, for messages


def load_questions(path: str | Path) -> list[Question]:
    """All questions of a file, in its order; the task is the file's name without its ending.

    Raises UserError that names the file, the line and what is wrong with it.
    """
    path = Path(path)
    questions: dict[int, Question] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            question = parse_question(line, path.stem, number)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if question.question_id in questions:
            raise UserError(f"{path}, line {number}: question_id {question.question_id} is taken.")
        place = f"{path.name}, line {number}"
        questions[question.question_id] = dataclasses.replace(question, place=place)
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
    missing = [f'"{key}"' for key in QUESTION_KEYS if key not in row]
    if missing:
        *others, last = missing
        names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        raise UserError(f"{names} missing; a line looks like {EXAMPLE}.")
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


@dataclasses.dataclass(frozen=True)
class QuestionConfig:
    """Which questions are asked, and how they are put."""

    questions: Path | None = None  # a question file or a folder of them; None = the embedded ones
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
        where = "embedded" if self.questions is None else self.questions.name
        return settings | {"questions": where, "tasks": list(self.tasks)}


def load_question_set(config: QuestionConfig, split: Split) -> dict[str, list[Question]]:
    """The questions of a split by task, each cut to the wanted number of turns.

    Warns of categories that have no question in the split.

    Raises:
      UserError: a file is missing or broken, or has too few questions to be split.
    """
    by_task: dict[str, list[Question]] = {}
    for path in question_files(config, split):
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


def question_files(config: QuestionConfig, split: Split) -> list[Path]:
    """The files of the asked tasks, in the order of their names (the embedded ones in theirs)."""
    if config.questions is None:
        if split == "all":
            raise UserError("The embedded questions come in splits; name one, or `questions`.")
        root = files.ASSETS / "prompts" / split
        names: tuple[str, ...] = TASKS
    elif config.questions.is_file() and config.questions.suffix == SUFFIX:
        root, names = config.questions.parent, (config.questions.stem,)
    else:
        root = config.questions
        root = root / split if (root / split).is_dir() else root
        names = tuple(sorted(path.stem for path in root.glob(f"*{SUFFIX}")))
        if not root.exists():
            raise UserError(f"There is no file or folder {root}; check `questions`.")
        if not root.is_dir():
            raise UserError(
                f"{root} is no question file: these end in {SUFFIX}, and a line looks like "
                f"{EXAMPLE}; check `questions`."
            )
        if not names:
            raise UserError(
                f"{root} holds no question files (*{SUFFIX}); check `questions` and `split`: files "
                "lie in the folder itself, or in its train/, validation/ and test/."
            )
    unknown = [task for task in config.tasks if task not in names]
    if unknown:
        raise UserError(
            f"There is no task {unknown[0]!r} in {root}; choose from {', '.join(names)}."
        )
    return [root / f"{name}{SUFFIX}" for name in config.tasks or names]


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


def split_of(questions: Sequence[Question]) -> dict[int, str]:
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


def load_tokenizer(folder: str | Path) -> tokenizers.Tokenizer:
    """The tokenizer of a Hugging Face folder; raises UserError where it is missing or broken."""
    path = Path(folder) / "tokenizer.json"
    if not path.exists() and path.with_suffix(".model").exists():
        raise UserError(
            f"There is no file {path}, only a tokenizer.model; transformers writes one: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    content = read_text(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
        tokenizer.no_truncation()  # of a training, which would cut prompts
        tokenizer.no_padding()
        return tokenizer
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{path} is no tokenizer that this version can read: {error}.") from error


def stop_tokens(folder: str | Path) -> tuple[int, ...]:
    """`eos_token_id` of a folder as a tuple; () where no file names one.

    generation_config.json says it, config.json where that file or its field is missing.
    """
    for name in ("generation_config.json", "config.json"):
        path = Path(folder) / name
        value = read_settings(path).get("eos_token_id", [])
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(is_integer(token) and 0 <= token < 2**31 for token in ids):
            raise UserError(f"{path}: eos_token_id must be a token's id or a list of ids.")
        if ids:
            return tuple(ids)
    return ()


def read_text(path: Path) -> str:
    """The file's text; raises UserError where there is no such file or it is not UTF-8."""
    try:
        files.refuse_pointer(path)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}).") from error


def read_settings(path: Path) -> dict[str, Any]:
    """The fields of a JSON file, {} where there is none; UserError where it is no JSON object."""
    if not path.exists():
        return {}
    try:
        settings = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no JSON object.")
    return settings


def is_integer(value: Any) -> bool:
    """Whether a JSON value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_text(value: Any) -> bool:
    """Whether a JSON value is a string with more than white space in it."""
    return isinstance(value, str) and bool(value.strip())


LLAMA_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, "
    "while being safe.  Your answers should not include any harmful, unethical, racist, sexist, "
    "toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased "
    "and positive in nature.\n\nIf a question does not make any sense, or is not factually "
    "coherent, explain why instead of answering something not correct. If you don't know the "
    "answer to a question, please don't share false information."
)
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
SYSTEM_PROMPTS = {"llama3": LLAMA_SYSTEM}
SWITCHES: dict[str, dict[str, Any]] = {
    "qwen3": {"enable_thinking": False},
    "qwen3-thinking": {"enable_thinking": True},
}
# What templates take for today: prompts must be the same tomorrow, or no recording could go on.
# It is the day that the templates of the Llama 3 family use where they have no clock.
TODAY = datetime.date(2024, 7, 26)
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclasses.dataclass(frozen=True)
class Message:
    """What one side says."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclasses.dataclass(frozen=True)
class Chat:
    """How a target's folder turns conversations into token ids."""

    tokenizer: tokenizers.Tokenizer
    style: Style  # never "auto"
    template: str | None  # jinja source; None for "plain" and "vicuna"
    special: dict[str, str]  # of SPECIAL_TOKENS, those that the folder names
    place: Path  # the template's file, for messages

    def encode(self, messages: Sequence[Message]) -> np.ndarray:
        """Token ids [T] i32 up to where the assistant begins to speak.

        Raises:
          UserError: the template cannot be rendered, or there is nothing to say.
        """
        text = self.render(messages).encode("utf-8", "replace").decode()  # half a surrogate pair
        ids = self.tokenizer.encode(text, add_special_tokens=self.template is None).ids
        if not ids:
            raise UserError("The prompt has no tokens; give it at least one character.")
        return np.asarray(ids, np.int32)

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the text that is tokenised."""
        if self.style == "plain":
            return "\n\n".join(message.content for message in messages)
        if self.style == "vicuna":
            return vicuna_text(messages)
        if self.style in SYSTEM_PROMPTS:
            messages = [Message("system", SYSTEM_PROMPTS[self.style]), *messages]
        try:
            template = _jinja().from_string(str(self.template))
            return template.render(
                messages=[dataclasses.asdict(message) for message in messages],
                add_generation_prompt=True,
                tools=None,
                **self.special,
                **SWITCHES.get(self.style, {}),
            )
        except Exception as error:  # a template is somebody's program: it may fail in any way
            raise UserError(
                f"The chat template of {self.place} cannot be rendered ({error}); try `style` "
                "plain."
            ) from error


def open_chat(folder: Path, style: Style = "auto") -> Chat:
    """The tokenizer and the style of a target's folder.

    "auto" is the folder's template where it has one, "plain" otherwise.

    Raises:
      UserError: there is no tokenizer, or the style wants a template that is not there.
    """
    tokenizer = load_tokenizer(folder)
    place = folder / "tokenizer_config.json"
    settings = read_settings(place)
    template, place = find_template(folder, settings, place)
    if style == "auto":
        style = "plain" if template is None else "template"
    if style in ("plain", "vicuna"):
        template = None
    elif template is None:
        raise UserError(
            f"{folder} has no chat template (chat_template.jinja, or chat_template in "
            f"tokenizer_config.json), so `style` {style} is not possible; try plain or vicuna."
        )
    special = {name: token_text(settings[name]) for name in SPECIAL_TOKENS if settings.get(name)}
    return Chat(tokenizer, style, template, special, place)


def find_template(folder: Path, settings: dict[str, Any], path: Path) -> tuple[str | None, Path]:
    """The template's source and its file; of several named ones the default."""
    own = folder / "chat_template.jinja"
    if own.exists():
        return read_text(own), own
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise UserError(f"{path} has a chat_template that is no text.")
    return found, path


def token_text(value: Any) -> str:
    """A special token's text; files have it bare or in an object."""
    return str(value.get("content", "")) if isinstance(value, dict) else str(value)


def _jinja() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """jinja2 as chat templates expect it, sandboxed."""
    found = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def fail(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    found.globals["raise_exception"] = fail
    found.globals["strftime_now"] = TODAY.strftime
    found.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    return found


def vicuna_text(messages: Sequence[Message]) -> str:
    """Vicuna v1.1's form, which no folder of it holds."""
    text = VICUNA_SYSTEM
    for message in messages:
        if message.role == "user":
            text += f" USER: {message.content}"
        elif message.role == "assistant":
            text += f" ASSISTANT: {message.content}</s>"
        else:
            text = message.content
    return f"{text} ASSISTANT:"


class TextStream:
    """The text of one answer, piece by piece."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.stream = DecodeStream(skip_special_tokens=True)
        self.tokens: list[int] = []
        self.shown = ""

    def add(self, tokens: tuple[int, ...]) -> str:
        """The text that became whole with these tokens."""
        self.tokens += tokens
        piece = "".join(self._step(token) or "" for token in tokens)
        self.shown += piece
        return piece

    def _step(self, token: int) -> str | None:
        """The next whole piece; bytes that make no character are given up."""
        try:
            return self.stream.step(self.tokenizer, token)
        except Exception as error:  # tokenizers raises nothing narrower
            if "Invalid prefix" not in str(error):
                raise
            self.stream = DecodeStream(skip_special_tokens=True)
            return self.stream.step(self.tokenizer, token)

    def end(self) -> str:
        """What is left, whole or not."""
        text = self.tokenizer.decode(self.tokens)
        return text.removeprefix(self.shown) if text.startswith(self.shown) else ""
