"""Checkpoints: orbax, arrays beside a JSON record of what they belong to.

A checkpoint holds one pytree (parameters, optimiser, random key, counters) and its provenance.
Orbax writes into a temporary folder and renames it, so a killed process leaves no half-written
step; a step that cannot be read is named and the one before it is used.
"""

import dataclasses
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ltd_jax.errors import UserError

logging.getLogger("absl").setLevel(logging.ERROR)


@dataclasses.dataclass(frozen=True)
class Restored:
    """What came back from a checkpoint folder."""

    step: int
    state: Any  # same structure as the abstract state it was asked for
    provenance: dict[str, Any]


def manager(
    folder: Path, *, keep: int = 2, best_metric: str | None = None
) -> ocp.CheckpointManager:
    """A manager that keeps the last `keep` steps, or the `keep` best ones by a metric.

    Raises:
      UserError: the folder cannot be made.
    """
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write checkpoints to {folder}: {error.strerror}.") from error
    best = None if best_metric is None else (lambda metrics: metrics[best_metric])
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, best_fn=best, best_mode="max")
    return ocp.CheckpointManager(folder, options=options)


def save(
    checkpoints: ocp.CheckpointManager,
    step: int,
    state: Any,
    provenance: dict[str, Any],
    metrics: dict[str, float] | None = None,
) -> None:
    """Starts an asynchronous save; `checkpoints.close()` waits for it."""
    json.dumps(provenance)  # a wrong value shall fail here, not in the writing thread
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(state), provenance=ocp.args.JsonSave(provenance)
    )
    checkpoints.save(step, args=args, metrics=metrics, force=True)


def newest_provenance(checkpoints: ocp.CheckpointManager) -> dict[str, Any] | None:
    """What is recorded beside the newest readable step; None where there is none."""
    args = ocp.args.Composite(provenance=ocp.args.JsonRestore())
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            return checkpoints.restore(step, args=args)["provenance"]
        except Exception:  # orbax raises many kinds for a damaged folder; `restore` names it
            continue
    return None


def restore(
    checkpoints: ocp.CheckpointManager, abstract: Any, *, step: int | None = None
) -> Restored | None:
    """The newest readable step (or the given one), or None where there is none.

    Args:
      abstract: the state's structure as arrays or `jax.ShapeDtypeStruct`s; give these explicit
        shardings to restore onto another topology.

    Raises:
      UserError: there are steps, but none can be read.
    """
    steps = sorted(checkpoints.all_steps(), reverse=True) if step is None else [step]
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, abstract)
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract), provenance=ocp.args.JsonRestore()
    )
    for candidate in steps:
        try:
            found = checkpoints.restore(candidate, args=args)
        except Exception as error:  # orbax raises many kinds for a damaged folder
            reason = str(error).splitlines()[0][:200]
            warnings.warn(
                f"Checkpoint {candidate} in {checkpoints.directory} is unreadable ({reason}).",
                stacklevel=2,
            )
            continue
        return Restored(candidate, found["state"], found["provenance"])
    if steps:
        raise UserError(
            f"None of the checkpoints {steps} in {checkpoints.directory} can be read; "
            "delete the folder to start again."
        )
    return None
