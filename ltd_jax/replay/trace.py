"""The trace: everything the draft and the target would have said at every position of some texts.

A position is a place in a text, greedy or sampled, where a cycle can start: its root is the text's
token there. Texts lie one after the other; a cycle that commits c tokens moves from position p to
p + c. The tree of D levels contains the tree of every smaller number of levels as its first levels,
so one tree per position gives the accepted tokens of every setting (`accepted`; paper Sec. 3.2).
"""
# DOC """Several traces as one: what batches of texts, or separate recordings of one pair, add up to."""
# DOC """Parts of a recording that an interrupted run left, read again only where they belong to it."""

import dataclasses
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax import files
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError

SCHEMA = 2
CHUNK = 256  # positions per compiled call of `accepted`
NO_NODE = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """Recorded positions (numpy, on the host); all texts one after the other.

    Raises:
      ValueError: shapes disagree, or `remaining` does not count down to 1 within every text.
    """

    score: np.ndarray  # [P, D, W, W] f32 cumulative log-probability, -inf = no node
    token: np.ndarray  # [P, D, W, W] i32
    parent: np.ndarray  # [P, D, W] i32, slot * W + child of each frontier row in the level above
    continuation: np.ndarray  # [P, D] i32, the text's next tokens, -1 = the text is over
    remaining: np.ndarray  # [P] i32, tokens of the text after this position, >= 1
    length: np.ndarray  # [P] i32, tokens before the root (prompt and generated)
    text: np.ndarray  # [P] i32, which text
    task: np.ndarray  # [P] i32, index into provenance["tasks"]
    entropy: np.ndarray  # [P, D, W] f32 nats, of the draft's distribution at each frontier row
    root_entropy: np.ndarray  # [P] f32 nats, of the target's distribution the root came from
    provenance: dict[str, Any]  # tasks, fingerprint, device, dtype, versions, date, prompts ...
    hidden: np.ndarray | None = None  # [P, D, W, E] f16, the draft's outputs at the frontier rows
    reach: np.ndarray | None = None  # [P, D, W, W] f32, see replay/reach.py

    def __post_init__(self) -> None:
        if np.ndim(self.score) != 4 or not len(self.score):
            raise ValueError(
                f"score has shape {np.shape(self.score)}, expected [P, D, W, W], P >= 1."
            )
        count, levels, width, _ = self.score.shape
        tails: dict[str, tuple[int, ...]] = {"continuation": (levels,)}
        tails |= dict.fromkeys(("parent", "entropy"), (levels, width))
        tails |= dict.fromkeys(("score", "token"), (levels, width, width))
        for name in ARRAYS:
            shape = (count, *tails.get(name, ()))
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(f"{name} has shape {np.shape(getattr(self, name))}, not {shape}.")
        rows = (count, levels, width)
        if self.hidden is not None and np.shape(self.hidden)[:-1] != rows:
            raise ValueError(f"hidden has shape {np.shape(self.hidden)}, expected {rows} and E.")
        if self.reach is not None and np.shape(self.reach) != self.score.shape:
            raise ValueError(f"reach has shape {np.shape(self.reach)}, not {self.score.shape}.")
        last = np.append(text_starts(self.text)[1:], True)
        behind = np.where(last, 0, np.append(self.remaining[1:], 0))
        if np.any(self.remaining != behind + 1):
            raise ValueError("remaining must count down by one to 1 within every text.")

    @property
    def first(self) -> np.ndarray:
        """[texts] i32, the position where each text starts."""
        return np.flatnonzero(text_starts(self.text)).astype(np.int32)


OPTIONAL = ("hidden", "reach")
_OTHERS = ("provenance", *OPTIONAL)
ARRAYS = tuple(field.name for field in dataclasses.fields(Trace) if field.name not in _OTHERS)


def text_starts(text_P: np.ndarray) -> np.ndarray:
    """bool [P]: where a text begins."""
    return np.append(True, text_P[1:] != text_P[:-1])


