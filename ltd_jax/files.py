"""Files and where they come from: atomic writes, resumable stores, the identity of what is in them.

Everything that is written says its device, dtype, versions, date and command (`environment`). What
is only right for one pair, cycle or device carries that as an `Identity`, and one function,
`require_same`, says whether two of them may be used together.
"""

import codecs
import contextlib
import dataclasses
import datetime
import functools
import json
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError

from ltd_jax import finite

VERSION = "0.1.0"
ASSETS = Path(__file__).parent / "assets"
OTHER_FOLDER = "give another `out` or delete it"  # what to do about a file of another run


class UserError(ValueError):
    """One sentence for the person at the keyboard; commands print it and exit with code 2."""


def user_cache() -> Path:
    """The folder for what can be made again, in the user's own cache; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltd_jax"


@contextlib.contextmanager
def user_errors(what: object, *, name_all: bool = False) -> Iterator[None]:
    """Raises a ValueError of the block as a UserError that says first what it is about.

    Args:
      name_all: also a UserError, whose sentence does not say it yet.
    """
    try:
        yield
    except ValueError as error:
        if isinstance(error, UserError) and not name_all:
            raise
        raise UserError(f"{what}: {error}") from error


def require_finite(what: str, tree: Any, *, remedy: str) -> None:
    """Checks that all that is written or used further is finite (finite.py).

    Args:
      what: the sentence's beginning, the stage and what is wrong with it, e.g. "Cannot write FILE".
      tree: of arrays or numbers of Python.
      remedy: what to do, the sentence's end without a full stop.

    Raises:
      UserError: a number is NaN or infinite.
    """
    fault = finite.first_fault(tree)
    if fault is not None:
        raise UserError(f"{what}: {fault}, no finite number; {remedy}.")


def processor_name() -> str:
    """Kind, vector instructions and usable cores, as in "AMD EPYC (AVX2), 2 cores"."""
    kind = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    vectors = f" ({vector_instructions()})" if vector_instructions() else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{kind}{vectors}, {cores or 1} cores"


def vector_instructions() -> str:
    """Either "AVX-512" or "AVX2"; empty where neither is known of."""
    flags = _cpuinfo().get("flags", "").split()
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            first = file.read().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = [line.split(":", 1) for line in first.splitlines() if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}


OVER_DEVICES = ", split over "  # in a device's name, before the number of devices


def environment(dtype: str, devices: int = 1) -> dict[str, Any]:
    """Device, dtype, versions, date (UTC) and command of this process, as JSON values.

    Args:
      devices: that a pair is split over.
    """
    return {
        "device": device_name(devices),
        "device_count": jax.device_count(),
        "dtype": dtype,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "ltd_jax": VERSION,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": " ".join([program_name(), *sys.argv[1:]]),  # without the machine's paths
    }


def program_name() -> str:
    """How this process was called: a script's name, or python -m and the module's."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    module = "" if spec is None else spec.name.removesuffix(".__main__")
    return f"python -m {module}" if module else sys.argv[0].rsplit("/", 1)[-1]


def device_name(devices: int = 1) -> str:
    """The kind of the first device; of a processor also its vectors and usable cores.

    Args:
      devices: that a pair is split over; more than one are another device in all that is compared.
    """
    device = jax.devices()[0]
    name = processor_name() if device.platform == "cpu" else device.device_kind
    return name if devices == 1 else f"{name}{OVER_DEVICES}{devices}"


