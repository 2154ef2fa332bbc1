"""The trace: everything the draft and the target would have said at every position of some texts.

A position is a place in a text, greedy or sampled, where a cycle can start: its root is the text's
token there. Texts lie one after the other; a cycle that commits c tokens moves from position p to
p + c. The tree of D levels contains the tree of every smaller number of levels as its first levels,
so one tree per position gives the accepted tokens of every setting (`accepted`; paper Sec. 3.2),
and with the target's probabilities beside it, their mean over all texts (`expected`).

A trace is an npz file. What an interrupted recording left is a folder of such files, its parts,
which are read again only where they belong to the same recording.
"""

import dataclasses
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax import files, finite
from ltd_jax.config import CycleConfig
from ltd_jax.files import Identity, UserError

SCHEMA = 2
CHUNK = 256  # positions per compiled call of `accepted` and `expected`
NO_NODE = -1  # in a path
ON_DISK = {"log_prob": "score", "tokens_left": "remaining", "accept_prob": "reach"}


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """Recorded positions (numpy, on the host); all texts one after the other.

    Example:
      >>> import ltd_jax as ltd
      >>> trace = ltd.record(ltd.load(), ["import os"], new_tokens=8)
      >>> save(trace, Path("trace.npz"))
      >>> load(Path("trace.npz")).length.tolist() == trace.length.tolist()
      True

    Raises:
      UserError: a number is not finite where it has to be.
      ValueError: shapes disagree, or `tokens_left` does not count down to 1 within every text.
    """

    log_prob: np.ndarray  # [P, D, W, W] f32 cumulative, -inf = no node
    token: np.ndarray  # [P, D, W, W] i32
    parent: np.ndarray  # [P, D, W] i32, slot * W + child of each frontier row in the level above
    continuation: np.ndarray  # [P, D] i32, the text's next tokens, -1 = the text is over
    tokens_left: np.ndarray  # [P] i32, tokens of the text after this position, >= 1
    length: np.ndarray  # [P] i32, tokens before the root (prompt and generated)
    text: np.ndarray  # [P] i32, index of the text
    task: np.ndarray  # [P] i32, index into provenance["tasks"]
    entropy: np.ndarray  # [P, D, W] f32 nats, of the draft's distribution at each frontier row
    root_entropy: np.ndarray  # [P] f32 nats, of the target's distribution the root came from
    provenance: dict[str, Any]  # tasks, fingerprint, device, dtype, versions, date, prompts ...
    hidden: np.ndarray | None = None  # [P, D, W, E] f16, the draft's outputs at the frontier rows
    accept_prob: np.ndarray | None = None  # [P, D, W, W] f32 that a node is accepted, see sampled

    def __post_init__(self) -> None:
        if np.ndim(self.log_prob) != 4 or not len(self.log_prob):
            raise ValueError(
                f"log_prob has shape {np.shape(self.log_prob)}, expected [P, D, W, W], P >= 1."
            )
        count, levels, width, _ = self.log_prob.shape
        axes = {"continuation": 2} | dict.fromkeys(("parent", "entropy", "hidden"), 3)
        axes |= dict.fromkeys(("log_prob", "token", "accept_prob"), 4)
        for name in (*ARRAYS, *_optional_of(self)):
            shape = np.shape(getattr(self, name))
            expected = (count, levels, width, width)[: axes.get(name, 1)]
            expected += shape[-1:] if name == "hidden" else ()  # E, whatever it is
            if shape != expected:
                raise ValueError(f"{name} has shape {shape}, not {expected}.")
        log_prob = None
        if not (self.log_prob < np.inf).all():
            log_prob = np.where(self.log_prob == -np.inf, 0, self.log_prob)  # -inf = no node
        names = ("entropy", "root_entropy", "accept_prob")
        _require_finite({"log_prob": log_prob} | {name: getattr(self, name) for name in names})
        is_last_P = np.append(_is_start(self.text)[1:], True)
        left_after_P = np.where(is_last_P, 0, np.append(self.tokens_left[1:], 0))
        if np.any(self.tokens_left != left_after_P + 1):
            raise ValueError("tokens_left must count down by one to 1 within every text.")

    @property
    def text_start(self) -> np.ndarray:
        """[texts] i32, the position where each text starts."""
        return np.flatnonzero(_is_start(self.text)).astype(np.int32)


