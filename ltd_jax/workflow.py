"""The stages from a pair to policies, each ending in files of one folder: record, profile, train.

    FOLDER/traces/SPLIT.npz    what every (levels, size) would accept (`load_or_record`)
    FOLDER/latency.json        what every (levels, size) costs here (`load_or_profile`)
    FOLDER/learning/           checkpoints of a training that can be stopped at any moment
    FOLDER/policy.safetensors  the trained policies (`train_policies`), and policy.md, their card
    FOLDER/settings.json       the fastest way to decode that `tune` found

A stage that is found done for the same pair and settings is read; one of another pair or with other
settings is refused. A stopped stage goes on where it was.
"""

import dataclasses
import json
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltd_jax import learning, questions
from ltd_jax.baselines import classifiers
from ltd_jax.baselines import train as baseline_training
from ltd_jax.baselines.classifiers import Classifiers
from ltd_jax.config import (
    CycleConfig,
    LearningConfig,
    PolicyConfig,
    describe_sampling,
    policy_config_from_json,
)
from ltd_jax.decoding import generate
from ltd_jax.decoding.runs import Turn
from ltd_jax.files import OTHER_FOLDER, UserError, identity_of, replacing, require_same
from ltd_jax.learning.loop import CurvePoint, Splits, TrainResult
from ltd_jax.models.pair import Pair
from ltd_jax.policies import card, saved
from ltd_jax.policies.networks import Learned
from ltd_jax.policies.policy import Constant
from ltd_jax.policies.saved import SavedPolicy
from ltd_jax.questions import QuestionConfig, Split
from ltd_jax.replay import latency as latencies
from ltd_jax.replay import optimum, profile, record, sampled, simulate
from ltd_jax.replay import trace as traces
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.optimum import BestConstant
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.simulate import Simulator
from ltd_jax.replay.trace import Trace
from ltd_jax.text import Message

Progress = Callable[[str, float], None]  # of a stage's name and the share of it that is done
POLICY = "policy.safetensors"
NAMED = 8  # most questions that a message about skipped ones names
PROBE = Constant(levels=3, size=6)
PROBE_TEXT = "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return"
PROBE_TOKENS = 48


