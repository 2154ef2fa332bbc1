"""From question files to the prompts that all stages work on.

A task is a question file, or with `by_category` one category of it: so MMLU in one file gives a
task for each of its subjects. A question of several turns gives one prompt per turn. A later turn
holds the answers before it, and these are plain decoding's, which are the same whoever decodes; so
they are written once, side by side, and kept.

Long because all stages that end in files stand here.
"""
# DOC """The stages that end in files: traces and policies; latency tables are in `tables`.
# DOC
# DOC A stage that is found done for the same pair and settings is read; one of another pair is refused.
# DOC """
# DOC """The stage that ends in a latency table: this device's, measured once, or a named one."""
# DOC """The first half of the way: traces, latency table, best constant, policies; or their folder."""

import dataclasses
import hashlib
import json
import re
import shutil
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ltd_jax import files, learning, workflow
from ltd_jax import text as texts
from ltd_jax.baselines import classifiers
from ltd_jax.baselines import train as heads_training
from ltd_jax.baselines.classifiers import Parts, SavedHeads
from ltd_jax.config import (
    LearningConfig,
    PolicyConfig,
    describe_sampling,
)
from ltd_jax.cycle.prefill import check_room
from ltd_jax.decoding import benchmark, generate
from ltd_jax.files import UserError, replacing
from ltd_jax.learning.loop import Point, Splits, TrainResult
from ltd_jax.models.pair import Pair, check_known
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies import saved
from ltd_jax.policies.saved import SavedPolicies
from ltd_jax.replay import latency, optimum, profile, record, sampled, simulate
from ltd_jax.replay import trace as traces
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.optimum import BestConstant
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.simulate import Simulator
from ltd_jax.replay.trace import Trace
from ltd_jax.text import Chat, Message, Question, Style, open_chat

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


class PromptTurn(NamedTuple):
    """One turn of one question."""

    prompt: Prompt
    question: Question
    turn: int


class PromptSet(NamedTuple):
    """All turns of some questions, and the names of their tasks."""

    turns: list[PromptTurn]
    tasks: tuple[str, ...]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts alone."""
        return [asked.prompt for asked in self.turns]


def load_prompts(pair: Pair, flags: QuestionFlags, split: Split, folder: Path) -> PromptSet:
    """The prompts of a split, as token ids of the pair; answers between turns go to `folder`.

    Raises:
      UserError: a file is missing or broken, a prompt and its answer do not fit the context, or
        the tokenizer of the pair's folder knows tokens that the target does not.
    """
    speaker = open_chat(pair.folder, flags.style)
    by_task = questions_of(flags, split)
    tasks = tuple(by_task)
    chosen = [(index, question) for index, task in enumerate(tasks) for question in by_task[task]]
    turns: list[PromptTurn] = []
    talks: list[list[Message]] = [[] for _ in chosen]
    for turn in range(max(len(question.turns) for _, question in chosen)):
        open_talks = [i for i, (_, question) in enumerate(chosen) if len(question.turns) > turn]
        if turn:
            before = [asked for asked in turns if asked.turn == turn - 1]
            going_on = [asked for asked in before if len(asked.question.turns) > turn]
            answers = load_or_answer(pair, speaker, going_on, flags.new_tokens, folder)
            for talk, answer in zip(open_talks, answers, strict=True):
                talks[talk].append(Message("assistant", answer))
        for talk in open_talks:
            task, question = chosen[talk]
            talks[talk].append(Message("user", question.turns[turn]))
            turns.append(
                PromptTurn(_prompt(pair, speaker, talks[talk], task, flags), question, turn)
            )
    return PromptSet(sorted(turns, key=lambda asked: asked.prompt.task), tasks)


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
        for question in texts.load_questions(path):
            short = dataclasses.replace(question, turns=question.turns[: flags.turns])
            groups.setdefault(task_name(question, flags), []).append(short)
        for task, questions in groups.items():
            found[task] = of_split(questions, flags, split)
    if benchmark.MEAN in found:
        raise UserError(
            f"A task cannot be called {benchmark.MEAN!r}, which reports use; rename that file."
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
        root = files.ASSETS / "prompts" / split
        names: tuple[str, ...] = texts.TASKS
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


def load_or_answer(
    pair: Pair, speaker: Chat, asked: Sequence[PromptTurn], new_tokens: int, folder: Path
) -> list[str]:
    """The answers' texts, read back where they were written before."""
    digest = digest_of([one.prompt for one in asked])
    how = describe_sampling(pair.config.sampling, pair.seed)
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


