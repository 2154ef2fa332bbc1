"""What all commands share: one clear sentence for a mistake, a message for an interruption."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from ltd_jax.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Calls a command's main; exit code 2 for a UserError, 130 when interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
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