def silent(stage: str, share: float) -> None:
    """The progress of which nothing is said."""


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """The folder and the settings of all stages."""

    folder: Path
    questions: QuestionConfig = QuestionConfig()
    widths: PolicyConfig = PolicyConfig()
    learning: LearningConfig = LearningConfig()
    profiling: ProfileConfig = ProfileConfig()

    @property
    def traces(self) -> Path:
        """The folder of recordings and of answers between turns."""
        return self.folder / "traces"

    @property
    def latency(self) -> Path:
        """The latency table's file."""
        return self.folder / "latency.json"


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """All turns of some questions, and the names of their tasks."""

    turns: tuple[Turn, ...]
    tasks: tuple[str, ...]
    skipped: tuple[str, ...] = ()  # turns that do not fit the context: file, line, tokens

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts alone."""
        return [turn.prompt for turn in self.turns]


def load_prompts(pair: Pair, config: StageConfig, split: Split) -> PromptSet:
    """The prompts of a split, as token ids of the pair.

    A question of several turns gives one prompt per turn. A later turn holds the answers before it,
    and these are plain decoding's, which are the same whoever decodes; so they are written once,
    side by side, and kept. A turn that does not fit the context with its answer is skipped with a
    warning, and so are those after it.

    Raises:
      UserError: a file is missing or broken, no prompt fits the context with its answer, or the
        tokenizer of the pair's folder knows tokens that the target does not.
    """
    by_task = questions.load_question_set(config.questions, split)
    chosen = [(index, question) for index, task in enumerate(by_task) for question in by_task[task]]
    turns: list[Turn] = []
    talks = [[Message("system", asked.system)] if asked.system else [] for _, asked in chosen]
    last: dict[int, Prompt] = {}  # of every talk
    too_long: dict[int, str] = {}  # by talk: the turn that ends it
    needed, context = 0, pair.config.cycle.context
    for turn in range(max(len(question.turns) for _, question in chosen)):
        has_turn = [i for i, (_, question) in enumerate(chosen) if len(question.turns) > turn]
        open_talks = [talk for talk in has_turn if talk not in too_long]
        if turn and open_talks:
            answers = _load_or_answer(pair, config, [last[talk] for talk in open_talks])
            for talk, answer in zip(open_talks, answers, strict=True):
                talks[talk].append(Message("assistant", answer))
        for talk in open_talks:
            task, question = chosen[talk]
            talks[talk].append(Message("user", question.turns[turn]))
            token_T = pair.encode(talks[talk], config.questions.style)
            if len(token_T) + config.questions.new_tokens > context:
                later = f" from turn {turn + 1} on" if turn else ""
                too_long[talk] = f"{question.place}: {len(token_T)} tokens{later}"
                needed = max(needed, len(token_T) + config.questions.new_tokens)
                continue
            last[talk] = Prompt(token_T, task)
            turns.append(Turn(last[talk], question, turn))
    skipped = tuple(too_long[talk] for talk in sorted(too_long))
    if skipped:
        named = "; ".join(skipped[:NAMED]) + ("; ..." if len(skipped) > NAMED else "")
        new_tokens = config.questions.new_tokens
        rest = (
            f"the context of {context} tokens with {new_tokens} new ones ({named}); raise the "
            f"`context` to {needed} or ask for fewer `new_tokens`."
        )
        if not turns:
            raise UserError(f"None of the {len(chosen)} questions fits {rest}")
        warnings.warn(
            f"{len(skipped)} of {len(chosen)} questions are skipped because they do not fit {rest}",
            stacklevel=1,  # the same place whoever calls, so that it is said once
        )
    return PromptSet(*_by_task(turns, tuple(by_task)), skipped)


def _by_task(
    turns: Sequence[Turn], tasks: Sequence[str]
) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """Turns in the order of their tasks, and the tasks that are left, numbered anew."""
    left = sorted({turn.prompt.task for turn in turns})
    renumbered = [
        dataclasses.replace(turn, prompt=turn.prompt._replace(task=left.index(turn.prompt.task)))
        for turn in turns
    ]
    ordered = sorted(renumbered, key=lambda one: one.prompt.task)
    return tuple(ordered), tuple(tasks[task] for task in left)


def _load_or_answer(pair: Pair, config: StageConfig, prompts: Sequence[Prompt]) -> list[str]:
    """The answers' texts, read back where they were written before."""
    digest = record.digest(prompts)
    sampling = describe_sampling(pair.config.sampling, pair.seed)
    if sampling is not None:
        digest += f"-{zlib.crc32(json.dumps(sampling).encode()):08x}"
    new_tokens = config.questions.new_tokens
    path = config.traces / f"answers-{pair.fingerprint}-{new_tokens}-{digest}.json"
    if path.exists():
        return _kept_answers(path, len(prompts))
    answers, at_once = [], record.side_by_side(len(prompts))
    for start in range(0, len(prompts), at_once):
        piece = [prompt.token for prompt in prompts[start : start + at_once]]
        texts = record.texts_of(pair, piece, new_tokens, at_once)
        answers += [pair.decode(text).strip() for text in texts]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(answers))
    return answers


def _kept_answers(path: Path, count: int) -> list[str]:
    """Answers that were written before; UserError where the file does not hold so many texts."""
    try:
        answers = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it to answer again.") from error
    are_texts = isinstance(answers, list) and all(isinstance(answer, str) for answer in answers)
    if not are_texts or len(answers) != count:
        raise UserError(f"{path} is damaged (it holds no {count} texts); delete it.")
    return list(answers)


def load_or_record(
    pair: Pair,
    config: StageConfig,
    split: Split,
    *,
    with_hidden: bool = False,
    with_accept_prob: bool = False,
    progress: Progress = silent,
) -> Trace:
    """The trace of a split's prompts: recorded, or read where it was recorded before.

    Args:
      with_hidden: also the draft's outputs, which SpecDec++ and policies that see them learn from;
        such traces are large and lie apart.
      with_accept_prob: also the probability that each node is accepted (replay/sampled.py).

    Raises:
      UserError: the file found belongs to another pair, other prompts or settings.
    """
    path = config.traces / (f"{split}-hidden.npz" if with_hidden else f"{split}.npz")
    prompt_set = load_prompts(pair, config, split)
    provenance = record.provenance_of(
        pair, prompt_set.prompts, config.questions.new_tokens, tasks=prompt_set.tasks
    ) | {"asked": config.questions.asked, "skipped": list(prompt_set.skipped)}
    if path.exists():
        trace, cycle = traces.load(path), pair.config.cycle
        trace = traces.require_recording(path, trace, provenance, cycle, remedy=OTHER_FOLDER)
    else:
        started = time.monotonic()
        parts = path.parent / f"{path.stem}-parts"
        progress(f"record {split}", 0.0)
        trace = record.record(
            pair,
            prompt_set.prompts,
            config.questions.new_tokens,
            provenance,
            parts=parts,
            progress=lambda share: progress(f"record {split}", share),
            with_hidden=with_hidden,
        )
        seconds = time.monotonic() - started
        trace = dataclasses.replace(trace, provenance=trace.provenance | {"seconds": seconds})
        traces.save(trace, path)
        shutil.rmtree(parts, ignore_errors=True)  # the whole trace holds them
    if with_accept_prob and trace.accept_prob is None:
        stage = "acceptance probabilities"
        progress(stage, 0.0)
        trace = sampled.add_accept_prob(
            pair, prompt_set.prompts, trace, lambda share: progress(stage, share)
        )
        traces.save(trace, path)
    return trace