def device_bytes() -> int | None:
    """Memory of the first device; of a CPU the machine's; None = not known."""
    device = jax.devices()[0]
    if device.platform == "cpu" and not hasattr(os, "sysconf"):  # Windows
        return None
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a pair, a trace, a latency table and policies must share; None = not said."""

    pair: str | None = None  # fingerprint of the weights
    cycle: tuple[tuple[str, Any], ...] | None = None  # fields of a CycleConfig, by name
    sampling: str | None = None  # "greedy decoding", or the settings as JSON
    device: str | None = None
    dtype: str | None = None  # of the weights
    latency: str | None = None  # fingerprint of the latency table


def identity_of(provenance: Mapping[str, Any]) -> Identity:
    """The identity that a provenance (JSON) tells."""
    cycle = provenance.get("cycle")
    return Identity(
        pair=provenance.get("fingerprint"),
        cycle=None if cycle is None else hashable_fields(cycle),
        sampling=_sampling_words(provenance["sampling"]) if "sampling" in provenance else None,
        device=provenance.get("device"),
        dtype=provenance.get("dtype"),
        latency=provenance.get("latency"),
    )


def hashable_fields(fields: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A config's fields as a value that can be compared and hashed; lists become tuples."""
    hashable = lambda value: tuple(value) if isinstance(value, list) else value
    return tuple(sorted((name, hashable(value)) for name, value in fields.items()))


def _sampling_words(sampling: Mapping[str, Any] | None) -> str:
    """The settings that decide how long a cycle takes and which texts come; not the seed."""
    if sampling is None:
        return "greedy decoding"
    return json.dumps({name: sampling[name] for name in sorted(sampling) if name != "seed"})


def require_same(
    what: str, there: Identity, here: Identity, *, remedy: str, other_hardware: bool = False
) -> None:
    """Checks that two things may be used together; what either does not say is not compared.

    Args:
      what: the sentence's beginning, e.g. "The policies in FILE were trained for".
      there: of the thing that `what` names.
      here: of what it is used with.
      remedy: what to do, the sentence's end without a full stop.
      other_hardware: only warn where device or dtype differ.

    Raises:
      UserError: they differ.
    """
    their_cycle, our_cycle = dict(there.cycle or ()), dict(here.cycle or ())
    for word, theirs, ours in (
        ("pair", there.pair, here.pair),
        *((name, their_cycle[name], our_cycle.get(name)) for name in their_cycle),
        ("sampling", there.sampling, here.sampling),
        ("latency table", there.latency, here.latency),
    ):
        if None not in (theirs, ours) and theirs != ours:
            raise UserError(f"{what} {word} {theirs}, not {ours}; {remedy}.")
    _require_hardware(what, there, here, remedy, other_hardware)


def _require_hardware(
    what: str, there: Identity, here: Identity, remedy: str, other_hardware: bool
) -> None:
    theirs, ours = there.device, here.device
    if theirs is None or ours is None:
        return
    if theirs == ours:
        if None in (there.dtype, here.dtype) or there.dtype == here.dtype:
            return
        theirs, ours = f"{theirs} in {there.dtype}", f"{ours} in {here.dtype}"
    else:
        kind, _, count = theirs.partition(OVER_DEVICES)
        if kind == ours.partition(OVER_DEVICES)[0]:
            remedy = f"give `devices` {count or 1}, or {remedy}"
    sentence = f"{what} {theirs}, not {ours}"
    if not other_hardware:
        raise UserError(
            f"{sentence}; {remedy}, or give `allow_other_hardware` to decode with choices that may "
            "be slow."
        )
    warnings.warn(f"{sentence}; its choices may be slow here.", stacklevel=4)


