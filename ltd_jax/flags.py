"""Flags that all commands share, and the way from a mistake to one clear sentence.

The library speaks of arguments in backticks; `run` turns `` `context` `` into `--context`.
"""

import contextlib
import dataclasses
import difflib
import errno
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import jax
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ltd_jax import files, presets
from ltd_jax.config import CycleConfig, Rule, SamplingConfig
from ltd_jax.files import ASSETS, UserError, user_errors
from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import hub
from ltd_jax.models.pair import Pair
from ltd_jax.presets import Preset
from ltd_jax.workflow import Progress as ProgressCallback

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
(WITHOUT_PREFIX,) = tyro.conf.OmitArgPrefixes[int].__metadata__  # the mark of such a field
DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True)
class SamplingFlags:
    """How the target's tokens are drawn (cycle/sample.py); the default is greedy."""

    temperature: float = 0.0  # 0 = greedy
    top_k: int = 0  # 0 = all tokens
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    draft_temperature: float = 1.0
    rule: Rule = "coupled"
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
    prefill_chunk: int | None = None  # tokens per prefill pass
    cycles_per_call: int | None = None  # cycles between two visits of the host
    short_catch_ups: tuple[int, ...] | None = None  # rows of catch-up passes for short paths

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

    target: Path = ASSETS / "target"  # folder of its weights and tokenizer, or a hub id
    draft: Path = ASSETS / "draft"
    dtype: DType = "auto"  # auto = bfloat16 on accelerators, float32 on processors
    devices: int = 1  # of this host, that weights and caches are split over
    feature_layers: tuple[int, int, int] | None = None  # None = as the draft says
    draft_rope_theta: float | None = None  # None = as the draft says
    sampling: tyro.conf.OmitArgPrefixes[SamplingFlags] = SamplingFlags()
    shapes: tyro.conf.OmitArgPrefixes[ShapeFlags] = ShapeFlags()

    @property
    def preset(self) -> Preset:
        """The settings that a command for this target starts from."""
        return presets.of(self.target)

    @property
    def cycle(self) -> CycleConfig:
        """The preset's cycle with the shapes that are asked for."""
        return self.shapes.of(self.preset.cycle)

    @property
    def environment(self) -> dict[str, Any]:
        """Where numbers come from that a command with these flags writes."""
        return files.environment(self.dtype, self.devices)


Flags = TypeVar("Flags", bound=PairFlags)


def parse(
    start: Callable[[Preset], Flags],
    argv: list[str] | None = None,
    *,
    prog: str | None = None,
    description: str | None = None,
    small: Callable[[Flags], Flags] | None = None,
    siblings: Mapping[str, Callable[[Preset], PairFlags]] | None = None,
) -> Flags:
    """The command line, with hub ids downloaded and nothing left to choose; says it on stderr.

    Args:
      start: the command's settings where no flag changes them, for the target's preset.
      argv: without the command's name; None = of this process.
      small: the settings that --smoke starts from, of the usual ones.
      siblings: `start` of other commands, which may have a flag that this one has not.

    Raises:
      UserError: a folder or a value cannot be.
    """
    argv = sys.argv[1:] if argv is None else argv
    named, others = tyro.cli(PairFlags, args=argv, return_unknown_args=True, add_help=False)
    default = start(presets.of(named.target))
    if small is not None and "--smoke" in others:
        default = small(default)
    parsed, unknown = tyro.cli(
        type(default),
        args=argv,
        default=default,
        prog=prog,
        description=description,
        return_unknown_args=True,
    )
    if unknown:
        preset = presets.of(named.target)
        flags_of = {name: names(begin(preset)) for name, begin in (siblings or {}).items()}
        raise not_known(unknown[0], default, prog or files.program_name(), flags_of)
    config = resolved(parsed)
    for line in described(config):
        say(line)
    return config


def resolved(config: Flags) -> Flags:
    """The same flags with folders for hub ids and a dtype for "auto"."""
    require_backend()
    theta = config.draft_rope_theta
    if theta is not None and not 1 <= theta < float("inf"):
        raise UserError(f"`draft_rope_theta` is {theta} but must be a number >= 1.")
    at_least_one(config, "devices")
    target = hub.folder_of(config.target, "target")
    return dataclasses.replace(
        config,
        target=target,
        draft=hub.folder_of(config.draft, "draft"),
        dtype=pairs.default_dtype(target) if config.dtype == "auto" else config.dtype,
    )


def described(config: Any) -> Iterator[str]:
    """A line for every field of a config; one for all fields of a config within it."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, ShapeFlags):
            continue  # `load_pair` says the whole cycle
        if dataclasses.is_dataclass(value):
            inner = [line.replace(": ", " ") for line in described(value)]
            yield f"{field.name}: {', '.join(inner)}"
        else:
            yield f"{field.name}: {value}"


def load_pair(flags: PairFlags, cycle: CycleConfig, *, packed: bool | None = None) -> Pair:
    """The pair that the flags name; says on stderr what was found and how it was read.

    Args:
      packed: weights in the layout of models/cpu_layout.py; None = where that is fast.
    """
    sampling, flags = flags.sampling.config, resolved(flags)
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
    say(f"target {pair.names[0]}, draft {pair.names[1]}, fingerprint {pair.fingerprint}")
    say(f"{flags.dtype} on {pair.device}; {cycle}")
    for remark in pair.remarks:
        say(remark)
    return pair


def say(line: str) -> None:
    """A line for the person, beside the command's output."""
    print(line, file=sys.stderr)


@contextlib.contextmanager
def progress_bars(console: Console) -> Iterator[ProgressCallback]:
    """A bar for every stage that reports its share, as `workflow` takes it; else nothing."""
    columns = (TextColumn("{task.description:<30}"), BarColumn(), TimeElapsedColumn())
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


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as ctrl-C does."""


def run(main: Callable[[], None], *, resumes: bool = True) -> None:
    """Calls a command's main; exit code 2 for a UserError, 130 when interrupted.

    Args:
      resumes: whether the same command goes on from what an interrupted one has written.
    """
    signal.signal(signal.SIGTERM, _terminate)
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