def load_or_profile(
    pair: Pair, config: StageConfig, latency: str | None = None, *, progress: Progress = silent
) -> LatencyTable:
    """The latency table of the folder: measured on this device, or read where it was measured.

    Args:
      latency: a shipped table's name or a file, fitted to the pair's cycle and kept as the
        folder's own; None = this device's.

    Raises:
      UserError: the table found belongs to another pair, cycle, sampling or policies.
    """
    if latency is None:
        return load_or_profile_all([pair], [config], progress=progress)[0]
    table = LatencyTable.find(latency, pair.config.cycle)
    if not config.latency.exists():
        latencies.save(table, config.latency)
    kept, wanted = map(latencies.fingerprint, (latencies.load(config.latency), table))
    if kept != wanted:
        raise UserError(f"{config.latency} is latency table {kept}, not {wanted}; {OTHER_FOLDER}.")
    return table


def load_or_profile_all(
    pairs: Sequence[Pair], configs: Sequence[StageConfig], *, progress: Progress = silent
) -> list[LatencyTable]:
    """Tables of several pairs that are to be compared: those still to measure are, in turns.

    Args:
      configs: of every pair, all with the same widths and settings of profiling.
    """
    missing: list[tuple[Pair, StageConfig]] = []
    for pair, config in zip(pairs, configs, strict=True):
        if config.latency.exists():
            require_table(latencies.load(config.latency), config.latency, pair, config.widths)
        else:
            missing.append((pair, config))
    if missing:
        partial_files = [config.folder / "latency-partial.json" for _, config in missing]
        measured = profile.profile_in_turns(
            [pair for pair, _ in missing],
            configs[0].widths,
            configs[0].profiling,
            stores=partial_files,
            progress=lambda share: progress("measure latencies", share),
        )
        for (_, config), table, partial_file in zip(missing, measured, partial_files, strict=True):
            latencies.save(table, config.latency)
            partial_file.unlink(missing_ok=True)
    return [latencies.load(config.latency) for config in configs]


def require_table(table: LatencyTable, path: Path, pair: Pair, widths: PolicyConfig) -> None:
    """Raises UserError unless a table is of this pair and cycle; warns of another device.

    Args:
      widths: of the policies whose decisions are to be timed.
    """
    if "fingerprint" not in table.provenance:
        raise UserError(
            f"{path} is the table of {table.provenance.get('device')}, not measured with this "
            f"pair; {OTHER_FOLDER}."
        )
    there, here = identity_of(table.provenance), pair.identity
    if there.dtype != here.dtype:
        raise UserError(
            f"{path} was made with dtype {there.dtype}, not {here.dtype}; {OTHER_FOLDER}."
        )
    what = f"{path} was made with"
    require_same(what, there, here, remedy=OTHER_FOLDER, other_hardware=True)
    cycle = pair.config.cycle
    if (table.sizes, table.max_levels) != (cycle.sizes, cycle.max_levels):
        raise UserError(
            f"{what} {table.max_levels} levels and sizes {table.sizes}, not {cycle.max_levels} and "
            f"{cycle.sizes}; {OTHER_FOLDER}."
        )
    timed = table.provenance.get("policy")
    if timed is not None and not _are_widths(timed, widths):
        raise UserError(f"{what} policies of other widths or observations; {OTHER_FOLDER}.")


