"""From question files to the prompts that all stages work on.

A task is a question file, or with `by_category` one category of it: so MMLU in one file gives a
task for each of its subjects. A question of several turns gives one prompt per turn. A later turn
holds the answers before it, and these are plain decoding's, which are the same whoever decodes; so
they are written once, side by side, and kept.
"""

import dataclasses
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ltd_jax import prompts
from ltd_jax.chat import Chat, Message, Style, open_chat
from ltd_jax.cycle.pair import Pair, check_known
from ltd_jax.cycle.prefill import check_room
from ltd_jax.decoding import comparison
from ltd_jax.errors import UserError
from ltd_jax.prompts import Question
from ltd_jax.replay import record
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.trace import replacing
from ltd_jax.sampling import described

Split = Literal["train", "validation", "test", "all"]
SHARES = (("train", 0.7), ("validation", 0.85), ("test", 1.0))  # of files without splits, summed up


@dataclasses.dataclass(frozen=True)
class QuestionFlags:
    """Which questions, and how they are put."""

    questions: Path | None = None  # folder of question files; None = the embedded ones
    tasks: tuple[str, ...] = ()  # names of files; none = all that are there
    by_category: bool = False  # every category of a file is a task of its own
    style: Style = "auto"  # how a prompt is put to the target
    prompts: int = 24  # questions per task, at most
    turns: int | None = None  # per question, at most; None = all
    new_tokens: int = 128  # per turn

    def __post_init__(self) -> None:
        for name, least in (("prompts", 1), ("turns", 1), ("new_tokens", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value} but must be at least {least}.")


class Asked(NamedTuple):
    """One turn of one question."""

    prompt: Prompt
    question: Question
    turn: int


class Asking(NamedTuple):
    """All turns of some questions, and the names of their tasks."""

    turns: list[Asked]
    tasks: tuple[str, ...]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts alone."""
        return [asked.prompt for asked in self.turns]


def ask(pair: Pair, flags: QuestionFlags, split: Split, folder: Path) -> Asking:
    """The prompts of a split, as token ids of the pair; answers between turns go to `folder`.

    Raises:
      UserError: a file is missing or broken, a prompt and its answer do not fit the context, or
        the tokenizer of the pair's folder knows tokens that the target does not.
    """
    speaker = open_chat(pair.folder, flags.style)
    by_task = questions_of(flags, split)
    tasks = tuple(by_task)
    chosen = [(index, question) for index, task in enumerate(tasks) for question in by_task[task]]
    turns: list[Asked] = []
    talks: list[list[Message]] = [[] for _ in chosen]
    for turn in range(max(len(question.turns) for _, question in chosen)):
        open_talks = [i for i, (_, question) in enumerate(chosen) if len(question.turns) > turn]
        if turn:
            before = [asked for asked in turns if asked.turn == turn - 1]
            going_on = [asked for asked in before if len(asked.question.turns) > turn]
            answers = answers_of(pair, speaker, going_on, flags.new_tokens, folder)
            for talk, answer in zip(open_talks, answers, strict=True):
                talks[talk].append(Message("assistant", answer))
        for talk in open_talks:
            task, question = chosen[talk]
            talks[talk].append(Message("user", question.turns[turn]))
            turns.append(Asked(_prompt(pair, speaker, talks[talk], task, flags), question, turn))
    return Asking(sorted(turns, key=lambda asked: asked.prompt.task), tasks)


def _prompt(
    pair: Pair, speaker: Chat, talk: Sequence[Message], task: int, flags: QuestionFlags
) -> Prompt:
    token_T = speaker.encode(talk)
    check_room(pair, len(token_T), flags.new_tokens)
    check_known(pair, token_T)
    return Prompt(token_T, task)


def questions_of(flags: QuestionFlags, split: Split) -> dict[str, list[Question]]:
    """The questions of a split by task."""
    found: dict[str, list[Question]] = {}
    for path in question_files(flags, split):
        groups: dict[str, list[Question]] = {}
        for question in prompts.load_questions(path):
            short = dataclasses.replace(question, turns=question.turns[: flags.turns])
            groups.setdefault(task_name(question, flags), []).append(short)
        for task, questions in groups.items():
            found[task] = of_split(questions, flags, split)
    if comparison.MEAN in found:
        raise UserError(
            f"A task cannot be called {comparison.MEAN!r}, which reports use; rename that file."
        )
    return found


def task_name(question: Question, flags: QuestionFlags) -> str:
    """The file's name, with `by_category` the category behind it; both name a folder of answers."""
    if not (flags.by_category and question.category):
        return question.task
    category = re.sub(r"[^\w.-]+", "_", question.category)
    return f"{question.task}-{category}"


def question_files(flags: QuestionFlags, split: Split) -> list[Path]:
    """The files of the asked tasks, in the order of their names (the embedded ones in theirs)."""
    if flags.questions is None:
        if split == "all":
            raise UserError("The embedded questions come in splits; name one, or --questions.")
        root = prompts.ASSETS / "prompts" / split
        names: tuple[str, ...] = prompts.TASKS
    else:
        root = flags.questions
        root = root / split if (root / split).is_dir() else root
        names = tuple(sorted(path.stem for path in root.glob("*.jsonl")))
        if not names:
            raise UserError(
                f"{root} holds no question files (*.jsonl); check --questions and --split: files "
                "lie in the folder itself, or in its train/, validation/ and test/."
            )
    unknown = [task for task in flags.tasks if task not in names]
    if unknown:
        raise UserError(
            f"There is no task {unknown[0]!r} in {root}; choose from {', '.join(names)}."
        )
    return [root / f"{name}.jsonl" for name in flags.tasks or names]


def of_split(questions: list[Question], flags: QuestionFlags, split: Split) -> list[Question]:
    """The first questions of a split; where files have no splits, a hash of the question says."""
    whole = flags.questions is None or split == "all" or (flags.questions / split).is_dir()
    chosen = [question for question in questions if whole or hashed_split(question) == split]
    if not chosen:
        raise UserError(
            f"None of the {len(questions)} questions of {questions[0].task} falls into the split "
            f"{split}; give files in train/, validation/ and test/ folders."
        )
    return chosen[: flags.prompts]


def hashed_split(question: Question) -> str:
    """One of train, validation and test: the same for a question wherever it is read."""
    name = f"{question.task} {question.question_id}"
    place = zlib.crc32(name.encode()) / 2**32
    return next(split for split, up_to in SHARES if place < up_to)


def answers_of(
    pair: Pair, speaker: Chat, asked: Sequence[Asked], new_tokens: int, folder: Path
) -> list[str]:
    """The answers' texts, read back where they were written before."""
    digest = digest_of([one.prompt for one in asked])
    how = described(pair.config.sampling, pair.seed)
    if how is not None:
        digest += f"-{zlib.crc32(json.dumps(how).encode()):08x}"
    path = folder / f"answers-{pair.fingerprint}-{new_tokens}-{digest}.json"
    if path.exists():
        return kept_answers(path, len(asked))
    answers: list[str] = []
    for start in range(0, len(asked), record.TEXTS_AT_ONCE):
        piece = [one.prompt.token for one in asked[start : start + record.TEXTS_AT_ONCE]]
        for text_T in record.texts_of(pair, piece, new_tokens):
            answers.append(speaker.tokenizer.decode(text_T.tolist()).strip())
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(answers))
    return answers


def kept_answers(path: Path, count: int) -> list[str]:
    """Answers that were written before; UserError where the file does not hold so many texts."""
    try:
        answers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it to answer again.") from error
    texts = isinstance(answers, list) and all(isinstance(answer, str) for answer in answers)
    if not texts or len(answers) != count:
        raise UserError(f"{path} is damaged (it holds no {count} texts); delete it.")
    return list(answers)


def digest_of(found: Sequence[Prompt]) -> str:
    """12 hex digits that name a list of prompts and which of them belong to one task."""
    parts = [prompt.token.tobytes() + prompt.task.to_bytes(4, "little") for prompt in found]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]