def save(trace: Trace, path: Path) -> None:
    """Writes the trace as npz; a killed process leaves the old file or the new one.

    Raises:
      UserError: the file cannot be written.
    """
    provenance = json.dumps(trace.provenance)
    held = [name for name in OPTIONAL if getattr(trace, name) is not None]
    arrays = {name: getattr(trace, name) for name in (*ARRAYS, *held)}
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, schema=SCHEMA, provenance=provenance, **arrays)


def load(path: Path) -> Trace:
    """Reads a trace that `save` wrote.

    Raises:
      UserError: the file is missing, no trace, truncated or of another schema.
    """
    again = "record it again."
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            schema = int(file["schema"])
            if schema != SCHEMA:
                raise UserError(f"{path} has schema {schema}, this version reads {SCHEMA}; {again}")
            provenance = json.loads(str(file["provenance"]))
            found = (*ARRAYS, *(name for name in OPTIONAL if name in file))
            return Trace(**{name: file[name] for name in found}, provenance=provenance)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"There is no trace at {path}; record one first.") from error
    except KeyError as error:
        raise UserError(f"{path} is no trace, it lacks {error}; {again}") from error
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is no trace or is damaged ({error}); {again}") from error


def accepted(trace: Trace, config: CycleConfig) -> np.ndarray:
    """Accepted tokens of every setting at every position: i8 [P, D, V].

    With rank_L(i) = nodes of the first L levels that beat the i-th node of the agreeing path
    (greater score, or the same and a lower flat index), the best `size` nodes accept the largest
    d <= L with rank_L(i) < size for all i <= d.

    Raises:
      UserError: the trace has another beam width or other levels than `config`.
    """
    check(trace, config)
    return _by_chunks(partial(_accepted, config), trace)


def agreeing_path(trace: Trace) -> np.ndarray:
    """Which node of each level agrees with the text: slot * W + child, or NO_NODE; i32 [P, D]."""
    return _by_chunks(_agreeing_paths, trace)


def _by_chunks(function: Callable[..., jax.Array], trace: Trace) -> np.ndarray:
    """A function of score, token, parent and continuation, on a chunk of positions at a time."""
    count = len(trace.remaining)
    blocks = (trace.score, trace.token, trace.parent, trace.continuation)
    chunks = []
    for start in range(0, count, CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), count - 1)  # one shape, one program
        chunks.append(np.asarray(function(*(block[rows] for block in blocks))))
    return np.concatenate(chunks)[:count]


def check(trace: Trace, config: CycleConfig) -> None:
    """Raises UserError where the trace has another beam width or other levels than `config`."""
    levels, width = trace.score.shape[1:3]
    if (levels, width) != (config.max_levels, config.beam_width):
        raise UserError(
            f"The trace has {levels} levels and beam width {width}, the cycle {config.max_levels} "
            f"and {config.beam_width}; record it again with this cycle's configuration."
        )


@partial(jax.jit, static_argnames="config")
@partial(jax.vmap, in_axes=(None, 0, 0, 0, 0))
def _accepted(
    config: CycleConfig,
    score_DWW: jax.Array,
    token_DWW: jax.Array,
    parent_DW: jax.Array,
    continuation_D: jax.Array,
) -> jax.Array:
    path_D = _agreeing_path(score_DWW, token_DWW, parent_DW, continuation_D)
    rank_DD = jnp.cumsum(beaten_by(score_DWW, path_D), axis=1)  # [node of the path, levels drafted]
    level_D = jnp.arange(config.max_levels)
    drafted_DD = level_D[:, None] <= level_D[None]
    on_path_DD = (path_D != NO_NODE)[:, None] & drafted_DD
    sizes_11V = jnp.asarray(config.sizes)[None, None]
    chosen_DDV = on_path_DD[:, :, None] & (rank_DD[:, :, None] < sizes_11V)
    return jnp.cumprod(chosen_DDV, axis=0, dtype=jnp.int8).sum(0, dtype=jnp.int8)