class Recording(Protocol):
    """What `trace_of` reads of a command's config."""

    @property
    def out(self) -> Path: ...
    @property
    def asked(self) -> QuestionFlags: ...


class Measuring(Protocol):
    """What `tables.table_of` reads of a command's config."""

    @property
    def out(self) -> Path: ...
    @property
    def policy(self) -> PolicyConfig: ...
    @property
    def measure(self) -> profile.ProfileConfig: ...


class Settings(Recording, Measuring, Protocol):
    """What all stages together read of a command's config."""

    @property
    def learning(self) -> LearningConfig: ...


@contextmanager
def bar(console: Console, title: str) -> Iterator[Any]:
    """A progress bar with the time left; yields a function that takes the share done."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda share: progress.update(task, completed=share)
        progress.update(task, completed=1.0)


def trace_path(settings: Recording, split: Split, with_hidden: bool = False) -> Path:
    """Where a split's trace lies; those with the draft's outputs are large and lie apart."""
    return settings.out / "traces" / (f"{split}-hidden.npz" if with_hidden else f"{split}.npz")


def load_or_record(
    pair: Pair,
    split: Split,
    settings: Recording,
    console: Console,
    with_hidden: bool = False,
    with_reach: bool = False,
) -> Trace:
    """Records a split's prompts, or reads what was recorded before.

    Args:
      with_hidden: also the draft's outputs, which SpecDec++ learns from.
      with_reach: also with the probability that each node is accepted (replay/reach.py).
    """
    path, new_tokens = trace_path(settings, split, with_hidden), settings.asked.new_tokens
    asking = load_prompts(pair, settings.asked, split, path.parent)
    found = asking.prompts
    origin = pair.environment | {
        "tasks": list(asking.tasks),
        "fingerprint": pair.fingerprint,
        "prompts": digest_of(found),
        "new_tokens": new_tokens,
        "sampling": describe_sampling(pair.config.sampling, pair.seed),
    }
    if path.exists():
        trace = _recorded(path, pair, origin)
        return _reaching(pair, found, trace, path, console) if with_reach else trace
    started = time.monotonic()
    with bar(console, f"record {split}") as advance:
        parts = path.parent / f"{path.stem}-parts"
        report = lambda texts: advance(texts / len(found))
        trace = record.record(pair, found, new_tokens, origin, parts, report, with_hidden)
    seconds = time.monotonic() - started
    trace = dataclasses.replace(trace, provenance=trace.provenance | {"seconds": seconds})
    traces.save(trace, path)
    shutil.rmtree(parts, ignore_errors=True)  # the whole trace holds them
    return _reaching(pair, found, trace, path, console) if with_reach else trace


def _recorded(path: Path, pair: Pair, origin: dict[str, Any]) -> Trace:
    """A trace that is there; UserError where it is of another pair or other settings."""
    trace, cycle = traces.load(path), pair.config.cycle
    for name in traces.SAME_RECORDING:
        must_equal(path, name, trace.provenance.get(name), origin[name])
    shape = (cycle.max_levels, cycle.beam_width)
    must_equal(path, "levels and beam width", trace.score.shape[1:3], shape)
    return traces.with_task_names(trace, origin)


def _reaching(
    pair: Pair, found: Sequence[Prompt], trace: Trace, path: Path, console: Console
) -> Trace:
    """The same trace with acceptance probabilities, kept in the same file."""
    if trace.reach is not None:
        return trace
    with bar(console, "acceptance probabilities") as advance:
        trace = sampled.add_reach(pair, found, trace, lambda texts: advance(texts / len(found)))
    traces.save(trace, path)
    return trace


def train_or_resume(
    pair: Pair,
    replays: Splits,
    origin: dict[str, Any],
    settings: Settings,
    console: Console,
) -> TrainResult:
    """Trains both policies, or goes on training them."""
    with bar(console, "train policies") as advance:
        return learning.train(
            replays,
            pair.config.cycle,
            settings.policy,
            settings.learning,
            folder=settings.out / "learning",
            provenance=origin,
            progress=lambda point, share: advance(share),
        )


def as_json(value: Any) -> Any:
    """A value as it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def must_equal(path: Path, name: str, there: Any, here: Any) -> None:
    """Raises UserError unless a file found was made with the same value of a setting."""
    if there == here:
        return
    if name == "prompts":
        raise UserError(
            f"{path} was made with other prompts: what is asked, how many, or how they are put to "
            "the target has changed; give another --out or delete it."
        )
    raise UserError(
        f"{path} was made with {name} {there}, not {here}; give another --out or delete it."
    )


