"""The stages that end in files: traces and policies; latency tables are in `tables`.

A stage that is found done for the same pair and settings is read; one of another pair is refused.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ltd_jax import learning
from ltd_jax.config import LearningConfig, PolicyConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.errors import UserError
from ltd_jax.learning.course import Learned, Replays
from ltd_jax.pipeline import questions
from ltd_jax.pipeline.questions import QuestionFlags, Split
from ltd_jax.replay import kept_parts, measure, reach, record
from ltd_jax.replay import trace as traces
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.trace import Trace
from ltd_jax.sampling import described


class Recording(Protocol):
    """What `trace_of` reads of a command's config."""

    @property
    def out(self) -> Path: ...
    @property
    def asked(self) -> QuestionFlags: ...


class Measuring(Protocol):
    """What `tables.table_of` reads of a command's config."""

    @property
    def out(self) -> Path: ...
    @property
    def policy(self) -> PolicyConfig: ...
    @property
    def measure(self) -> measure.MeasureConfig: ...


class Settings(Recording, Measuring, Protocol):
    """What all stages together read of a command's config."""

    @property
    def learning(self) -> LearningConfig: ...


@contextmanager
def bar(console: Console, title: str) -> Iterator[Any]:
    """A progress bar with the time left; yields a function that takes the share done."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda share: progress.update(task, completed=share)
        progress.update(task, completed=1.0)


def trace_path(settings: Recording, split: Split, with_hidden: bool = False) -> Path:
    """Where a split's trace lies; those with the draft's outputs are large and lie apart."""
    return settings.out / "traces" / (f"{split}-hidden.npz" if with_hidden else f"{split}.npz")


def trace_of(
    pair: Pair,
    split: Split,
    settings: Recording,
    console: Console,
    with_hidden: bool = False,
    with_reach: bool = False,
) -> Trace:
    """Records a split's prompts, or reads what was recorded before.

    Args:
      with_hidden: also the draft's outputs, which SpecDec++ learns from.
      with_reach: also with the probability that each node is accepted (replay/reach.py).
    """
    path, new_tokens = trace_path(settings, split, with_hidden), settings.asked.new_tokens
    asking = questions.ask(pair, settings.asked, split, path.parent)
    found = asking.prompts
    origin = pair.environment | {
        "tasks": list(asking.tasks),
        "fingerprint": pair.fingerprint,
        "prompts": questions.digest_of(found),
        "new_tokens": new_tokens,
        "sampling": described(pair.config.sampling, pair.seed),
    }
    if path.exists():
        trace = _recorded(path, pair, origin)
        return _reaching(pair, found, trace, path, console) if with_reach else trace
    started = time.monotonic()
    with bar(console, f"record {split}") as advance:
        parts = path.parent / f"{path.stem}-parts"
        report = lambda texts: advance(texts / len(found))
        trace = record.record(pair, found, new_tokens, origin, parts, report, with_hidden)
    seconds = time.monotonic() - started
    trace = dataclasses.replace(trace, provenance=trace.provenance | {"seconds": seconds})
    traces.save(trace, path)
    shutil.rmtree(parts, ignore_errors=True)  # the whole trace holds them
    return _reaching(pair, found, trace, path, console) if with_reach else trace


def _recorded(path: Path, pair: Pair, origin: dict[str, Any]) -> Trace:
    """A trace that is there; UserError where it is of another pair or other settings."""
    trace, cycle = traces.load(path), pair.config.cycle
    for name in kept_parts.SAME:
        must_equal(path, name, trace.provenance.get(name), origin[name])
    shape = (cycle.max_levels, cycle.beam_width)
    must_equal(path, "levels and beam width", trace.score.shape[1:3], shape)
    return kept_parts.renamed(trace, origin)


def _reaching(
    pair: Pair, found: Sequence[Prompt], trace: Trace, path: Path, console: Console
) -> Trace:
    """The same trace with acceptance probabilities, kept in the same file."""
    if trace.reach is not None:
        return trace
    with bar(console, "acceptance probabilities") as advance:
        trace = reach.add(pair, found, trace, lambda texts: advance(texts / len(found)))
    traces.save(trace, path)
    return trace


def learned_by(
    pair: Pair,
    replays: Replays,
    origin: dict[str, Any],
    settings: Settings,
    console: Console,
) -> Learned:
    """Trains both policies, or goes on training them."""
    with bar(console, "train policies") as advance:
        return learning.train(
            replays,
            pair.config.cycle,
            settings.policy,
            settings.learning,
            folder=settings.out / "learning",
            provenance=origin,
            progress=lambda point, share: advance(share),
        )


def as_json(value: Any) -> Any:
    """A value as it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def must_equal(path: Path, name: str, there: Any, here: Any) -> None:
    """Raises UserError unless a file found was made with the same value of a setting."""
    if there == here:
        return
    if name == "prompts":
        raise UserError(
            f"{path} was made with other prompts: what is asked, how many, or how they are put to "
            "the target has changed; give another --out or delete it."
        )
    raise UserError(
        f"{path} was made with {name} {there}, not {here}; give another --out or delete it."
    )