OPTIONAL = ("hidden", "accept_prob")
ARRAYS = tuple(
    field.name for field in dataclasses.fields(Trace) if field.name not in ("provenance", *OPTIONAL)
)


def _is_start(text_P: np.ndarray) -> np.ndarray:
    """bool [P]: the first position of a text."""
    return np.append(True, text_P[1:] != text_P[:-1])


def _require_finite(arrays: Mapping[str, np.ndarray | None]) -> None:
    fault = finite.first_fault(dict(arrays))
    if fault is not None:
        raise UserError(f"{fault}, no finite number.")


def save(trace: Trace, path: Path) -> None:
    """Writes the trace as npz; a killed process leaves the old file or the new one.

    Raises:
      UserError: the file cannot be written, or one of the draft's outputs or a number of the
        provenance is not finite.
    """
    _require_finite({"hidden": trace.hidden})  # large, so not whenever a trace is made
    names = [*ARRAYS, *_optional_of(trace)]
    arrays = {ON_DISK.get(name, name): getattr(trace, name) for name in names}
    provenance = files.to_json(trace.provenance, f"Cannot write {path}")
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, schema=SCHEMA, provenance=provenance, **arrays)


def load(path: Path) -> Trace:
    """Reads a trace that `save` wrote.

    Raises:
      UserError: the file is missing, no trace, truncated or of another schema.
    """
    again = "record it again."
    try:
        if path.is_file() and not zipfile.is_zipfile(path):  # else numpy takes it for a pickle
            files.refuse_pointer(path)
            raise zipfile.BadZipFile("it is no npz file, or ends too early")
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            schema = int(file["schema"])
            if schema == SCHEMA:
                return _read(file)
    except FileNotFoundError as error:
        raise UserError(f"There is no trace at {path}; record one first.") from error
    except KeyError as error:
        raise UserError(f"{path} is no trace, it lacks {error}; {again}") from error
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        has_objects = "allow_pickle" in str(error)  # numpy's advice is to trust the file
        reason = "objects where numbers are needed" if has_objects else error
        raise UserError(f"{path} is no trace or is damaged ({reason}); {again}") from error
    raise UserError(f"{path} has schema {schema}, this version reads {SCHEMA}; {again}")


def _read(file: Mapping[str, Any]) -> Trace:
    optional = [name for name in OPTIONAL if ON_DISK.get(name, name) in file]
    arrays = {name: file[ON_DISK.get(name, name)] for name in (*ARRAYS, *optional)}
    return Trace(**arrays, provenance=json.loads(str(file["provenance"])))


def _optional_of(trace: Trace) -> list[str]:
    return [name for name in OPTIONAL if getattr(trace, name) is not None]


def check(trace: Trace, config: CycleConfig) -> None:
    """Raises UserError where the trace has another beam width or other levels than `config`."""
    levels, width = trace.log_prob.shape[1:3]
    if (levels, width) != (config.max_levels, config.beam_width):
        raise UserError(
            f"The trace has {levels} levels and beam width {width}, the cycle {config.max_levels} "
            f"and {config.beam_width}; record it again with this cycle's configuration."
        )


def accepted(trace: Trace, config: CycleConfig) -> np.ndarray:
    """Accepted tokens of every setting at every position: i8 [P, D, V].

    With rank_L(i) = nodes of the first L levels that beat the i-th node of the agreeing path
    (greater log_prob, or the same and a lower flat index), the best `size` nodes accept the largest
    d <= L with rank_L(i) < size for all i <= d.

    Raises:
      UserError: the trace has another beam width or other levels than `config`.
    """
    check(trace, config)
    path_PD = agreeing_path(trace)
    return by_chunks(partial(_accepted, config), CHUNK, trace.log_prob, path_PD)