def load_or_profile(pair: Pair, settings: Measuring, console: Console) -> LatencyTable:
    """Measures this device, or reads what was measured before, or goes on measuring."""
    return load_or_profile_all([pair], [settings], console)[0]


def load_or_profile_all(
    pairs: Sequence[Pair], settings: Sequence[Measuring], console: Console
) -> list[LatencyTable]:
    """`table_of` several pairs that are to be compared: those still to measure are, in turns.

    Args:
      settings: of every pair, all with the same `policy` and `measure`.
    """
    paths = [each.out / "latency.json" for each in settings]
    missing = []
    for pair, path in zip(pairs, paths, strict=True):
        if path.exists():
            must_fit(latency.load(path), path, pair)
        else:
            missing.append((_subject(pair, path), path))
    if missing:
        here, subjects = settings[0], [subject for subject, _ in missing]
        with bar(console, "measure latencies") as advance:
            tables = profile.profile_in_turns(subjects, here.policy, here.measure, advance)
        for (_, path), table in zip(missing, tables, strict=True):
            latency.save(table, path)
            _partial_file(path).unlink(missing_ok=True)
    return [latency.load(path) for path in paths]


def _subject(pair: Pair, path: Path) -> profile.Subject:
    """A pair to measure on this device."""
    origin = pair.environment
    origin |= {"fingerprint": pair.fingerprint, "sampling": describe_sampling(pair.config.sampling)}
    origin["cycle"] = dataclasses.asdict(pair.config.cycle)
    return profile.Subject(pair, origin, _partial_file(path))


def _partial_file(path: Path) -> Path:
    """Where halves of a table are kept until it is measured."""
    return path.with_name(f"{path.stem}-partial.json")


def must_fit(table: LatencyTable, path: Path, pair: Pair) -> None:
    """Raises UserError unless a table is of this pair and its cycle; warns of another device."""
    cycle, origin = pair.config.cycle, table.provenance
    if "fingerprint" not in origin:
        raise UserError(
            f"{path} is the table of {origin.get('device')}, not measured with this pair; give "
            "another --out or delete it."
        )
    must_equal(path, "fingerprint", origin.get("fingerprint"), pair.fingerprint)
    must_equal(path, "dtype", origin.get("dtype"), jnp.dtype(pair.dtype).name)
    must_equal(path, "sampling", origin.get("sampling"), describe_sampling(pair.config.sampling))
    must_equal(path, "sizes", table.sizes, cycle.sizes)
    must_equal(path, "levels", table.max_levels, cycle.max_levels)
    here = as_json(dataclasses.asdict(cycle))
    for name, there in origin.get("cycle", {}).items():
        must_equal(path, name, there, here.get(name))
    if origin.get("device") != pair.device:
        warnings.warn(
            f"{path} was measured on {origin.get('device')}, so the policies are trained for that "
            f"device and not for {pair.device}.",
            stacklevel=2,
        )


