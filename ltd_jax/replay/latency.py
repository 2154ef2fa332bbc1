"""The latency table: how long a cycle of every setting takes on one device (paper Eq. 1 and 4).

Measured once per device by `profile.profile`, built from published numbers, or one of those that
ship with the package; a JSON file that a user can keep, share and inspect. Moving to other hardware
means swapping the table. All times are seconds, all arrays numpy on the host; seconds between two
measured contexts are interpolated.

A published table has its own grid of levels and sizes, so it is fitted to a cycle (`fit`) before a
simulator reads it:

    between two sizes        a straight line
    below the smallest size  a straight line to size 0, which takes as long as a plain step: both
                             are one pass of the target over one token
    beyond the last          the line goes on with the mean slope of the upper half, never downwards
    levels                   the table's own, cut or continued in the same way

The beam width is not fitted: a draft pass over a few rows takes as long as its weights take to be
read, whatever their number.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltd_jax import files
from ltd_jax.config import CycleConfig
from ltd_jax.files import ASSETS, Identity, UserError, identity_of, write_json

SCHEMA = 1
FOLDER = ASSETS / "latency"
_ARRAYS = ("cycle_seconds", "draft_seconds", "verify_seconds", "plain_seconds")
_SCALARS = ("depth_seconds", "size_seconds")


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable:
    """Seconds at L context lengths, for levels 1..D and V sizes.

    Example:
      >>> table = LatencyTable.find("a100-vicuna-13b-paper")
      >>> table.max_levels, table.sizes[-1]
      (10, 200)

    Raises:
      ValueError: shapes disagree, contexts or sizes do not rise, or a time is not positive.
    """

    contexts: np.ndarray  # [L] i32 tokens before the root, rising
    sizes: tuple[int, ...]  # V verified nodes, rising
    cycle_seconds: np.ndarray  # [L, D, V] f64 a whole cycle of a constant policy
    draft_seconds: np.ndarray  # [L, D] f64 the draft part of a cycle with so many levels
    verify_seconds: np.ndarray  # [L, V] f64 verify and commit
    plain_seconds: np.ndarray  # [L] f64 one step of plain decoding
    depth_seconds: float  # one decision of the depth policy
    size_seconds: float  # one decision of the size policy
    provenance: dict[str, Any]  # device, dtype, fingerprint, versions, date, command, policy config

    def __post_init__(self) -> None:
        rows, sizes = len(self.contexts), len(self.sizes)
        levels = np.shape(self.cycle_seconds)[1] if np.ndim(self.cycle_seconds) == 3 else -1
        shapes = [(rows, levels, sizes), (rows, levels), (rows, sizes), (rows,)]
        for name, shape in zip(_ARRAYS, shapes, strict=True):
            values = getattr(self, name)
            if np.shape(values) != shape:
                raise ValueError(f"{name} has shape {np.shape(values)}, expected {shape}.")
            if not (np.isfinite(values).all() and np.all(np.asarray(values) > 0)):
                raise ValueError(f"{name} must hold positive, finite seconds only.")
        for name in _SCALARS:
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be finite and not negative.")
        for name, values in (("contexts", self.contexts), ("sizes", self.sizes)):
            if not len(values) or np.any(np.diff(values) <= 0):
                raise ValueError(f"{name} {tuple(values)} must rise.")

    @staticmethod
    def find(name: str, config: CycleConfig | None = None) -> "LatencyTable":
        """A shipped table by its name, or one of a file; fitted to a cycle where one is given.

        Raises:
          UserError: it is neither, or the file is no latency table.
        """
        shipped, path = shipped_names(), Path(name)
        if name in shipped:
            path = FOLDER / f"{name}.json"
        elif path.suffix != ".json" and not path.exists():
            raise UserError(
                f"There is no latency table {name!r}; name a file (*.json) or one of "
                f"{', '.join(shipped)}."
            )
        table = load(path)
        return table if config is None else fit(table, config)

    @property
    def max_levels(self) -> int:
        """D, the most levels the table knows."""
        return self.cycle_seconds.shape[1]

    @property
    def identity(self) -> Identity:
        """The pair and device it was measured with, and its own fingerprint."""
        return dataclasses.replace(identity_of(self.provenance), latency=fingerprint(self))


def additive(
    contexts: Sequence[int],
    sizes: Sequence[int],
    draft_seconds: np.ndarray,
    verify_seconds: np.ndarray,
    plain_seconds: np.ndarray,
    decision_seconds: tuple[float, float],
    provenance: dict[str, Any],
) -> LatencyTable:
    """A table whose cycles cost t_draft + t_verify (Eq. 1), for published or partial timings.

    Args:
      draft_seconds: [L, D]; verify_seconds: [L, V]; plain_seconds: [L].
      decision_seconds: of one depth decision and of one size decision.
    """
    draft, verify = np.asarray(draft_seconds, np.float64), np.asarray(verify_seconds, np.float64)
    return LatencyTable(
        contexts=np.asarray(contexts, np.int32),
        sizes=tuple(int(size) for size in sizes),
        cycle_seconds=draft[:, :, None] + verify[:, None, :],
        draft_seconds=draft,
        verify_seconds=verify,
        plain_seconds=np.asarray(plain_seconds, np.float64),
        depth_seconds=float(decision_seconds[0]),
        size_seconds=float(decision_seconds[1]),
        provenance=provenance,
    )


def neighbours(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of wanted values between known, rising ones (contexts), clamped at both ends.

    Returns:
      row: i32, the known value at or below, at most the last but one (0 where there is only one);
      share: f64 in [0, 1], the weight of the known value after it.
    """
    last = max(len(known) - 2, 0)
    row = np.clip(np.searchsorted(known, wanted, side="right") - 1, 0, last).astype(np.int32)
    below = known[row].astype(np.float64)
    gap = known[np.minimum(row + 1, len(known) - 1)] - below
    return row, np.clip((wanted - below) / np.maximum(gap, 1), 0.0, 1.0) * (gap > 0)


