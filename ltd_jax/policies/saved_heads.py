"""Trained classifiers on disk, and the draft's calibration: right for one pair, on any device."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ltd_jax import checkpoint
from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError
from ltd_jax.policies import classifiers
from ltd_jax.policies.settings import Parts

AGAIN = "train them by experiments.train_classifiers."


@dataclasses.dataclass(frozen=True)
class SavedHeads:
    """What a folder holds."""

    folder: Path
    parts: Parts  # heads, widths and power
    provenance: dict[str, Any]


def network(name: str, width: int) -> nn.Module:
    """The network of a classifier: "disco", "specdec" or "c2t"."""
    return classifiers.Residual(width) if name == "specdec" else classifiers.Perceptron(width)


def feature_width(name: str, cycle: CycleConfig, hidden_size: int) -> int:
    """Length O of what a classifier reads."""
    return {"disco": cycle.beam_width + 2, "specdec": hidden_size, "c2t": 3}[name]


def save(
    folder: Path, parts: Parts, cycle: CycleConfig, hidden_size: int, provenance: dict[str, Any]
) -> None:
    """Writes heads and calibration.

    Args:
      hidden_size: width of the draft's output.
      provenance: must hold "fingerprint" (of the weights).
    """
    shapes = {"cycle": dataclasses.asdict(cycle), "hidden": hidden_size, "widths": parts.widths}
    state = {"heads": parts.heads, "power": jnp.asarray(parts.power)}
    with checkpoint.manager(folder, keep=1) as checkpoints:
        step = (checkpoints.latest_step() or 0) + 1
        checkpoint.save(checkpoints, step, state, {**provenance, **shapes})


def load(folder: Path) -> SavedHeads:
    """Reads the newest classifiers of a folder.

    Raises:
      UserError: there are none, or they are damaged or of another version.
    """
    if not folder.is_dir():
        raise UserError(f"There are no classifiers in {folder}; {AGAIN}")
    with checkpoint.manager(folder) as checkpoints:
        found = checkpoint.newest_provenance(checkpoints)
        if found is None:
            if checkpoints.all_steps():
                raise UserError(f"The classifiers in {folder} are damaged; {AGAIN}")
            raise UserError(f"There are no classifiers in {folder}; {AGAIN}")
        try:
            abstract = jax.eval_shape(lambda: _blank(found))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The classifiers in {folder} are of another version ({error}); {AGAIN}"
            ) from error
        restored = checkpoint.restore(checkpoints, abstract)
    assert restored is not None  # there was a provenance
    heads = checkpoint.unbound(restored.state["heads"])
    parts = Parts(heads, found["widths"], np.asarray(restored.state["power"]))
    return SavedHeads(folder, parts, found)


def cycle_of(heads: SavedHeads) -> CycleConfig:
    """The cycle that the classifiers were trained with."""
    return CycleConfig(**heads.provenance["cycle"])


def _blank(provenance: dict[str, Any]) -> dict[str, Any]:
    """Heads of the recorded shapes, with random weights."""
    cycle, hidden_size = CycleConfig(**provenance["cycle"]), provenance["hidden"]
    heads = {
        name: network(name, width).init(
            jax.random.key(0), jnp.zeros(feature_width(name, cycle, hidden_size))
        )
        for name, width in provenance["widths"].items()
    }
    return {"heads": heads, "power": jnp.zeros(cycle.max_levels)}


def check(heads: SavedHeads, fingerprint: str, cycle: CycleConfig) -> None:
    """Raises UserError unless the classifiers belong to a pair and see trees of these shapes.

    Args:
      fingerprint: of the pair's weights.
    """
    trained = heads.provenance
    if trained.get("fingerprint") != fingerprint:
        raise UserError(
            f"The classifiers in {heads.folder} were trained for pair "
            f"{trained.get('fingerprint')}, not {fingerprint}; train them again for this one."
        )
    shapes = [(trained["cycle"][key], getattr(cycle, key)) for key in ("beam_width", "max_levels")]
    for there, here in shapes:
        if there != here:
            raise UserError(
                f"The classifiers in {heads.folder} were trained with beam width {shapes[0][0]} "
                f"and {shapes[1][0]} levels, not {shapes[0][1]} and {shapes[1][1]}; {AGAIN}"
            )