def _are_widths(record: dict[str, Any], widths: PolicyConfig) -> bool:
    """Whether a table's provenance tells of such policies."""
    try:
        return policy_config_from_json(record) == widths
    except (KeyError, TypeError, ValueError):
        return False


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a comparison needs."""

    table: LatencyTable
    best: BestConstant  # on the validation split
    saved: SavedPolicy
    learning: dict[str, Any]  # what the policies cost, as the report has it
    curves: tuple[CurvePoint, ...] = ()  # empty where it was read from a folder
    validation: Simulator | None = None  # likewise


def train_policies(
    pair: Pair, config: StageConfig, latency: str | None = None, *, progress: Progress = silent
) -> Trained:
    """Trains policies for a pair and a device; whatever is found done in the folder is read.

    Args:
      latency: as of `load_or_profile`.
    """
    cycle = pair.config.cycle
    with_hidden = config.widths.observation.hidden > 0
    recorded = [
        load_or_record(pair, config, split, with_hidden=with_hidden, progress=progress)
        for split in ("train", "validation")
    ]
    table = load_or_profile(pair, config, latency, progress=progress)
    splits = Splits(*(simulate.build(trace, table, cycle) for trace in recorded))
    best = optimum.best_constant(splits.validation)
    provenance = _provenance_of(table) | {
        "fingerprint": pair.fingerprint,
        "sampling": describe_sampling(pair.config.sampling),  # of the texts
    }
    result = train_or_resume(splits, config, provenance, progress=progress)
    cost = _learning_cost(result, recorded)
    facts = {
        "best": best._asdict(),
        "learning": cost,
        "skipped": [
            question for trace in recorded for question in trace.provenance.get("skipped", ())
        ],
        "validation": _gained(splits.validation, result),
        "pair": list(pair.names),
        "loaded_with": dict(pair.loaded_with),
        "environment": pair.environment,
    }
    kept = _save_with_card(result.policy, config.folder / POLICY, cycle, provenance | facts)
    return Trained(table, best, kept, cost, tuple(result.curves), splits.validation)


def _gained(validation: Simulator, result: TrainResult) -> dict[str, Any]:
    """Tokens per second on the validation texts by replay, beside the best constant's."""
    return {
        "texts": len(validation.text_start),
        "plain": 1 / float(validation.plain_seconds),
        "learned": result.validation,
        "optimum": optimum.clairvoyant(validation).tokens_per_second,
    }


def _save_with_card(
    policy: Learned, path: Path, cycle: CycleConfig, provenance: dict[str, Any]
) -> SavedPolicy:
    """Writes a policy file and its card beside it; the policies as the file has them."""
    saved.save(policy, path, cycle, provenance)
    kept = saved.load(path)
    card.write(kept)
    return kept


def train_or_resume(
    splits: Splits, config: StageConfig, provenance: dict[str, Any], *, progress: Progress = silent
) -> TrainResult:
    """Trains both policies, or goes on with a training of the folder."""
    progress("train policies", 0.0)
    return learning.train(
        splits,
        config.widths,
        config.learning,
        folder=config.folder / "learning",
        provenance=provenance,
        progress=lambda point, share: progress("train policies", share),
    )


def _learning_cost(result: TrainResult, recorded: Sequence[Trace]) -> dict[str, Any]:
    """Decisions and seconds of learning, positions and seconds of recording."""
    last = {point.stage: point for point in result.curves}
    return {
        "decisions": sum(point.decisions for point in last.values()),
        "seconds": sum(point.seconds for point in last.values()),
        "positions_recorded": sum(len(trace.tokens_left) for trace in recorded),
        "recording_seconds": sum(trace.provenance["seconds"] for trace in recorded),
    }


def load_policy(path: Path | str) -> Learned:
    """Trained policies of a file, or of the folder that `ltd train` or `ltd tune` wrote.

    Decode with a pair that was loaded with their cycle: `load(cycle=policy.cycle)`.

    Raises:
      UserError: the file is missing, damaged or of another version.

    Example, with the file of `save_policy`'s:
      >>> policy = ltd.load_policy("policy.safetensors")
      >>> pair = ltd.load(cycle=policy.cycle)
      >>> sum(len(step.tokens) for step in ltd.generate(pair, policy, "import os", 8))
      8
    """
    return saved.load(policy_file(Path(path))).policy


