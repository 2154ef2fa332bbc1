"""Where a number comes from: device, versions, date, command; goes with all that is written."""

import datetime
import os
import platform
import sys
from typing import Any

import jax

from ltd_jax import __version__


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
    """The kind of the first device; of a processor also the cores that may be used."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    return f"{_processor()}, {core_count()} cores"


def core_count() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else (platform.processor() or platform.machine())
