"""Where a number comes from: device, versions, date, command; goes with all that is written."""

import datetime
import platform
import sys
import warnings
from typing import Any, NamedTuple

import jax

from ltd_jax import __version__, processor
from ltd_jax.errors import UserError

SPLIT = ", split over "  # in a device's name, before the number of devices


def environment(dtype: str, devices: int = 1) -> dict[str, Any]:
    """Device, dtype, versions, date (UTC) and command of this process, as JSON values.

    Args:
      devices: that a pair is split over.
    """
    return {
        "device": device_name(devices),
        "device_count": jax.device_count(),
        "dtype": dtype,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "ltd_jax": __version__,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": _command(),
    }


def _command() -> str:
    """The command line as a user would type it, without the machine's paths."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = f"python -m {spec.name}" if spec is not None else sys.argv[0].rsplit("/", 1)[-1]
    return " ".join([name, *sys.argv[1:]])


def device_name(devices: int = 1) -> str:
    """The kind of the first device; of a processor also its vectors and usable cores.

    Args:
      devices: that a pair is split over; more than one are another device in all that is compared.
    """
    device = jax.devices()[0]
    name = processor.name() if device.platform == "cpu" else device.device_kind
    return name if devices == 1 else f"{name}{SPLIT}{devices}"


class Place(NamedTuple):
    """Where something was made, or is used."""

    device: str
    dtype: str | None = None  # of the weights; None = not said


def must_be_here(what: str, there: Place, here: Place, other: bool, remedy: str) -> None:
    """Raises UserError where something was made for another device or dtype.

    Args:
      what: the sentence's beginning, up to the device it was made for.
      other: only warn; --allow-other-hardware.
      remedy: what to do, up to the flag.
    """
    device, mine = there.device, here.device
    (kind, _, count), (own_kind, _, _) = device.partition(SPLIT), mine.partition(SPLIT)
    if kind == own_kind and device != mine:
        remedy = f"give --devices {count or 1}, or {remedy}"
    if device == mine and None not in (there.dtype, here.dtype) and there.dtype != here.dtype:
        device, mine = f"{device} in {there.dtype}", f"{mine} in {here.dtype}"
    if device == mine:
        return
    sentence = f"{what} {device}, not {mine}"
    if not other:
        raise UserError(
            f"{sentence}; {remedy}, or give --allow-other-hardware to decode with choices that may "
            "be slow."
        )
    warnings.warn(f"{sentence}; its choices may be slow here.", stacklevel=3)
