"""Learning on the replay: the paper's order, both policies jointly, or with exact gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.files import UserError
from ltd_jax.learning import alternate, exact, joint, loop
from ltd_jax.learning.loop import Point, Splits, TrainResult


def train(
    replays: Splits,
    config: CycleConfig,
    widths: PolicyConfig,
    learning: LearningConfig,
    *,
    folder: Path | None = None,
    provenance: dict[str, Any] | None = None,
    progress: Callable[[Point, float], None] = lambda point, share: None,
    mesh: Mesh | None = None,
) -> TrainResult:
    """Trains both policies as `learning.algorithm` says, or goes on from the folder's checkpoints.

    Args:
      folder: for checkpoints, one folder per stage; None = leave none.
      provenance: what the checkpoints say about themselves, JSON.
      progress: called with every new point and the share of the whole that is done.
      mesh: of one axis, which the walks are spread over; None = one device.

    Raises:
      UserError: the folder holds a training with other settings or replays, or cannot be used; or
        a mesh is given for the paper's order, which runs on one device.
    """
    told: dict[str, Any] = {
        "folder": folder,
        "provenance": provenance or {},
        "progress": progress,
    }
    if learning.algorithm == "alternate":
        if mesh is not None:
            raise UserError("Only joint and exact learning run over several devices; choose one.")
        return alternate.train(replays, config, widths, learning, **told)
    made = joint.method if learning.algorithm == "joint" else exact.method
    method = made(config, widths, learning, mesh)
    return loop.train_both(method, replays, seed=learning.seed, **told)
