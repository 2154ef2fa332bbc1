"""Latency tables that ship with the package, and any table fitted to a cycle's levels and sizes.

A table is found by its name or as a file. A published table has its own grid of levels and sizes,
so before a replay reads it, it is fitted to the cycle:

    between two sizes        a straight line
    below the smallest size  a straight line to size 0, which takes as long as a plain step: both
                             are one pass of the target over one token
    beyond the last          the line goes on with the mean slope of the upper half, never downwards
    levels                   the table's own, cut or continued in the same way

The beam width is not fitted: a draft pass over a few rows takes as long as its weights take to be
read, whatever their number.
"""

import dataclasses
from pathlib import Path

import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError
from ltd_jax.prompts import ASSETS
from ltd_jax.replay import latency
from ltd_jax.replay.latency import LatencyTable

FOLDER = ASSETS / "latency"


def names() -> tuple[str, ...]:
    """The shipped tables, by the names that `find` knows, in order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def find(name: str) -> LatencyTable:
    """The shipped table of a name, or the table in a file.

    Raises:
      UserError: it is neither, or the file is no latency table.
    """
    if name in names():
        return latency.load(FOLDER / f"{name}.json")
    path = Path(name)
    if path.suffix == ".json" or path.exists():
        return latency.load(path)
    raise UserError(
        f"There is no latency table {name!r}; name a file (*.json) or one of {', '.join(names())}."
    )


def fit(table: LatencyTable, config: CycleConfig) -> LatencyTable:
    """The same device's table for the levels and sizes of a cycle; unchanged where they are equal.

    Its provenance names the table it comes from by fingerprint, under "fitted_from".
    """
    if table.sizes == config.sizes and table.max_levels == config.max_levels:
        return table
    sizes, cycle_LDV, verify_LV = _from_size_zero(table)
    known = np.arange(1, table.max_levels + 1)
    levels = np.arange(1, config.max_levels + 1)
    cycle_LDV = along(along(cycle_LDV, known, levels, 1), sizes, np.asarray(config.sizes), 2)
    return dataclasses.replace(
        table,
        sizes=config.sizes,
        cycle_seconds=cycle_LDV,
        draft_seconds=along(table.draft_seconds, known, levels, 1),
        verify_seconds=along(verify_LV, sizes, np.asarray(config.sizes), 1),
        provenance=table.provenance | {"fitted_from": latency.fingerprint(table)},
    )


def along(values: np.ndarray, known: np.ndarray, wanted: np.ndarray, axis: int) -> np.ndarray:
    """Values known at rising places, read at others along one axis.

    Straight lines between the known places; behind the last one the mean slope of the upper half
    (from the first place that is at least half of the last), at least 0.

    Args:
      wanted: none below the first known place.
    """
    values = np.moveaxis(np.asarray(values, np.float64), axis, -1)
    right = np.clip(np.searchsorted(known, wanted), 1, max(len(known) - 1, 1))
    left, right = right - 1, np.minimum(right, len(known) - 1)
    share = (wanted - known[left]) / np.maximum(known[right] - known[left], 1)
    share = np.clip(share, 0.0, 1.0)
    inside = (1 - share) * values[..., left] + share * values[..., right]
    half = int(np.searchsorted(known, known[-1] / 2))
    rise = values[..., -1] - values[..., half]
    slope = np.maximum(rise / max(known[-1] - known[half], 1), 0.0)
    beyond = np.maximum(wanted - known[-1], 0)
    return np.moveaxis(inside + slope[..., None] * beyond, -1, axis)


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