def interpolate(table: LatencyTable, values: np.ndarray, length: np.ndarray) -> np.ndarray:
    """One of the table's arrays [L, ...] at one or many lengths: [..., ...], same units."""
    return _between(table.contexts, values, np.asarray(length))


def _between(known: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Straight lines between values [L, ...] that are known at L places, clamped at both ends."""
    row, share = neighbours(known, wanted)
    share = share.reshape(share.shape + (1,) * (values.ndim - 1))
    after = values[np.minimum(row + 1, len(values) - 1)]
    return (1 - share) * values[row] + share * after


def fingerprint(table: LatencyTable) -> str:
    """12 hex characters of a sha256 over all numbers: the identity a policy is trained for."""
    digest = hashlib.sha256()
    numbers = [table.contexts, table.sizes, *(getattr(table, name) for name in _ARRAYS + _SCALARS)]
    for values in numbers:
        array = np.asarray(values, "<f8")
        digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()[:12]


def to_json(table: LatencyTable) -> dict[str, Any]:
    """All of a table as JSON values."""
    grid = {"schema": SCHEMA, "contexts": table.contexts.tolist(), "sizes": list(table.sizes)}
    seconds = {name: getattr(table, name).tolist() for name in _ARRAYS}
    return grid | seconds | {name: getattr(table, name) for name in (*_SCALARS, "provenance")}


def save(table: LatencyTable, path: Path) -> None:
    """Writes the table as JSON; a killed process leaves the old file or the new one.

    Raises:
      UserError: the file cannot be written.
    """
    write_json(path, to_json(table))


def load(path: Path) -> LatencyTable:
    """Reads a table that `save` wrote.

    Raises:
      UserError: the file is missing, no latency table, truncated or of another schema.
    """
    remedy = "measure the latencies again"
    with files.reading_json(path, "latency table", SCHEMA, remedy) as record:
        numbers: dict[str, Any] = {name: np.asarray(record[name], np.float64) for name in _ARRAYS}
        numbers |= {name: float(record[name]) for name in _SCALARS}
        table = LatencyTable(
            contexts=np.asarray(record["contexts"], np.int32),
            sizes=tuple(int(size) for size in record["sizes"]),
            provenance=dict(record["provenance"]),
            **numbers,
        )
    return table


def shipped_names() -> tuple[str, ...]:
    """The shipped tables, by the names that `LatencyTable.find` knows, in order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def fit(table: LatencyTable, config: CycleConfig) -> LatencyTable:
    """The same device's table for the levels and sizes of a cycle; unchanged where they are equal.

    Its provenance names the table it comes from by fingerprint, under "fitted_from".
    """
    if table.sizes == config.sizes and table.max_levels == config.max_levels:
        return table
    known_sizes, cycle_LDV, verify_LV = _from_size_zero(table)
    sizes = np.asarray(config.sizes)
    known_levels = np.arange(1, table.max_levels + 1)
    levels = np.arange(1, config.max_levels + 1)
    cycle_LDV = resample(cycle_LDV, known_levels, levels, axis=1)
    return dataclasses.replace(
        table,
        sizes=config.sizes,
        cycle_seconds=resample(cycle_LDV, known_sizes, sizes, axis=2),
        draft_seconds=resample(table.draft_seconds, known_levels, levels, axis=1),
        verify_seconds=resample(verify_LV, known_sizes, sizes, axis=1),
        provenance=table.provenance | {"fitted_from": fingerprint(table)},
    )


def resample(values: np.ndarray, known: np.ndarray, wanted: np.ndarray, *, axis: int) -> np.ndarray:
    """Values known at rising places of one axis, read at other places.

    Straight lines between the known places; after the last one the mean slope of the upper half
    (from the first place that is at least half of the last), at least 0.

    Args:
      wanted: none below the first known place.
    """
    values = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    half = int(np.searchsorted(known, known[-1] / 2))
    rise = values[-1] - values[half]
    slope = np.maximum(rise / max(known[-1] - known[half], 1), 0.0)
    beyond = np.maximum(wanted - known[-1], 0).reshape(-1, *[1] * (values.ndim - 1))
    return np.moveaxis(_between(known, values, wanted) + slope * beyond, 0, axis)


def _from_size_zero(table: LatencyTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes from 0 on, seconds of cycles [L, D, V] and of verifying [L, V] at them."""
    sizes = np.asarray(table.sizes)
    if sizes[0] == 0:
        return sizes, table.cycle_seconds, table.verify_seconds
    least_L = table.verify_seconds[:, 0]
    zero_L = np.minimum(table.plain_seconds, least_L)
    cycle_LD1 = table.cycle_seconds[:, :, :1] - (least_L - zero_L)[:, None, None]
    return (
        np.append(0, sizes),
        np.concatenate([cycle_LD1, table.cycle_seconds], axis=2),
        np.concatenate([zero_L[:, None], table.verify_seconds], axis=1),
    )
