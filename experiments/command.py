"""What all commands share: the flags of a pair, one clear sentence for a mistake."""

import dataclasses
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import tyro

from ltd_jax import files, presets
from ltd_jax.config import CycleConfig, Rule, SamplingConfig
from ltd_jax.files import ASSETS, UserError
from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import hub
from ltd_jax.models.pair import Pair
from ltd_jax.presets import Preset
from ltd_jax.replay.profile import ProfileConfig

DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True)
class SamplingFlags:
    """How the target's tokens are drawn, see ltd_jax/sampling.py; the default is greedy."""

    temperature: float = 0.0  # 0 = greedy
    top_k: int = 0  # 0 = all tokens
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    draft_temperature: float = 1.0
    rule: Rule = "coupled"
    seed: int = 0  # of the random numbers; every prompt has its own of them


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

    @property
    def environment(self) -> dict[str, Any]:
        """Where numbers come from that a command with these flags writes (provenance.py)."""
        return files.environment(self.dtype, self.devices)


Flags = TypeVar("Flags", bound=PairFlags)


def parse(start: Callable[[Preset], Flags], small: Callable[[Flags], Flags] | None = None) -> Flags:
    """The command line, with hub ids downloaded and nothing left to choose; says it on stderr.

    Args:
      start: the command's settings where no flag changes them, for the target's preset.
      small: the settings that --smoke starts from, of the usual ones.

    Raises:
      UserError: a folder or a value cannot be.
    """
    named, others = tyro.cli(PairFlags, return_unknown_args=True, add_help=False)
    default = start(presets.of(named.target))
    if small is not None and "--smoke" in others:
        default = small(default)
    config = resolved(tyro.cli(type(default), default=default))
    for line in described(config):
        say(line)
    return config


def stage_settings(preset: Preset) -> dict[str, Any]:
    """The settings of all stages in a preset, by their fields in commands."""
    return {
        "cycle": preset.cycle,
        "policy": preset.policy,
        "learning": preset.learning,
        "measure": ProfileConfig(),
    }


def resolved(config: Flags) -> Flags:
    """The same flags with folders for hub ids and a dtype for "auto"."""
    theta = config.draft_rope_theta
    if theta is not None and not 1 <= theta < float("inf"):
        raise UserError(f"--draft-rope-theta is {theta} but must be a number >= 1.")
    at_least_one(config, "devices")
    embedded = presets.of(config.target) is presets.EMBEDDED
    on_processor = jax.default_backend() == "cpu"
    auto: DType = "float32" if embedded or on_processor else "bfloat16"
    return dataclasses.replace(
        config,
        target=hub.folder_of(config.target, "target"),
        draft=hub.folder_of(config.draft, "draft"),
        dtype=auto if config.dtype == "auto" else config.dtype,
    )


def described(config: Any) -> Iterator[str]:
    """A line for every field of a config; one for all fields of a config within it."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner = [line.replace(": ", " ") for line in described(value)]
            yield f"{field.name}: {', '.join(inner)}"
        else:
            yield f"{field.name}: {value}"


def load_pair(flags: PairFlags, cycle: CycleConfig, in_blocks: bool | None = None) -> Pair:
    """The pair that the flags name; says on stderr what was found and how it was read.

    Args:
      in_blocks: weights in the layout of models.blocks; None = where that is fast.
    """
    sampling = sampling_of(flags.sampling)
    flags = resolved(flags)
    pair = pairs.load(
        cycle,
        flags.target,
        flags.draft,
        jnp.dtype(flags.dtype),
        flags.feature_layers,
        flags.draft_rope_theta,
        in_blocks,
        flags.devices,
    )
    say(f"target {pair.names[0]}, draft {pair.names[1]}, fingerprint {pair.fingerprint}")
    say(f"{flags.dtype} on {pair.device}")
    for remark in pair.remarks:
        say(remark)
    return pair.sampled(sampling, flags.sampling.seed)


def sampling_of(flags: SamplingFlags) -> SamplingConfig:
    """What the flags say; UserError where it is impossible."""
    settings = {name: value for name, value in vars(flags).items() if name != "seed"}
    try:
        return SamplingConfig(**settings)
    except ValueError as error:
        raise UserError(str(error)) from error


def say(line: str) -> None:
    """A line for the person, beside the command's output."""
    print(line, file=sys.stderr)


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as ctrl-C does."""


def run(main: Callable[[], None], resumes: bool = True) -> None:
    """Calls a command's main; exit code 2 for a UserError, 130 when interrupted.

    Args:
      resumes: whether the same command goes on from what an interrupted one has written.
    """
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = lambda message, *place, **rest: say(f"warning: {message}")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        kept = "; what is done is kept, the same command goes on" if resumes else ""
        print(f"\nInterrupted{kept}.", file=sys.stderr)
        sys.exit(130)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"error: {too_large(error)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def too_large(error: Exception) -> str:
    """The sentence for a device without room."""
    reason = str(error).split("\n")[0].rstrip(".")
    return (
        f"{files.device_name()} has no room for this ({reason}); take a smaller context or "
        "beam, split the pair with --devices, or look with experiments.inspect at what it needs."
    )


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def with_cycle(cycle: CycleConfig, **changes: Any) -> CycleConfig:
    """The cycle with some settings replaced; UserError where there is no such cycle."""
    try:
        return dataclasses.replace(cycle, **changes)
    except ValueError as error:
        raise UserError(f"There is no such cycle: {error}") from error


def at_least_one(config: Any, *names: str) -> None:
    """UserError where a count of a command's flags is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} is {getattr(config, name)} but must be at least 1.")


def writable(folder: Path) -> Path:
    """Makes an output folder; UserError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder} ({error.strerror}); give another folder with --out."
        ) from error
    return folder
