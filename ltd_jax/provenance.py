"""Where a number comes from: device, versions, date, command; goes with all that is written."""

import datetime
import platform
import sys
from typing import Any

import jax

from ltd_jax import __version__, processor


def environment(dtype: str) -> dict[str, Any]:
    """Device, dtype, versions, date (UTC) and command of this process, as JSON values."""
    return {
        "device": device_name(),
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


def device_name() -> str:
    """The kind of the first device; of a processor also its vectors and usable cores."""
    device = jax.devices()[0]
    return processor.name() if device.platform == "cpu" else device.device_kind
