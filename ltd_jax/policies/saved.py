"""Trained policies on disk: actors beside what they were trained for.

A policy is only right for its pair and its device, so both are part of its identity: the weights'
fingerprint and the latency table's. The shapes of its cycle and its networks lie beside them, so
that a folder alone is enough to decode.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from ltd_jax import checkpoint
from ltd_jax.config import CycleConfig, ObservationConfig, PolicyConfig
from ltd_jax.files import Place, UserError, must_be_here
from ltd_jax.policies import networks
from ltd_jax.policies.networks import LearnedParams

AGAIN = "train them by experiments.train_policies."


@dataclasses.dataclass(frozen=True)
class SavedPolicies:
    """What a folder holds."""

    folder: Path
    params: LearnedParams
    cycle: CycleConfig
    widths: PolicyConfig
    provenance: dict[str, Any]


def save(
    folder: Path,
    params: LearnedParams,
    config: CycleConfig,
    widths: PolicyConfig,
    provenance: dict[str, Any],
) -> None:
    """Writes the actors.

    Args:
      provenance: must hold "fingerprint" (of the weights), "latency" (the table's fingerprint),
        "device" and "dtype" (that the table was measured with).
    """
    shapes = {"cycle": dataclasses.asdict(config), "policy": dataclasses.asdict(widths)}
    with checkpoint.manager(folder) as checkpoints:
        step = (checkpoints.latest_step() or 0) + 1
        checkpoint.save(checkpoints, step, params, {**provenance, **shapes})


def load(folder: Path) -> SavedPolicies:
    """Reads the newest actors of a folder.

    Raises:
      UserError: there are none, or they are damaged or of another version.
    """
    if not folder.is_dir():
        raise UserError(f"There are no policies in {folder}; {AGAIN}")
    with checkpoint.manager(folder) as checkpoints:
        provenance = checkpoint.newest_provenance(checkpoints)
        if provenance is None:
            if checkpoints.all_steps():
                raise UserError(f"The policies in {folder} are damaged; {AGAIN}")
            raise UserError(f"There are no policies in {folder}; {AGAIN}")
        try:
            cycle = CycleConfig(**provenance["cycle"])
            policy = dict(provenance["policy"])
            seen = ObservationConfig(**policy.pop("observation"))
            widths = PolicyConfig(**_tuples(policy), observation=seen)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The policies in {folder} are of another version ({error}); train them again."
            ) from error
        abstract = jax.eval_shape(lambda: networks.init_learned(jax.random.key(0), cycle, widths))
        found = checkpoint.restore(checkpoints, abstract)
    assert found is not None  # there was a provenance
    params = checkpoint.unbound(found.state)
    return SavedPolicies(folder, params, cycle, widths, found.provenance)


def check(
    policies: SavedPolicies,
    fingerprint: str,
    device: str,
    other_device: bool,
    dtype: str | None = None,
) -> None:
    """Raises UserError unless the policies belong to a pair and to how it runs here.

    Args:
      fingerprint: of the pair's weights.
      other_device: only warn where the latency table behind the policies is of another device, or
        of the same one with another dtype.
      dtype: of the weights here; None = do not compare.
    """
    trained = policies.provenance
    if trained.get("fingerprint") != fingerprint:
        raise UserError(
            f"The policies in {policies.folder} were trained for pair "
            f"{trained.get('fingerprint')}, not {fingerprint}; train them again for this one."
        )
    there = Place(str(trained.get("device")), trained.get("dtype"))
    remedy = f"measure and train here (their latency table is {trained.get('latency')})"
    what = f"The policies in {policies.folder} were trained for"
    must_be_here(what, there, Place(device, dtype), other_device, remedy)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
