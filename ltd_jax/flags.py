"""Flags that all commands share, and the way from a mistake to one clear sentence.

The library speaks of arguments in backticks; `run` turns `` `context` `` into `--context`.
"""

import contextlib
import dataclasses
import difflib
import errno
import io
import os
import re
import signal
import sys
import threading
import time
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, TypeVar

import jax
import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ltd_jax import files, presets
from ltd_jax.config import CycleConfig, Rule, SamplingConfig
from ltd_jax.files import ASSETS, UserError, user_errors
from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import hub
from ltd_jax.models.pair import Pair
from ltd_jax.presets import Preset
from ltd_jax.workflow import Progress as ProgressCallback

STRICT = ("strict", "surrogateescape")  # ways of a stream that raise for what it cannot encode
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
(WITHOUT_PREFIX,) = tyro.conf.OmitArgPrefixes[int].__metadata__  # the mark of such a field
DType = Literal["auto", "float32", "bfloat16", "float16"]
RARE = "rare"
T = TypeVar("T")
Rare = Annotated[T, RARE]  # a flag that --help leaves out and --help-all shows
REPORT_EVERY = 30.0  # seconds between two lines about a stage, where no bar can be drawn


@dataclasses.dataclass(frozen=True)
class SamplingFlags:
    """How the target's tokens are drawn (cycle/sample.py); the default is greedy."""

    temperature: float = 0.0  # 0 = greedy
    top_k: int = 0  # draw among so many of the likeliest tokens; 0 = all
    top_p: float = 1.0  # draw among the likeliest tokens that hold this share
    repetition_penalty: Rare[float] = 1.0  # divides the logits of tokens that were there; 1 = none
    draft_temperature: Rare[float] = 1.0  # of the draft's own draws, under the sequential rule
    rule: Rare[Rule] = "coupled"  # sequential: tokens other than plain decoding's, of the same law
    seed: int = 0  # of the random numbers; every prompt has its own of them

    @property
    def config(self) -> SamplingConfig:
        """The settings; UserError where there are no such ones."""
        settings = {name: value for name, value in vars(self).items() if name != "seed"}
        try:
            return SamplingConfig(**settings)
        except ValueError as error:
            raise UserError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class ShapeFlags:
    """Shapes of a cycle; None = what the policy, or the target's preset, says."""

    beam_width: int | None = None  # nodes that each draft pass starts from
    max_levels: int | None = None  # most draft passes of a cycle
    sizes: tuple[int, ...] | None = None  # numbers of drafted nodes that can be verified
    context: int | None = None  # most tokens of prompt and answer
    prefill_chunk: Rare[int | None] = None  # tokens per prefill pass
    cycles_per_call: Rare[int | None] = None  # cycles between two visits of the host
    short_catch_ups: Rare[tuple[int, ...] | None] = None  # rows of catch-up passes for short paths

    @property
    def changes(self) -> dict[str, Any]:
        """What is asked for, by a cycle's fields."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def of(self, cycle: CycleConfig) -> CycleConfig:
        """The cycle with what is asked for; UserError where there is no such cycle."""
        with user_errors("There is no such cycle"):
            return dataclasses.replace(cycle, **self.changes)


@dataclasses.dataclass(frozen=True)
class PairFlags:
    """Which pair, and how it decodes."""

    target: Annotated[Path, tyro.conf.arg(aliases=("--pair",))] = ASSETS / "target"
    """folder of its weights and tokenizer, a GGUF file, a hub id, or a published pair's name
    (smollm2, once `ltd fetch smollm2` was run)"""
    draft: Path | None = None
    """folder or hub id of the EAGLE-3 or Griffin draft; None = the one that ships for the target,
    and for another target none: it decodes plainly"""
    dtype: DType = "auto"  # auto = bfloat16 on accelerators, float32 on processors
    devices: int = 1  # of this host, that weights and caches are split over
    feature_layers: Rare[tuple[int, ...] | None] = None
    """layers of the target that the draft reads; None = as the draft says"""
    draft_rope_theta: Rare[float | None] = None  # None = as the draft says
    compile_cache: Rare[bool] = True  # keep compiled programs, so that the next start is quick
    verbose: bool = False  # say all settings and how the folders are read
    sampling: tyro.conf.OmitArgPrefixes[SamplingFlags] = SamplingFlags()
    shapes: tyro.conf.OmitArgPrefixes[ShapeFlags] = ShapeFlags()

    @property
    def preset(self) -> Preset:
        """The settings that a command for this target starts from, on this device."""
        if not self.target.is_dir():  # a hub id, not fetched yet
            return presets.of(jax.default_backend())
        return pairs.preset_of(self.target)

    @property
    def cycle(self) -> CycleConfig:
        """The preset's cycle with the shapes that are asked for."""
        return self.shapes.of(self.preset.cycle)

    @property
    def environment(self) -> dict[str, Any]:
        """Where numbers come from that a command with these flags writes."""
        return files.environment(self.dtype, self.devices)


