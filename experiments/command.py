"""What all commands share: the flags of a pair, one clear sentence for a mistake."""

import dataclasses
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Literal

import jax.numpy as jnp

from ltd_jax import provenance
from ltd_jax.config import CycleConfig
from ltd_jax.cycle import pair as pairs
from ltd_jax.cycle.pair import ASSETS, Pair
from ltd_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PairFlags:
    """Which pair."""

    target: Path = ASSETS / "target"  # folder of its weights and tokenizer
    draft: Path = ASSETS / "draft"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    feature_layers: tuple[int, int, int] | None = None  # None = as the draft says
    draft_rope_theta: float | None = None  # None = as the draft says


def load_pair(flags: PairFlags, cycle: CycleConfig) -> Pair:
    """The pair that the flags name; says on stderr what was found and how it was read."""
    pair = pairs.load(
        cycle,
        flags.target,
        flags.draft,
        jnp.dtype(flags.dtype),
        flags.feature_layers,
        flags.draft_rope_theta,
    )
    say(f"target {flags.target}, draft {flags.draft}, fingerprint {pair.fingerprint}")
    say(f"{flags.dtype} on {provenance.device_name()}")
    for remark in pair.remarks:
        say(remark)
    return pair


def say(line: str) -> None:
    """A line for the person, beside the command's output."""
    print(line, file=sys.stderr)


def run(main: Callable[[], None]) -> None:
    """Calls a command's main; exit code 2 for a UserError, 130 when interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    warnings.showwarning = lambda message, *place, **rest: say(f"warning: {message}")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nInterrupted; what is done is kept, the same command goes on.", file=sys.stderr)
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