class ResumableStore:
    """Entries by name in a JSON file, written as they are made: a killed run goes on where it was.

    What was made with other settings is left aside with a warning, as is a damaged file.

    Args:
      path: of the JSON file; None = keep nothing.
      settings: JSON; entries measured with others are not used.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self.entries = {} if path is None or not path.exists() else self._found(path)

    def entry(self, name: str, measure: Callable[[], Any]) -> np.ndarray:
        """The entry of a name, f64; measured and written where it is not there yet."""
        found = self.value(name, lambda: np.asarray(measure(), np.float64).tolist())
        return np.asarray(found, np.float64)

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value of a name; made and written where it is not there yet."""
        if name not in self.entries:
            self.entries[name] = json.loads(to_json(make(), f"{name} cannot be kept"))
            if self.path is not None:
                with replacing(self.path) as temporary:
                    record = {"settings": self.settings, "entries": self.entries}
                    temporary.write_text(json.dumps(record))
        return self.entries[name]

    def forget(self) -> None:
        """Drops all entries, of the file, too: they are of no use."""
        self.entries = {}
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _found(self, path: Path) -> dict[str, Any]:
        try:
            record = from_json(path.read_text(encoding="utf-8-sig"))
            settings, entries = record["settings"], dict(record["entries"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            wrong = f"is damaged ({error})"
        else:
            if settings == self.settings:
                return entries
            wrong = "is of another pair, device or setting"
        warnings.warn(f"{path} {wrong}; it is measured from the beginning.", stacklevel=3)
        return {}


def write_json(path: Path, record: Any) -> None:
    """Writes JSON for people to read; a killed process leaves the old file or the new one.

    Raises:
      UserError: the file cannot be written, or a number is not finite.
    """
    text = to_json(record, f"Cannot write {path}", indent=1)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")


def to_json(record: Any, what: str, indent: int | None = None) -> str:
    """The text of JSON values; Python's own writer would put NaN there, which no JSON is.

    Args:
      what: as of `require_finite`.

    Raises:
      UserError: a number is not finite.
    """
    try:
        return json.dumps(record, indent=indent, allow_nan=False)
    except ValueError:  # much sooner found than by looking at every number
        require_finite(what, record, remedy="look at what it was computed from")
        raise


def from_json(text: str) -> Any:
    """The values of a JSON text; ValueError where it is none, or a number is not finite."""
    record = json.loads(text)  # reads NaN, and 1e999 as infinity
    fault = finite.first_fault(record)
    if fault is not None:
        raise ValueError(f"{fault}, no finite number")
    return record


@contextlib.contextmanager
def reading_json(path: Path, kind: str, schema: int, remedy: str) -> Iterator[dict[str, Any]]:
    """The JSON object of a file; what the block reads of it may be missing or wrong.

    Args:
      kind: of file, e.g. "latency table".
      remedy: what to do, the sentence's end without a full stop.

    Raises:
      UserError: the file is missing, truncated, of another schema, or damaged.
    """
    try:
        record = from_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"Cannot read the {kind} {path}: {error.strerror}.") from error
    except ValueError as error:
        refuse_pointer(path)
        if "no finite number" in str(error):
            raise UserError(f"The {kind} {path} is damaged ({error}); {remedy}.") from error
        raise UserError(f"{path} is no {kind} or is truncated; {remedy}.") from error
    found = record.get("schema") if isinstance(record, dict) else None
    if found != schema:
        raise UserError(f"{path} has schema {found}, this version reads {schema}; {remedy}.")
    try:
        yield record
    except KeyError as error:
        raise UserError(f"The {kind} {path} lacks {error}; {remedy}.") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"The {kind} {path} is damaged ({error}); {remedy}.") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Raises:
      UserError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises UserError where the block cannot write a file or folder, as on a full disk."""
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error
    except SafetensorError as error:
        found = re.search(r"I/O error: (.*) \(os error", str(error))
        raise UserError(f"Cannot write {path}: {found[1] if found else error}.") from error


BYTE_ORDER_MARK = "\ufeff"  # with which Windows programs begin UTF-8 files


def read_text(path: Path) -> str:
    """The text of a UTF-8 file without a byte order mark; every line ends with "\\n" alone.

    Raises:
      UserError: there is no such file, it cannot be read, or it is no UTF-8 text.
    """
    refuse_pointer(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        if path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise UserError(f"{path} is UTF-16 text; save it as UTF-8.") from error
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}).") from error


POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Raises UserError where git left its pointer to a large file in the file's place."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(POINTER))
    except OSError:
        return  # which is said where it is read
    if start == POINTER:
        raise UserError(
            f"{path} is a git-lfs pointer, not the file that it stands for; run `git lfs pull` in "
            "its folder, or download the file."
        )
