"""Learned policies as files: one safetensors file of both actors, its metadata their provenance.

A policy is only right for its pair and its device, so both are part of its identity: the weights'
fingerprint and the latency table's. The shapes of its cycle and its networks lie beside them, so
one file is enough to decode, and any tool can read it.

    tensors    depth.Dense_0.kernel [in, out] f32, depth.Dense_0.bias [out], .., size.Dense_0 ..
    metadata   schema, digest (of the arrays), widths (PolicyConfig), cycle (CycleConfig) and
               provenance, the last three as JSON
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

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
    arrays = _flat(policy)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{name} of the policies holds numbers that are not finite; {AGAIN}.")
    metadata = {
        "schema": SCHEMA,
        "digest": _digest(arrays),
        "widths": json.dumps(dataclasses.asdict(policy.widths)),
        "cycle": json.dumps(dataclasses.asdict(cycle)),
        "provenance": json.dumps(provenance),
    }
    with replacing(Path(path)) as temporary:
        save_file(arrays, temporary, metadata=metadata)


def load(path: Path | str) -> SavedPolicy:
    """Reads a file that `save` wrote.

    Raises:
      UserError: it is missing, damaged, no policy file or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no policy file {path}; check the path, or {AGAIN}.")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no policy file or is damaged ({error}); {AGAIN}.") from error
    if metadata.get("schema") != SCHEMA:
        raise UserError(
            f"{path} has schema {metadata.get('schema')}, this version reads {SCHEMA}; {AGAIN}."
        )
    if metadata.get("digest") != _digest(arrays):
        raise UserError(f"{path} is damaged: its weights are not what was saved; {AGAIN}.")
    try:
        widths = policy_config_from_json(json.loads(metadata["widths"]))
        cycle = CycleConfig(**json.loads(metadata["cycle"]))
        provenance = dict(json.loads(metadata["provenance"]))
        identity = identity_of({**provenance, "cycle": dataclasses.asdict(cycle)})
        networks = traverse_util.unflatten_dict(
            {tuple(name.split(".")): jnp.asarray(array) for name, array in arrays.items()}
        )
        depth, size = ({"params": networks[name]} for name in ("depth", "size"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is of another version ({error}); {AGAIN}.") from error
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


def _flat(policy: Learned) -> dict[str, np.ndarray]:
    """The actors' arrays by name."""
    networks = {"depth": policy.depth["params"], "size": policy.size["params"]}
    flat = traverse_util.flatten_dict(jax.device_get(networks), sep=".")
    return {name: np.ascontiguousarray(array, np.float32) for name, array in flat.items()}


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """12 hex digits over all arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode() + arrays[name].tobytes())
    return digest.hexdigest()[:12]