def gains(
    trace: Trace, config: CycleConfig, levels: int, size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Committed tokens of each cycle of one setting, text by text, i64 [cycles].

    Before them the text's first position. Errors as of `accepted`.
    """
    accepted_P = accepted(trace, config)[:, levels - 1, config.sizes.index(size)]
    for start in trace.text_start:
        count, gained = int(trace.tokens_left[start]), list[int]()
        while (place := sum(gained)) < count:
            gained.append(min(int(accepted_P[start + place]) + 1, count - place))
        yield int(start), np.asarray(gained, np.int64)


def agreeing_path(trace: Trace) -> np.ndarray:
    """Each level's node that agrees with the text: slot * W + child, or NO_NODE; i32 [P, D]."""
    texts = (trace.log_prob, trace.token, trace.parent, trace.continuation)
    return by_chunks(_agreeing_path, CHUNK, *texts)


def expected(trace: Trace, config: CycleConfig) -> np.ndarray:
    """Mean committed tokens of every setting at every position: f32 [P, D, V].

    1 + the sum of `accept_prob` over the best `size` nodes of the first `levels` levels; sampled.py
    says why.

    Raises:
      UserError: the trace was recorded without `accept_prob`, or with another cycle's
        configuration.
    """
    check(trace, config)
    if trace.accept_prob is None:
        raise UserError(
            "The trace holds no acceptance probabilities; record it again with `accept_prob`, "
            "which training on expected tokens needs."
        )
    return by_chunks(partial(_expected, config), CHUNK, trace.log_prob, trace.accept_prob)


def by_chunks(function: Callable[..., Any], at_once: int, *arrays: Any) -> Any:
    """What a function of trees of arrays [P, ...] gives, for some positions at a time; numpy."""
    count, chunks = len(jax.tree.leaves(arrays)[0]), []
    for start in range(0, count, at_once):
        rows = np.minimum(np.arange(start, start + at_once), count - 1)  # one shape, one program
        chunks.append(jax.device_get(function(*jax.tree.map(itemgetter(rows), arrays))))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *chunks)


@partial(jax.jit, static_argnames="config")
@partial(jax.vmap, in_axes=(None, 0, 0))
def _accepted(config: CycleConfig, log_prob_DWW: jax.Array, path_D: jax.Array) -> jax.Array:
    rank_DD = jnp.cumsum(beaten_by(log_prob_DWW, path_D), axis=1)  # [path's node, levels drafted]
    level_D = jnp.arange(config.max_levels)
    drafted_DD = level_D[:, None] <= level_D[None]
    on_path_DD = (path_D != NO_NODE)[:, None] & drafted_DD
    sizes_11V = jnp.asarray(config.sizes)[None, None]
    chosen_DDV = on_path_DD[:, :, None] & (rank_DD[:, :, None] < sizes_11V)
    return jnp.cumprod(chosen_DDV, axis=0, dtype=jnp.int8).sum(0, dtype=jnp.int8)


def beaten_by(priority_DWW: jax.Array, path_D: jax.Array) -> jax.Array:
    """Nodes of each level (second axis) that come before the path's node of a level (first axis).

    Those of greater priority, by default log_prob, or of the same and a lower flat index; i32
    [D, D].
    """
    levels, nodes = priority_DWW.shape[0], priority_DWW[0].size
    priority_DN = priority_DWW.reshape(levels, nodes)
    index_DN = jnp.arange(levels * nodes).reshape(levels, nodes)
    level_D = jnp.arange(levels)
    path_priority_D11 = priority_DN[level_D, path_D][:, None, None]
    path_index_D11 = index_DN[level_D, path_D][:, None, None]
    beats_DDN = (priority_DN[None] > path_priority_D11) | (
        (priority_DN[None] == path_priority_D11) & (index_DN[None] < path_index_D11)
    )
    return beats_DDN.sum(-1)


@jax.jit
@jax.vmap
def _agreeing_path(
    log_prob_DWW: jax.Array, token_DWW: jax.Array, parent_DW: jax.Array, continuation_D: jax.Array
) -> jax.Array:
    """i32 [D]: the node (slot * W + child) of each level that agrees with the text, or NO_NODE."""

    def follow(node, level):
        log_prob_WW, token_WW, parent_W, next_token = level
        agrees_WW = (
            (parent_W[:, None] == node) & (token_WW == next_token) & (log_prob_WW > -jnp.inf)
        )
        node = jnp.where(agrees_WW.any(), jnp.argmax(agrees_WW), NO_NODE)
        return node, node

    parent_DW = parent_DW.at[0].set(0)  # level 1 holds the root's children only, whatever is stored
    _, path_D = jax.lax.scan(
        follow, jnp.int32(0), (log_prob_DWW, token_DWW, parent_DW, continuation_D)
    )
    return path_D


