"""Checkpoints of resumable training: orbax, arrays beside a JSON record of what they belong to.

A checkpoint holds one pytree (parameters, optimiser, random key, counters) and its provenance.
Orbax writes into a temporary folder and renames it, so a killed process leaves no half-written
step. Digests of both lie in the record: a step that was damaged later, down to one bit, is named
and the one before it is used.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from ltd_jax.files import UserError, require_finite, to_json

logging.getLogger("absl").setLevel(logging.CRITICAL)  # errors are raised; orbax logs them as well
DIGESTS = "digests"  # their place in a record
OS_ERROR = "os_error_code="  # how orbax's storage library tells errors of the system


@dataclasses.dataclass(frozen=True)
class Restored:
    """A step that was read."""

    step: int
    state: Any  # same structure as the abstract state it was asked for
    provenance: dict[str, Any]


@contextlib.contextmanager
def manager(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """A manager that keeps the last two steps; leaving the block waits for the last save.

    Raises:
      UserError: the folder cannot be made, or a checkpoint cannot be written.
    """
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write checkpoints to {folder}: {error.strerror}.") from error
    checkpoints = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=2))
    closing: contextlib.AbstractContextManager[None] = _writing(folder)
    show = sys.unraisablehook
    sys.unraisablehook = functools.partial(_unless_loop_is_closed, show)
    try:
        yield checkpoints
    except UserError:
        closing = contextlib.suppress(Exception)  # it is told already
        raise
    finally:
        with closing:
            checkpoints.close()
    sys.unraisablehook = show  # but after a failed write, whose remains may still come


def _unless_loop_is_closed(show: Callable[[Any], Any], unraisable: Any) -> None:
    """Shows what cannot be raised, but for the remains of a failed write.

    Where one of orbax's writes fails, the loop that waits for all of them is closed; the others
    find it so, which its storage library prints with a traceback each.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        show(unraisable)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raises UserError where a save of the block, or one begun before it, cannot be written."""
    try:
        yield
    except Exception as error:  # orbax raises what its own libraries do
        if not isinstance(error, OSError) and OS_ERROR not in str(error):
            raise
        raise UserError(
            f"Cannot write a checkpoint to {folder} ({_reason(error)}); make room or give another "
            "`out`, and the training goes on from the last checkpoint that is whole."
        ) from error


def _reason(error: Exception) -> str:
    """What an error says first; of the system's errors without the layers that it went through."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(rf"{OS_ERROR}\D{{0,2}}(\d+)", str(error))
    if code is not None:
        return os.strerror(int(code[1]))
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return line[:200]


def save(
    checkpoints: ocp.CheckpointManager, step: int, state: Any, provenance: dict[str, Any]
) -> None:
    """Starts an asynchronous save; `manager` waits for it.

    Steps rise, so one that is there already, or lies ahead, could not be read: it is deleted.

    Raises:
      UserError: this checkpoint or the one before it cannot be written, or a number in it is not
        finite.
    """
    what = f"Checkpoint {step} in {checkpoints.directory} is not written"
    require_finite(what, state, remedy="the training has gone wrong, learn more slowly")
    record = json.loads(to_json(provenance, what))  # a wrong value fails here, not in a thread
    state = jax.tree.map(_stored, state)
    digests = {"provenance": _record_digest(record), "state": digest(state)}
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        provenance=ocp.args.JsonSave({**record, DIGESTS: digests}),
    )
    with _writing(checkpoints.directory):
        for ahead in checkpoints.all_steps():
            if ahead >= step:
                checkpoints.delete(ahead)
        checkpoints.save(step, args=args, force=True)


