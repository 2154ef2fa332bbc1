"""Parts of a recording that an interrupted run left, read again only where they belong to it."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace

SAME = ("fingerprint", "prompts", "new_tokens", "dtype", "sampling")  # in all parts' provenance


def read(
    path: Path, cycle: CycleConfig, provenance: dict[str, Any], with_hidden: bool
) -> Trace | None:
    """A part; None where there is none, or a damaged one.

    Raises:
      UserError: it belongs to another recording.
    """
    if not path.exists():
        return None
    try:
        part = traces.load(path)
    except UserError as error:
        warnings.warn(f"{error} It is recorded now.", stacklevel=2)
        return None
    shape = "levels and beam width"
    there = {name: part.provenance.get(name) for name in SAME} | {shape: part.score.shape[1:3]}
    here = {name: provenance.get(name) for name in SAME}
    here |= {shape: (cycle.max_levels, cycle.beam_width)}
    for name in here:
        if there[name] != here[name]:
            raise UserError(
                f"{path} was recorded with {name} {there[name]}, not {here[name]}; delete "
                f"{path.parent} or give another folder."
            )
    return renamed(part, provenance) if (part.hidden is not None) == with_hidden else None


def renamed(trace: Trace, provenance: dict[str, Any]) -> Trace:
    """A trace of the same prompts with the names that their tasks have in `provenance`.

    A question file may have been renamed since; prompts name their tasks by number.
    """
    return dataclasses.replace(trace, provenance=trace.provenance | {"tasks": provenance["tasks"]})