Flags = TypeVar("Flags", bound=PairFlags)


def by_lines(description: str) -> str:
    """A command's description whose examples stay lines of their own in --help."""
    return description.replace("\nltd ", "\n\nltd ")


def parse(
    start: Callable[[Preset], Flags],
    argv: list[str] | None = None,
    *,
    prog: str | None = None,
    description: str | None = None,
    small: Callable[[Flags], Flags] | None = None,
    siblings: Mapping[str, Callable[[Preset], PairFlags]] | None = None,
) -> Flags:
    """The command line, with hub ids downloaded and nothing left to choose.

    --help shows the everyday flags, --help-all those that are marked `Rare`, too.

    Args:
      start: the command's settings where no flag changes them, for the target's preset.
      argv: without the command's name; None = of this process.
      small: the settings that --smoke starts from, of the usual ones.
      siblings: `start` of other commands, which may have a flag that this one has not.

    Raises:
      UserError: a folder or a value cannot be.
    """
    argv = sys.argv[1:] if argv is None else argv
    require_backend()
    named, others = tyro.cli(PairFlags, args=argv, return_unknown_args=True, add_help=False)
    is_small = small is not None and "--smoke" in others

    def begin(preset: Preset) -> Flags:
        return small(start(preset)) if small is not None and is_small else start(preset)

    default = begin(named.preset)
    asked = {"-h", "--help", "--help-all"} & set(argv)
    with _plain_if_asked():
        if asked:
            shown = as_shown(default, everything="--help-all" in asked)
            more = "" if "--help-all" in asked else "\n\n--help-all shows every flag."
            said = by_lines(description or "")
            said += more
            tyro.cli(type(shown), args=["--help"], default=shown, prog=prog, description=said)
        parsed, unknown = tyro.cli(
            type(default), args=argv, default=default, prog=prog, return_unknown_args=True
        )
    if unknown:
        flags_of = {name: names(other(named.preset)) for name, other in (siblings or {}).items()}
        raise not_known(unknown[0], default, prog or files.program_name(), flags_of)
    config = resolved(parsed)
    if config.target == named.target:
        return config
    default = begin(config.preset)  # of a hub id, now that its settings are here
    parsed = tyro.cli(type(default), args=argv, default=default, prog=prog)
    found = {name: getattr(config, name) for name in ("target", "draft", "dtype")}
    return dataclasses.replace(parsed, **found)


@contextlib.contextmanager
def _plain_if_asked() -> Iterator[None]:
    """No colours from tyro where NO_COLOR is set, which it does not read."""
    terminal = os.environ.get("TERM")
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"
    try:
        yield
    finally:
        if terminal is not None:
            os.environ["TERM"] = terminal
        else:
            os.environ.pop("TERM", None)


def as_shown(default: Any, *, everything: bool) -> Any:
    """The same settings in a kind of flags that is only for help: plainly named, own ones first.

    Args:
      everything: also the rare ones.
    """
    kind, suppress = type(default), typing.cast(Any, tyro.conf.Suppress)
    kinds, values = dict[str, Any](), dict[str, Any]()
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        value = getattr(default, name)
        shown: Any = hint
        if dataclasses.is_dataclass(value):
            value = as_shown(value, everything=everything)
            marks = getattr(hint, "__metadata__", ())
            shown = Annotated[(type(value), *marks)] if marks else type(value)
        elif hint_name := _optional_name(hint):
            shown = Annotated[hint, tyro.conf.arg(metavar=hint_name)]
        is_hidden = RARE in getattr(hint, "__metadata__", ()) and not everything
        kinds[name] = suppress[shown] if is_hidden else shown
        values[name] = value
    space = {"__annotations__": kinds, "__doc__": kind.__doc__, "__module__": kind.__module__}
    shown_kind: Any = dataclasses.dataclass(frozen=True)(type(kind.__name__, (kind,), space))
    fields = shown_kind.__dataclass_fields__  # help lists them in this order
    own = [name for name in kind.__annotations__ if name in fields]
    shown_kind.__dataclass_fields__ = {
        name: fields[name] for name in dict.fromkeys((*own, *fields))
    }
    made = object.__new__(shown_kind)
    made.__dict__.update(values)
    return made