def must_decide_alike(table: LatencyTable, path: Path, policy: PolicyConfig) -> None:
    """Raises UserError where a table's decisions were timed with policies of another kind."""
    here = as_json(dataclasses.asdict(policy))
    must_equal(path, "policies", table.provenance.get("policy", here), here)


def must_sample_alike(table: LatencyTable, policies: Path, pair: Pair) -> None:
    """Raises UserError where a table, of some policies, was measured with other sampling."""
    there, here = table.provenance.get("sampling"), describe_sampling(pair.config.sampling)
    if "sampling" in table.provenance and there != here:
        words = lambda found: "greedy decoding" if found is None else f"sampling {found}"
        raise UserError(
            f"The times behind the policies in {policies} were measured with {words(there)}, not "
            f"with {words(here)}; decode with the same sampling flags, or train again with these."
        )


def named_table(
    pair: Pair, settings: Measuring, name: str | None, console: Console
) -> LatencyTable:
    """The table of a shipped name or a file, fitted to the pair's cycle; None = `table_of`."""
    if name is None:
        table = load_or_profile(pair, settings, console)
        must_decide_alike(table, settings.out / "latency.json", settings.policy)
        return table
    return latency.fit(latency.find(name), pair.config.cycle)


def kept_table(pair: Pair, settings: Measuring, name: str, console: Console) -> LatencyTable:
    """`named_table`, kept as the folder's own, so that what is trained for it lies beside it."""
    path = settings.out / "latency.json"
    table = named_table(pair, settings, name, console)
    if path.exists():
        there, here = latency.load(path), latency.fingerprint(table)
        must_equal(path, "latency table", latency.fingerprint(there), here)
    else:
        latency.save(table, path)
    return table


class Trained(NamedTuple):
    """What a comparison needs."""

    table: LatencyTable
    best: BestConstant  # on the validation split
    policies: SavedPolicies
    learning: dict[str, Any]  # what the policies cost, as the report has it
    curves: Sequence[Point] = ()  # empty where it was read from a folder
    validation: Simulator | None = None  # likewise


def train_policies(
    pair: Pair, settings: Settings, console: Console, latencies: str | None = None
) -> Trained:
    """Trains policies for a pair and a device; whatever is found done in the folder is read.

    Args:
      latencies: a shipped table's name or a file; None = this device, measured.
    """
    cycle, folder = pair.config.cycle, settings.out / "policies"
    hidden = settings.policy.observation.hidden > 0
    traces = [
        load_or_record(pair, split, settings, console, with_hidden=hidden)
        for split in ("train", "validation")
    ]
    if latencies is None:
        table = named_table(pair, settings, None, console)
    else:
        table = kept_table(pair, settings, latencies, console)
    lessons = Splits(*[simulate.build(trace, table, cycle) for trace in traces])
    best = optimum.best_constant(lessons.validation, cycle)
    console.print(f"best constant on validation: levels {best.levels}, size {best.size}")
    origin = {
        "fingerprint": pair.fingerprint,
        "latency": latency.fingerprint(table),
        "device": table.provenance["device"],
        "dtype": table.provenance["dtype"],
        "sampling": describe_sampling(pair.config.sampling),  # of the texts
    }
    learned = train_or_resume(pair, lessons, origin, settings, console)
    learning = cost_of(learned, traces)
    found = {"best": best._asdict(), "learning": learning}
    saved.save(folder, learned.params, cycle, settings.policy, origin | found)
    return Trained(table, best, saved.load(folder), learning, learned.curves, lessons.validation)


