"""Learned policies as files: one safetensors file of both actors, its metadata their provenance.

A policy is only right for its pair and its device, so both are part of its identity: the weights'
fingerprint and the latency table's. The shapes of its cycle and its networks lie beside them, so
one file is enough to decode, and any tool can read it.

    tensors    depth.Dense_0.kernel [in, out] f32, depth.Dense_0.bias [out], .., size.Dense_0 ..
    metadata   schema, digest (of the arrays), widths (PolicyConfig), cycle (CycleConfig) and
               provenance, the last three as JSON
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ltd_jax import files
from ltd_jax.config import CycleConfig, policy_config_from_json
from ltd_jax.files import Identity, UserError, identity_of, replacing, require_same
from ltd_jax.policies.networks import Learned

SCHEMA = "1"
AGAIN = "train them again"


@dataclasses.dataclass(frozen=True)
class SavedPolicy:
    """A policy file."""

    path: Path
    policy: Learned
    cycle: CycleConfig
    provenance: dict[str, Any]


def save(policy: Learned, path: Path | str, cycle: CycleConfig, provenance: dict[str, Any]) -> None:
    """Writes both actors; a killed process leaves the old file or the new one.

    Args:
      provenance: JSON; should hold "fingerprint" (of the weights), "latency" (the table's
        fingerprint), "device" and "dtype" (that the table was measured with).

    Raises:
      UserError: the file cannot be written, or a weight is not finite.
    """
    tensors = {"depth": policy.depth["params"], "size": policy.size["params"]}
    facts = {"widths": policy.widths, "cycle": cycle, "provenance": provenance}
    write_tensors(Path(path), tensors, facts)


def load(path: Path | str) -> SavedPolicy:
    """Reads a file that `save` wrote.

    Raises:
      UserError: it is missing, damaged, no policy file or of another version.
    """
    path = Path(path)
    tensors, facts = read_tensors(path, "policy file")
    with another_version(path):
        widths = policy_config_from_json(facts["widths"])
        cycle = CycleConfig(**facts["cycle"])
        provenance = dict(facts["provenance"])
        identity = identity_of({**provenance, "cycle": dataclasses.asdict(cycle)})
        depth, size = ({"params": tensors[name]} for name in ("depth", "size"))
    policy = Learned(depth, size, widths=widths, origin=identity)
    policy.check(cycle)
    return SavedPolicy(path, policy, cycle, provenance)


def check(saved: SavedPolicy, here: Identity, *, other_hardware: bool = False) -> None:
    """Raises UserError unless policies belong to a pair and to how it runs here.

    Args:
      here: of the pair; its cycle is not compared, for the file says which one to use.
      other_hardware: only warn where the latency table behind the policies is of another device, or
        of the same one with another dtype.
    """
    there = identity_of(saved.provenance)
    require_same(
        f"The policies in {saved.path} were trained for",
        dataclasses.replace(there, latency=None),
        here,
        remedy=f"measure and train here (their latency table is {there.latency})",
        other_hardware=other_hardware,
    )


def write_tensors(path: Path, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    """Writes nested arrays as f32 and facts (JSON values and configs) to a safetensors file.

    Raises:
      UserError: the file cannot be written, or a number is not finite.
    """
    arrays, what = _flat(tensors), f"Cannot write {path}"
    files.require_finite(what, arrays, remedy=AGAIN)
    facts = json.loads(json.dumps(facts, default=dataclasses.asdict))
    metadata = {name: files.to_json(fact, what) for name, fact in facts.items()}
    with replacing(path) as temporary:
        save_file(arrays, temporary, {"schema": SCHEMA, "digest": _digest(arrays)} | metadata)


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The nested arrays (jax) and the facts of a file that `write_tensors` wrote.

    Args:
      kind: of file, e.g. "policy file".

    Raises:
      UserError: it is missing, damaged, no such file, of another schema, or a number in it is not
        finite.
    """
    if not path.is_file():
        raise UserError(f"There is no {kind} {path}; check the path, or {AGAIN}.")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        files.refuse_pointer(path)
        raise UserError(f"{path} is no {kind} or is damaged ({error}); {AGAIN}.") from error
    schema, digest = metadata.pop("schema", None), metadata.pop("digest", None)
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema}, this version reads {SCHEMA}; {AGAIN}.")
    if digest != _digest(arrays):
        raise UserError(f"{path} is damaged: its weights are not what was saved; {AGAIN}.")
    files.require_finite(f"The {kind} {path} is of no use", arrays, remedy=AGAIN)
    with another_version(path):
        facts = {name: json.loads(fact) for name, fact in metadata.items()}
    on_device = {name: jnp.asarray(array) for name, array in arrays.items()}
    return traverse_util.unflatten_dict(on_device, sep="."), facts


@contextlib.contextmanager
def another_version(path: Path) -> Iterator[None]:
    """Raises UserError where what is read of a file is not what this version writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is of another version ({error}); {AGAIN}.") from error


def _flat(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by their names with dots, f32 on the host."""
    flat = traverse_util.flatten_dict(jax.device_get(tensors), sep=".")
    return {name: np.ascontiguousarray(array, np.float32) for name, array in flat.items()}


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """12 hex digits over all arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode() + arrays[name].tobytes())
    return digest.hexdigest()[:12]