def _optional_name(hint: Any) -> str | None:
    """How help names the value of a flag that may be None; None for other flags."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    choices = typing.get_args(hint)
    if type(None) not in choices:
        return None
    kind = next(choice for choice in choices if choice is not type(None))
    if typing.get_origin(kind) is not tuple:
        return str(kind.__name__).upper().replace("STR", "TEXT")
    inner = typing.get_args(kind)
    names = [part.__name__.upper() for part in inner if part is not ...]
    return f"{names[0]} [{names[0]} ...]" if ... in inner else " ".join(names)


def resolved(config: Flags) -> Flags:
    """The same flags with folders for hub ids and a dtype for "auto"."""
    require_backend()
    theta = config.draft_rope_theta
    if theta is not None and not 1 <= theta < float("inf"):
        raise UserError(f"`draft_rope_theta` is {theta} but must be a number >= 1.")
    at_least_one(config, "devices")
    target, draft = hub.folder_of(config.target, "target"), config.draft
    return dataclasses.replace(
        config,
        target=target,
        draft=pairs.usual_draft(target) if draft is None else hub.folder_of(draft, "draft"),
        dtype=pairs.default_dtype(target) if config.dtype == "auto" else config.dtype,
    )


def described(config: Any) -> Iterator[str]:
    """A line for every field of a config; one for all fields of a config within it."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, ShapeFlags):
            continue  # `load_pair` says the whole cycle
        is_group = dataclasses.is_dataclass(value)
        yield f"{field.name}: {_words(value) if is_group else value}"


def _words(config: Any) -> str:
    """All fields of a config in one line."""
    return ", ".join(line.replace(": ", " ") for line in described(config))


def load_pair(
    flags: PairFlags, cycle: CycleConfig, *, packed: bool | None = None, plain: bool = False
) -> Pair:
    """The pair that the flags name; says on stderr what it is and what decodes it.

    Args:
      packed: weights in the layout of models/cpu_layout.py; None = where that is fast.
      plain: nothing but plain decoding is asked for, so that no draft is needed.

    Raises:
      UserError: there is no such pair, or it has no draft.
    """
    sampling, flags = flags.sampling.config, resolved(flags)
    if not plain:
        drafted(flags)
    keep_programs(flags.compile_cache)
    pair = pairs.load(
        flags.target,
        flags.draft,
        cycle=cycle,
        dtype=flags.dtype,
        sampling=sampling,
        seed=flags.sampling.seed,
        feature_layers=flags.feature_layers,
        draft_rope_theta=flags.draft_rope_theta,
        packed=packed,
        devices=flags.devices,
    )
    if flags.verbose:
        for line in (*described(flags), f"cycle: {cycle}", f"fingerprint: {pair.fingerprint}"):
            say(line)
    sizes = " ".join(map(str, cycle.sizes))
    drawn = "" if flags.sampling.temperature == 0 else f"; drawn with {_words(flags.sampling)}"
    say(
        f"{pair.names[0]} with {pair.names[1]}, {flags.dtype} on {pair.device}; up to "
        f"{cycle.max_levels} levels, sizes {sizes}, context {cycle.context}{drawn}"
    )
    for remark in pair.remarks:
        say(remark)
    return pair


def drafted(flags: PairFlags) -> Path:
    """The draft's folder; UserError where there is none."""
    if flags.draft is None:
        raise UserError(
            f"{hub.name_of(flags.target)} needs a draft for this; give its folder or hub id as "
            "`draft`, train one with ltd train-draft, or decode plainly with ltd generate."
        )
    return flags.draft


def keep_programs(wanted: bool) -> None:
    """Keeps compiled programs on disk for the next start, unless jax was told where itself."""
    if not wanted:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = files.user_cache() / "programs"
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            say(f"Compiled programs are kept in {folder}; --no-compile-cache keeps none.")
    except OSError as error:
        say(f"Compiled programs cannot be kept in {folder} ({error.strerror}).")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def say(line: str) -> None:
    """A line for the person, beside the command's output."""
    print(line, file=sys.stderr)


@contextlib.contextmanager
def progress_bars(console: Console) -> Iterator[ProgressCallback]:
    """A bar for every stage that reports its share, as `workflow` takes it; else nothing.

    Where no bar can be drawn, as in a pipe or a log: a line when a stage begins and ends, and every
    `REPORT_EVERY` seconds, on stderr.
    """
    with _bars(console) if console.is_terminal else _lines() as advance:
        yield advance


@contextlib.contextmanager
def _bars(console: Console) -> Iterator[ProgressCallback]:
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=None),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}

    def advance(stage: str, share: float) -> None:
        if not tasks:
            bars.start()
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=1.0)
        bars.update(tasks[stage], completed=share)

    try:
        yield advance
    finally:
        if tasks:  # rich would print an empty line
            bars.stop()