def policy_file(path: Path) -> Path:
    """The file of trained policies that a path means: itself, or the one in a folder or below it.

    Raises:
      UserError: the folder holds none, or several.
    """
    if not path.is_dir():
        return path
    if (path / POLICY).exists():
        return path / POLICY
    below = [file for depth in ("*", "*/*") for file in sorted(path.glob(f"{depth}/{POLICY}"))]
    if len(below) == 1:
        return below[0]
    if below:
        folders = ", ".join(str(file.parent) for file in below)
        raise UserError(f"{path} holds several trained policies; name one folder: {folders}.")
    steps = [step for folder in (path, path / "policies") for step in folder.glob("*/state")]
    if any(step.parent.name.isdigit() for step in steps):
        raise UserError(
            f"{path} holds checkpoints of a training but no {POLICY}, which trained policies are; "
            "train them again."
        )
    raise UserError(
        f"There are no trained policies in {path} or in the folders below it; `ltd train` and "
        f"`ltd tune` write them as {POLICY} into their `out`."
    )


def save_policy(
    policy: Learned, path: Path | str, table: LatencyTable, cycle: CycleConfig | None = None
) -> None:
    """Writes policies to one safetensors file whose metadata says what they were trained for.

    Their card, the same facts to read, is written beside it: policy.md beside policy.safetensors.

    Args:
      table: the latency table that they were trained with.
      cycle: as of `Simulator.of`.

    Raises:
      UserError: the file cannot be written, or a weight is not finite.

    Example, with `train`'s:
      >>> ltd.save_policy(trained.policy, "policy.safetensors", table, pair.config.cycle)
      >>> ltd.load_policy("policy.safetensors").origin.device == table.provenance["device"]
      True
    """
    cycle = cycle or CycleConfig(**table.provenance["cycle"])
    _save_with_card(policy, Path(path), cycle, _provenance_of(table))


def _provenance_of(table: LatencyTable) -> dict[str, Any]:
    """What a policy file says of the table behind it."""
    names = ("fingerprint", "device", "dtype", "sampling")
    known = {name: table.provenance[name] for name in names if name in table.provenance}
    return known | {"latency": latencies.fingerprint(table)}


def load_trained(path: Path) -> Trained:
    """The policies that `train_policies` left, with the latency table beside their file.

    Args:
      path: as of `policy_file`.

    Raises:
      UserError: something is missing or damaged, or policies and table are not of one training.
    """
    path = policy_file(path)
    policies, table_path = saved.load(path), path.parent / "latency.json"
    table = latencies.load(table_path)
    there, here = policies.provenance.get("latency"), latencies.fingerprint(table)
    if there != here:
        raise UserError(
            f"{path} was trained for latency table {there}, but {table_path} is {here}; train it "
            "again."
        )
    try:
        best = BestConstant(**policies.provenance["best"])
        return Trained(table, best, policies, policies.provenance["learning"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not say its best constant ({error}); train it again."
        ) from error


def require_sampling(trained: Trained, pair: Pair) -> None:
    """Raises UserError where the times behind policies were measured with other sampling."""
    there, here = identity_of(trained.table.provenance).sampling, pair.identity.sampling
    if there not in (None, here):
        raise UserError(
            f"The times behind the policies in {trained.saved.path} were measured with {there}, "
            f"not with {here}; decode with the same sampling, or train again with this one."
        )


def train_classifiers(
    pair: Pair, config: StageConfig, path: Path, *, seed: int = 0, progress: Progress = silent
) -> Classifiers:
    """Trains the compared classifiers on the train split, judges them on the validation split.

    Raises:
      UserError: a text is too short to tell yes from no, or the file cannot be written.
    """
    train, validation = (
        load_or_record(pair, config, split, with_hidden=True, progress=progress)
        for split in ("train", "validation")
    )
    trained = baseline_training.train_classifiers(
        train,
        validation,
        pair.config.cycle,
        seed=seed,
        progress=lambda share: progress("train classifiers", share),
    )
    classifiers.save(trained, path)
    return classifiers.load(path)


def probe(pair: Pair) -> float:
    """Drafted tokens accepted per cycle on a short text, with the constant setting PROBE."""
    prompt_T = pair.encode(PROBE_TEXT, "plain")
    new_tokens = min(PROBE_TOKENS, pair.config.cycle.context - len(prompt_T))
    steps = list(generate.generate(pair, PROBE, prompt_T, new_tokens))
    accepted = [step.accepted for step in steps[1:]]
    return float(np.mean(accepted)) if accepted else 0.0