def beaten_by(score_DWW: jax.Array, path_D: jax.Array) -> jax.Array:
    """Nodes of each level (second axis) that come before the path's node of a level (first axis).

    Those of greater score, or of the same and a lower flat index; i32 [D, D].
    """
    levels, nodes = score_DWW.shape[0], score_DWW[0].size
    score_DN = score_DWW.reshape(levels, nodes)
    index_DN = jnp.arange(levels * nodes).reshape(levels, nodes)
    level_D = jnp.arange(levels)
    own_D11 = score_DN[level_D, path_D][:, None, None]
    own_index_D11 = index_DN[level_D, path_D][:, None, None]
    beats_DDN = (score_DN[None] > own_D11) | (
        (score_DN[None] == own_D11) & (index_DN[None] < own_index_D11)
    )
    return beats_DDN.sum(-1)


def _agreeing_path(
    score_DWW: jax.Array, token_DWW: jax.Array, parent_DW: jax.Array, continuation_D: jax.Array
) -> jax.Array:
    """i32 [D]: the node (slot * W + child) of each level that agrees with the text, or NO_NODE."""

    def follow(node, level):
        score_WW, token_WW, parent_W, next_token = level
        agrees_WW = (parent_W[:, None] == node) & (token_WW == next_token) & (score_WW > -jnp.inf)
        node = jnp.where(agrees_WW.any(), jnp.argmax(agrees_WW), NO_NODE)
        return node, node

    parent_DW = parent_DW.at[0].set(0)  # level 1 holds the root's children only, whatever is stored
    _, path_D = jax.lax.scan(
        follow, jnp.int32(0), (score_DWW, token_DWW, parent_DW, continuation_D)
    )
    return path_D


_agreeing_paths = jax.jit(jax.vmap(_agreeing_path))


def concatenate(parts: Sequence[Trace]) -> Trace:
    """One trace of all texts; texts and tasks are numbered anew, tasks of one name are joined.

    Provenance that all parts share is kept, what differs is listed under "parts".

    Raises:
      UserError: no trace given, or they are not of one pair and one kind.
    """
    _must_join(parts)
    names = [part.provenance["tasks"] for part in parts]
    tasks = list(dict.fromkeys(name for known in names for name in known))
    join = lambda name: np.concatenate([getattr(part, name) for part in parts])
    joined = {name: join(name) for name in ARRAYS}
    starts = np.concatenate([text_starts(part.text) for part in parts])
    joined["text"] = (np.cumsum(starts) - 1).astype(np.int32)
    joined["task"] = np.concatenate(
        [
            np.asarray([tasks.index(name) for name in known], np.int32)[part.task]
            for known, part in zip(names, parts, strict=True)
        ]
    )
    held = [name for name in OPTIONAL if getattr(parts[0], name) is not None]
    joined |= {name: join(name) for name in held}
    return Trace(**joined, provenance=_join_provenance(parts) | {"tasks": tasks})


def _must_join(parts: Sequence[Trace]) -> None:
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


SAME_RECORDING = (
    "fingerprint",
    "prompts",
    "new_tokens",
    "dtype",
    "sampling",
)  # in all parts' provenance


def read_part(
    path: Path, cycle: CycleConfig, provenance: dict[str, Any], with_hidden: bool
) -> Trace | None:
    """A part; None where there is none, or a damaged one.

    Raises:
      UserError: it belongs to another recording.
    """
    if not path.exists():
        return None
    try:
        part = load(path)
    except UserError as error:
        warnings.warn(f"{error} It is recorded now.", stacklevel=2)
        return None
    shape = "levels and beam width"
    there = {name: part.provenance.get(name) for name in SAME_RECORDING} | {
        shape: part.score.shape[1:3]
    }
    here = {name: provenance.get(name) for name in SAME_RECORDING}
    here |= {shape: (cycle.max_levels, cycle.beam_width)}
    for name in here:
        if there[name] != here[name]:
            raise UserError(
                f"{path} was recorded with {name} {there[name]}, not {here[name]}; delete "
                f"{path.parent} or give another folder."
            )
    return with_task_names(part, provenance) if (part.hidden is not None) == with_hidden else None


def with_task_names(trace: Trace, provenance: dict[str, Any]) -> Trace:
    """A trace of the same prompts with the names that their tasks have in `provenance`.

    A question file may have been renamed since; prompts name their tasks by number.
    """
    return dataclasses.replace(trace, provenance=trace.provenance | {"tasks": provenance["tasks"]})