@contextlib.contextmanager
def _lines() -> Iterator[ProgressCallback]:
    started: dict[str, float] = {}
    shares: dict[str, float] = {}
    over = threading.Event()

    def say_all() -> None:
        while not over.wait(REPORT_EVERY):
            for stage, share in list(shares.items()):
                if share < 1:
                    say(f"{stage}: {share:.0%} after {time.monotonic() - started[stage]:.0f} s")

    def advance(stage: str, share: float) -> None:
        if stage not in started:
            started[stage] = time.monotonic()
            if share < 1:
                say(f"{stage} ...")
        if share >= 1 > shares.get(stage, 0.0):
            say(f"{stage}: done after {time.monotonic() - started[stage]:.1f} s")
        shares[stage] = share

    reporter = threading.Thread(target=say_all, daemon=True)
    reporter.start()
    try:
        yield advance
    finally:
        over.set()
        reporter.join()


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as ctrl-C does."""


def run(main: Callable[[], None], *, resumes: bool = True) -> None:
    """Calls a command's main; exit code 2 for a UserError, 130 when interrupted.

    Args:
      resumes: whether the same command goes on from what an interrupted one has written.
    """
    signal.signal(signal.SIGTERM, _terminate)
    print_anything()
    warnings.showwarning = lambda message, *place, **rest: say(f"warning: {as_flags(str(message))}")
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        say(f"error: {as_flags(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        kept = "; what is done is kept, the same command goes on" if resumes else ""
        say(f"\nInterrupted{kept}.")
        sys.exit(130)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        say(f"error: {too_large(error)}")
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has enough
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _drop_output()
        place = error.filename or "what this command prints or keeps"
        say(f"error: Cannot write {place}: {error.strerror}.")
        sys.exit(2)


def print_anything() -> None:
    """What the terminal's encoding lacks is printed as ?, where else an answer would end in it."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in STRICT:
        sys.stdout.reconfigure(errors="replace")


def _drop_output() -> None:
    """What is still to be printed goes nowhere; else Python would try, and fail, at its end."""
    with contextlib.suppress(OSError):  # of a stream that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_flags(sentence: str) -> str:
    """A sentence of the library with its arguments as flags: `new_tokens` as --new-tokens.

    Other text in backticks, such as `ltd inspect`, stays as it is.
    """

    def shown(match: re.Match[str]) -> str:
        is_argument = re.fullmatch(r"[a-z][a-z0-9_.]*", match[1])
        return "--" + match[1].replace("_", "-") if is_argument else match[0]

    return re.sub(r"`([^`]*)`", shown, sentence)


def too_large(error: Exception) -> str:
    """The sentence for a device without room."""
    reason = str(error).split("\n")[0].rstrip(".")
    return (
        f"{files.device_name()} has no room for this ({reason}); take a smaller context or "
        "beam, split the pair with --devices, or look with `ltd inspect` at what it needs."
    )


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def not_known(
    word: str, config: PairFlags, prog: str, others: Mapping[str, Sequence[str]]
) -> UserError:
    """The refusal of a word of the command line that a command does not know.

    Args:
      prog: how the command is called.
      others: the flags of other commands.
    """
    ask = f"`{prog} --help` lists its flags"
    if not word.startswith("-"):
        return UserError(
            f"{word!r} belongs to no flag; put a value with spaces in quotes, or see what there "
            f"is: {ask}."
        )
    flag = word.partition("=")[0].replace("_", "-")
    known_by = [other for other, flags in others.items() if flag in flags]
    similar = difflib.get_close_matches(flag, names(config), n=1)
    if known_by:
        hint = f"{' and '.join(known_by)} {'have' if len(known_by) > 1 else 'has'} it; "
    else:
        hint = f"did you mean {similar[0]}? " if similar else ""
    return UserError(f"{prog} has no flag {flag}; {hint}{ask}.")


def names(config: Any, prefix: str = "--") -> list[str]:
    """The flags of a command's settings."""
    found = []
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            marks = getattr(field.type, "__metadata__", ())
            found += names(value, prefix if WITHOUT_PREFIX in marks else f"{flag}.")
        else:
            found.append(flag)
    return found


def require_backend() -> None:
    """Raises UserError where the devices that jax is told to use are not there."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # as jax says it, or an assertion of its own
        asked = jax.config.jax_platforms
        what = f"JAX_PLATFORMS is {asked}, but" if asked else "There is no device:"
        reason = str(error).split("\n")[0].rstrip(".")
        raise UserError(
            f"{what} this installation of jax can use none{f' ({reason})' if reason else ''}; "
            "install ltd-jax[cuda13], ltd-jax[cuda12] or ltd-jax[tpu] where there is one, or set "
            "JAX_PLATFORMS to cpu."
        ) from error


def at_least_one(config: Any, *names: str) -> None:
    """UserError where a count of a command's flags is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"`{name}` is {getattr(config, name)} but must be at least 1.")


def writable(folder: Path) -> Path:
    """Makes an output folder; UserError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder} ({error.strerror}); give another folder with `out`."
        ) from error
    return folder
