"""Several traces as one: what batches of texts, or separate recordings of one pair, add up to."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltd_jax.errors import UserError
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace


def concatenate(parts: Sequence[Trace]) -> Trace:
    """One trace of all texts; texts and tasks are numbered anew, tasks of one name are joined.

    Provenance that all parts share is kept, what differs is listed under "parts".

    Raises:
      UserError: no trace given, or they are not of one pair and one kind.
    """
    _check(parts)
    names = [part.provenance["tasks"] for part in parts]
    tasks = list(dict.fromkeys(name for known in names for name in known))
    join = lambda name: np.concatenate([getattr(part, name) for part in parts])
    joined = {name: join(name) for name in traces.ARRAYS}
    starts = np.concatenate([traces.starts(part.text) for part in parts])
    joined["text"] = (np.cumsum(starts) - 1).astype(np.int32)
    joined["task"] = np.concatenate(
        [
            np.asarray([tasks.index(name) for name in known], np.int32)[part.task]
            for known, part in zip(names, parts, strict=True)
        ]
    )
    held = [name for name in traces.OPTIONAL if getattr(parts[0], name) is not None]
    joined |= {name: join(name) for name in held}
    return Trace(**joined, provenance=_join_provenance(parts) | {"tasks": tasks})


def _check(parts: Sequence[Trace]) -> None:
    if not parts:
        raise UserError("There is no trace to join; record one first.")
    if len({part.score.shape[1:] for part in parts}) > 1:
        raise UserError(
            "Traces of other levels or beam widths cannot be joined; record them alike."
        )
    if len({part.provenance.get("fingerprint") for part in parts}) > 1:
        raise UserError("Traces of different weights cannot be joined; record them with one pair.")
    if len({part.hidden is None for part in parts}) > 1:
        raise UserError(
            "Only some of the traces hold the draft's outputs (hidden); record all of them so."
        )
    if len({part.reach is None for part in parts}) > 1:
        raise UserError(
            "Only some of the traces hold acceptance probabilities (reach); record all of them so."
        )


def _join_provenance(parts: Sequence[Trace]) -> dict[str, Any]:
    records = [part.provenance for part in parts]
    shared = {
        key: value
        for key, value in records[0].items()
        if all(key in record and record[key] == value for record in records)
    }
    others = [
        {key: value for key, value in record.items() if key not in shared} for record in records
    ]
    return shared | ({"parts": others} if any(others) else {})
