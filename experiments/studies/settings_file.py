"""The settings file: which way to decode a pair on a device, as autotune found it.

    {"schema": 1, "controller": "constant:levels=1,size=3", "policies": null,
     "cycle": {...}, "fingerprint": "...", "device": "...", "dtype": "...", "latency": "...",
     "environment": {...}}

`generate` and `evaluate` take it. Paths in it are relative to the file, so that the folder can be
moved as a whole.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ltd_jax import files
from ltd_jax.config import CycleConfig
from ltd_jax.files import Place, UserError, replacing
from ltd_jax.models.pair import Pair

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """What a settings file says."""

    path: Path
    controller: str  # a name of decoding.named
    policies: Path | None  # folder, for ltd
    cycle: CycleConfig  # that was tuned; decoding compiles what it needs of it
    fingerprint: str  # of the pair's weights
    device: str
    dtype: str
    latency: str  # the latency table's fingerprint

    @property
    def folder(self) -> Path:
        """Where autotune left everything."""
        return self.path.parent


def save(settings: DecodeSettings, environment: dict[str, Any]) -> None:
    """Writes the file.

    Raises:
      UserError: it cannot be written.
    """
    record = {"schema": SCHEMA} | dataclasses.asdict(settings) | {"environment": environment}
    del record["path"]
    policies = settings.policies
    record["policies"] = None if policies is None else str(policies.relative_to(settings.folder))
    with replacing(settings.path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def load(path: Path) -> DecodeSettings:
    """Reads a settings file.

    Raises:
      UserError: it is missing, damaged or of another version.
    """
    again = "run experiments.autotune again."
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"Cannot read the settings {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is no settings file or is truncated; {again}") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema}, this version reads {SCHEMA}; {again}")
    try:
        texts = {name: str(record[name]) for name in ("controller", *_IDENTITY)}
        cycle = dict(record["cycle"])
        cycle["sizes"] = tuple(cycle["sizes"])
        policies = None if record["policies"] is None else path.parent / str(record["policies"])
        return DecodeSettings(path, policies=policies, cycle=CycleConfig(**cycle), **texts)
    except KeyError as error:
        raise UserError(f"The settings {path} lack {error}; {again}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"The settings {path} are damaged ({error}); {again}") from error


_IDENTITY = ("fingerprint", "device", "dtype", "latency")


def check(
    settings: DecodeSettings, fingerprint: str, device: str, dtype: str, other_device: bool
) -> None:
    """Raises UserError unless the settings were found for this pair and device.

    Args:
      other_device: only warn where the device or the dtype is another one.
    """
    if settings.fingerprint != fingerprint:
        raise UserError(
            f"{settings.path} was tuned for pair {settings.fingerprint}, not {fingerprint}; tune "
            "again for this one."
        )
    there, here = Place(settings.device, settings.dtype), Place(device, dtype)
    what, remedy = f"{settings.path} was tuned for", "run experiments.autotune here"
    files.must_be_here(what, there, here, other_device, remedy)


def check_here(settings: DecodeSettings, pair: Pair, other_device: bool) -> None:
    """`check` for a loaded pair on this machine."""
    dtype = jnp.dtype(pair.dtype).name
    check(settings, pair.fingerprint, pair.device, dtype, other_device)
