"""One stage of learning that can be killed: updates in chunks, a checkpoint after each.

In: how a training starts and goes on, a folder or None. Out: the last state and the learning curve.
A stage that is found finished in its folder is only read.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from ltd_jax import checkpoint
from ltd_jax.errors import UserError
from ltd_jax.learning.ppo import Metrics
from ltd_jax.replay.trace import replacing

_SETTINGS = "settings.json"
VALIDATION = "validation"  # the metric whose best step is kept, beside the last ones


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a learning curve: means over the updates since the point before."""

    stage: str
    update: int  # updates done in this stage
    decisions: int  # made in this stage
    seconds: float  # of wall time in this stage, compiling included
    reward: float | None  # mean per decision; None before the first update, as the next four
    throughput: float | None  # tokens per second of the exploring policy
    entropy: float | None  # nats
    policy_loss: float | None
    value_loss: float | None
    validation: float  # tokens per second of the greedy policy


class State(Protocol):
    """What a stage reads of a training's state."""

    @property
    def update(self) -> Any: ...  # i32 [] updates done
    @property
    def best_validation(self) -> Any: ...  # f32 [] tokens per second


class Stage(NamedTuple):
    """How a training starts and goes on."""

    name: str
    start: Callable[[], Any]  # -> State before the first update
    advance: Callable[[Any], tuple[Any, Metrics]]  # to the next validation
    updates: int  # of the whole training


def run(
    stage: Stage,
    *,
    folder: Path | None,
    provenance: dict[str, Any],
    report: Callable[[Point], None],
) -> tuple[Any, list[Point]]:
    """Runs (or goes on with) a stage to its end, from validation to validation.

    SIGINT and SIGTERM are obeyed when the updates under way are done and saved.

    Args:
      folder: for checkpoints; None = leave none.
      provenance: what the checkpoints say about themselves, JSON.
      report: called with every new point.

    Raises:
      UserError: the folder cannot be written, or none of its checkpoints can be read.
    """
    with _checkpoints(folder) as checkpoints:
        state, points = _begin(stage, checkpoints, report)
        while int(state.update) < stage.updates:
            with checkpoint.uninterrupted():
                state, points = _advance(stage, state, points)
                if checkpoints is not None:
                    _save(checkpoints, state, points, provenance)
            report(points[-1])
    return state, points


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Writes a training's settings into its folder, or checks that they are the ones found there.

    Raises:
      UserError: the folder belongs to a training with other settings, or cannot be used.
    """
    path = folder / _SETTINGS
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1))
        return
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}); delete {folder} to start again.") from error
    here, there = (traverse_util.flatten_dict(each, sep=".") for each in (settings, found))
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise UserError(
                f"{folder} holds a training with {name} = {there.get(name)}, not {here.get(name)}; "
                "give another folder, or delete this one."
            )


def _checkpoints(
    folder: Path | None,
) -> contextlib.AbstractContextManager[ocp.CheckpointManager | None]:
    return (
        contextlib.nullcontext()
        if folder is None
        else checkpoint.manager(folder, best_metric=VALIDATION)
    )


def _begin(
    stage: Stage,
    checkpoints: ocp.CheckpointManager | None,
    report: Callable[[Point], None],
) -> tuple[Any, list[Point]]:
    if checkpoints is not None:
        restored = checkpoint.restore(checkpoints, jax.eval_shape(stage.start))
        if restored is not None:
            return restored.state, [Point(**point) for point in restored.provenance["points"]]
    began = time.monotonic()
    state = stage.start()
    validation = float(state.best_validation)
    seconds = time.monotonic() - began
    point = Point(stage.name, 0, 0, seconds, None, None, None, None, None, validation)
    report(point)
    return state, [point]


def _advance(stage: Stage, state: Any, points: list[Point]) -> tuple[Any, list[Point]]:
    """The updates up to the next validation, and the curve with its point."""
    began = time.monotonic()
    state, metrics = stage.advance(state)
    return state, [*points, _point(points[-1], state, metrics, began)]


def _save(
    checkpoints: ocp.CheckpointManager,
    state: Any,
    points: list[Point],
    provenance: dict[str, Any],
) -> None:
    record = {**provenance, "points": [dataclasses.asdict(point) for point in points]}
    newest = points[-1]
    metrics = {VALIDATION: newest.validation}
    checkpoint.save(checkpoints, newest.update, state, record, metrics)


def _point(before: Point, state: State, metrics: Metrics, began: float) -> Point:
    update = int(state.update)
    done = jax.tree.map(lambda leaf: np.asarray(leaf)[: update - before.update], metrics)
    return Point(
        stage=before.stage,
        update=update,
        decisions=before.decisions + int(done.decisions.sum()),
        seconds=before.seconds + time.monotonic() - began,
        reward=float(done.reward.mean()),
        throughput=float(done.throughput.mean()),
        entropy=float(done.entropy.mean()),
        policy_loss=float(done.policy_loss.mean()),
        value_loss=_number(done.value_loss.mean()),
        validation=float(done.validation[-1]),
    )


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