@partial(jax.jit, static_argnames="config")
@partial(jax.vmap, in_axes=(None, 0, 0))
def _expected(
    config: CycleConfig, log_prob_DWW: jax.Array, accept_prob_DWW: jax.Array
) -> jax.Array:
    level_N = jnp.repeat(jnp.arange(config.max_levels), config.beam_width**2)
    log_prob_N, accept_prob_N = log_prob_DWW.reshape(-1), accept_prob_DWW.reshape(-1)

    def by_size(levels: jax.Array) -> jax.Array:
        drafted_N = jnp.where(level_N < levels, log_prob_N, -jnp.inf)
        best_log_prob, best = jax.lax.top_k(drafted_N, config.sizes[-1])
        gain = jnp.where(best_log_prob > -jnp.inf, accept_prob_N[best], 0.0)
        sums = jnp.concatenate([jnp.zeros((1,)), jnp.cumsum(gain)])
        return 1 + sums[jnp.asarray(config.sizes)]

    return jax.vmap(by_size)(jnp.arange(1, config.max_levels + 1))


def concatenate(parts: Sequence[Trace]) -> Trace:
    """One trace of the parts of a recording; texts are numbered anew.

    Provenance that all parts share is kept, what differs is listed under "parts".
    """
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in (*ARRAYS, *_optional_of(parts[0]))
    }
    starts = np.concatenate([_is_start(part.text) for part in parts])
    joined["text"] = (np.cumsum(starts) - 1).astype(np.int32)
    records = [part.provenance for part in parts]
    shared = {
        key: value
        for key, value in records[0].items()
        if all(key in record and record[key] == value for record in records)
    }
    others = [
        {key: value for key, value in record.items() if key not in shared} for record in records
    ]
    provenance = shared | ({"parts": others} if any(others) else {})
    return Trace(**joined, provenance=provenance)


def require_recording(
    path: Path, trace: Trace, provenance: Mapping[str, Any], config: CycleConfig, *, remedy: str
) -> Trace:
    """The trace found in a file, if it is what would be recorded now, on whatever device.

    Prompts name their tasks by number; the trace returned has the names that their tasks have now,
    since a question file may have been renamed.

    Args:
      provenance: of the recording that would be made.
      remedy: what to do where it is another one; the sentence's end without a full stop.

    Raises:
      UserError: weights, levels, beam width, sampling, prompts, their length or dtype differ.
    """
    what, levels_and_width = f"{path} was recorded with", trace.log_prob.shape[1:3]
    there = _identity(trace.provenance, *levels_and_width)
    here = _identity(provenance, config.max_levels, config.beam_width)
    files.require_same(what, there, here, remedy=remedy)
    theirs, ours = _recorded(trace.provenance), _recorded(provenance)
    for name, value in ours.items():
        if theirs[name] != value:
            why = _asked_otherwise(trace.provenance, provenance) if name == "prompts" else ""
            raise UserError(f"{what} {name} {theirs[name]}, not {value}{why}; {remedy}.")
    return dataclasses.replace(trace, provenance=trace.provenance | {"tasks": provenance["tasks"]})


def _identity(provenance: Mapping[str, Any], levels: int, width: int) -> Identity:
    """The identity that decides the trees; a trace that does not name its sampling is greedy."""
    cycle = {"max_levels": levels, "beam_width": width}
    says = {name: provenance.get(name) for name in ("fingerprint", "sampling")}
    return files.identity_of({**says, "cycle": cycle})


def _recorded(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide the texts, beside the identity."""
    says = {name: provenance.get(name) for name in ("prompts", "new_tokens", "dtype")}
    return {**says, "seed": (provenance.get("sampling") or {}).get("seed")}


def _asked_otherwise(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs in the settings that two recordings' questions were chosen by, in brackets."""
    theirs, ours = there.get("asked"), here.get("asked")
    if theirs is None or ours is None:
        return ""
    differing = [name for name in ours if theirs.get(name) != ours[name]]
    other = [f"{name} {theirs.get(name)}, not {ours[name]}" for name in differing]
    return f" ({'; '.join(other) or 'the questions of the same settings have changed'})"


def load_part(
    path: Path, provenance: Mapping[str, Any], config: CycleConfig, *, with_hidden: bool
) -> Trace | None:
    """A part of an interrupted recording; None where there is none of this kind, or a damaged one.

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
    remedy = f"delete {path.parent} or give another folder"
    part = require_recording(path, part, provenance, config, remedy=remedy)
    return part if (part.hidden is not None) == with_hidden else None