def restore(checkpoints: ocp.CheckpointManager, abstract: Any) -> Restored | None:
    """The newest undamaged step, or None where there is none.

    Args:
      abstract: the state's structure as arrays or `jax.ShapeDtypeStruct`s. A leaf goes where its
        sharding says, whatever devices it was saved from; without one, to the first device, but
        not bound to it, so that it finds the programs of a state that was never saved.

    Raises:
      UserError: there are steps, but none can be read.
    """
    steps = sorted(checkpoints.all_steps(), reverse=True)
    bound = jax.tree.map(_is_bound, abstract)
    abstract = jax.tree.map(_with_sharding, abstract)
    for candidate in steps:
        try:
            restored = _restore_step(checkpoints, abstract, candidate)
            return dataclasses.replace(restored, state=jax.tree.map(_freed, bound, restored.state))
        except Exception as error:  # orbax raises many kinds for a damaged folder
            if candidate == steps[-1]:
                raise UserError(
                    f"None of the checkpoints {steps} in {checkpoints.directory} can be read "
                    f"({candidate}: {_reason(error)}); delete the folder to start again."
                ) from error
            warnings.warn(
                f"Checkpoint {candidate} in {checkpoints.directory} is damaged ({_reason(error)}); "
                "the one before it is tried.",
                stacklevel=2,
            )
    return None


def _restore_step(checkpoints: ocp.CheckpointManager, abstract: Any, step: int) -> Restored:
    stored = jax.tree.map(_stored, abstract)
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(stored), provenance=ocp.args.JsonRestore()
    )
    contents = checkpoints.restore(step, args=args)
    state, provenance = contents["state"], contents["provenance"]
    digests = provenance.pop(DIGESTS, None)
    if digests is None or digests["provenance"] != _record_digest(provenance):
        raise ValueError("its provenance is not what was saved")
    if len({digests["state"], digest(state)} - {None}) > 1:
        raise ValueError("its arrays are not what was saved")
    if any(jax.tree.leaves(jax.tree.map(_has_other_type, stored, state))):
        raise ValueError("its arrays have lost their types")
    return Restored(step, jax.tree.map(_emptied, abstract, state), provenance)


def _record_digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def digest(state: Any) -> str | None:
    """A sha256 over all leaves; None where parts of them lie in other processes."""
    sha256 = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return None
        array = np.asarray(leaf)
        sha256.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return sha256.hexdigest()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets a block (work and its save) end before SIGINT or SIGTERM is obeyed.

    A second signal is obeyed at once. Other threads than the main one receive no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        if len(waiting) > 1:
            give_back()
            signal.raise_signal(number)

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        give_back()
    if waiting:
        signal.raise_signal(waiting[0])


def _is_bound(leaf: Any) -> bool:
    """Whether a leaf is to lie on certain devices."""
    if isinstance(leaf, jax.Array):
        return leaf.committed
    return getattr(leaf, "sharding", None) is not None


def _freed(bound: bool, leaf: Any) -> Any:
    """The leaf; an array that orbax bound to a device unasked is as if a program had made it."""
    if bound or not isinstance(leaf, jax.Array):
        return leaf
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jnp.asarray(np.asarray(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jnp.asarray(np.asarray(leaf))


def _with_sharding(leaf: Any) -> Any:
    """A leaf's abstract form with an explicit sharding."""
    abstract = ocp.utils.to_shape_dtype_struct(leaf)
    if isinstance(abstract, jax.ShapeDtypeStruct) and abstract.sharding is None:
        return abstract.update(sharding=SingleDeviceSharding(jax.local_devices()[0]))
    return abstract


def _stored(leaf: Any) -> Any:
    """The leaf; orbax keeps no array without numbers, so a single number stands for one."""
    return np.zeros(1, leaf.dtype) if _is_empty(leaf) else leaf


def _emptied(abstract: Any, leaf: Any) -> Any:
    """The array without numbers that `_stored` kept as one number."""
    if not _is_empty(abstract):
        return leaf
    return jnp.zeros(abstract.shape, abstract.dtype, device=abstract.sharding)


def _is_empty(leaf: Any) -> bool:
    return 0 in getattr(leaf, "shape", ())


def _has_other_type(abstract: Any, leaf: Any) -> bool:
    """Another type than asked for, as random keys whose mark is lost."""
    return hasattr(abstract, "dtype") and abstract.dtype != leaf.dtype