def cost_of(learned: TrainResult, traces: Sequence[Trace]) -> dict[str, Any]:
    """What the policies cost."""
    last: dict[str, Point] = {point.stage: point for point in learned.curves}
    return {
        "decisions": sum(point.decisions for point in last.values()),
        "seconds": sum(point.seconds for point in last.values()),
        "positions_recorded": sum(len(trace.remaining) for trace in traces),
        "recording_seconds": sum(trace.provenance["seconds"] for trace in traces),
    }


def load_trained(folder: Path) -> Trained:
    """The policies that `train` left, with the latency table beside their folder.

    Raises:
      UserError: something is missing or damaged, or policies and table are not of one training.
    """
    policies, path = saved.load(folder), folder.parent / "latency.json"
    table = latency.load(path)
    there, here = policies.provenance.get("latency"), latency.fingerprint(table)
    if there != here:
        raise UserError(
            f"{folder} was trained for latency table {there}, but {path} is {here}; train it again."
        )
    try:
        best = BestConstant(**policies.provenance["best"])
        return Trained(table, best, policies, policies.provenance["learning"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder} does not say its best constant ({error}); train it again."
        ) from error


PROBE = "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return"

PROBE_TOKENS = 48

PROBE_LEVELS, PROBE_SIZE = 3, 6

PROBE_LEVELS, PROBE_SIZE = 3, 6


def probe(pair: Pair) -> float:
    """Accepted tokens per cycle on a short text."""
    tokenizer = texts.load_tokenizer(pair.folder)
    context = pair.config.cycle.context
    prompt_T = texts.encode_prompt(tokenizer, workflow.PROBE, context)
    new_tokens = min(workflow.PROBE_TOKENS, context - len(prompt_T))
    setting = policy_module.constant_params(
        workflow.PROBE_LEVELS, workflow.PROBE_SIZE, pair.config.cycle
    )
    bursts = generate.generate(pair, policy_module.constant(), setting, prompt_T, new_tokens)
    accepted = [burst.accepted for burst in bursts][1:]
    return float(np.mean(accepted)) if accepted else 0.0


def train_classifiers(
    pair: Pair, settings: Recording, folder: Path, seed: int, console: Console
) -> SavedHeads:
    """Trains all three on the train split, judges them on the validation split, saves them.

    Raises:
      UserError: a text is too short to tell yes from no, or a folder cannot be written.
    """
    lesson, check = (
        load_or_record(pair, split, settings, console, with_hidden=True)
        for split in ("train", "validation")
    )
    heads, widths, quality = {}, {}, {}
    assert lesson.hidden is not None
    hidden_size = lesson.hidden.shape[-1]  # twice the draft's width for a Griffin draft
    configs = heads_training.head_configs(hidden_size)
    with bar(console, "train classifiers") as advance:
        for place, name in enumerate(heads_training.NAMES, 1):
            config = configs[name]
            network = classifiers.head_network(name, config.width)
            heads[name] = heads_training.fit_classifier(
                network, heads_training.examples_of(name, lesson), config, seed
            )
            widths[name] = config.width
            judged = heads_training.classifier_quality(
                network, heads[name], heads_training.examples_of(name, check)
            )
            quality[name] = judged._asdict()
            advance(place / len(heads_training.NAMES))
    power = heads_training.fit_calibration(lesson, seed)
    errors = [heads_training.expected_error(check, each, seed) for each in (0 * power + 1, power)]
    found: dict[str, Any] = {
        "fingerprint": pair.fingerprint,
        "quality": quality,
        "calibration_error": {"before": errors[0], "after": errors[1]},
        "recorded": {key: lesson.provenance.get(key) for key in ("prompts", "new_tokens", "date")},
    }
    parts = Parts(heads, widths, power)
    classifiers.save_heads(folder, parts, pair.config.cycle, hidden_size, found)
    return classifiers.load_heads(folder)
