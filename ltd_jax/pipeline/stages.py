"""The stages that end in files: traces, latency table, policies.

A stage that is found done for the same pair and settings is read; one of another pair is refused.
"""

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ltd_jax import prompts, provenance
from ltd_jax.config import LearningConfig, PolicyConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.cycle.prefill import check_room
from ltd_jax.errors import UserError
from ltd_jax.learning import coadapt
from ltd_jax.policies import saved
from ltd_jax.replay import latency, measure, optimum, record
from ltd_jax.replay import trace as traces
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.trace import Trace

SPLITS = ("train", "validation", "test")


class Recording(Protocol):
    """What `trace_of` reads of a command's config."""

    @property
    def out(self) -> Path: ...
    @property
    def new_tokens(self) -> int: ...
    @property
    def prompts(self) -> int: ...


class Measuring(Protocol):
    """What `table_of` reads of a command's config."""

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


def embedded_prompts(pair: Pair, split: str, per_task: int, new_tokens: int) -> list[Prompt]:
    """The first `per_task` questions of every task of a split, as token ids of the pair.

    Raises:
      UserError: a prompt and `new_tokens` do not fit the context, or the tokenizer of the pair's
        folder knows tokens that the target does not.
    """
    tokenizer = prompts.load_tokenizer(pair.folder)
    found = [
        Prompt(prompts.encode_prompt(tokenizer, question, pair.config.cycle.context), index)
        for index, task in enumerate(prompts.TASKS)
        for question in prompts.load_task(split, task)[:per_task]
    ]
    for prompt in found:
        check_room(pair, len(prompt.token), new_tokens)
    largest, known = max(prompt.token.max() for prompt in found), pair.config.target.vocab_size
    if largest >= known:
        raise UserError(
            f"The tokenizer in {pair.folder} gives token {largest} but the target knows {known} "
            "tokens; put the tokenizer.json there that belongs to these weights."
        )
    return found


def digest(found: list[Prompt]) -> str:
    """12 hex digits that name a list of prompts."""
    return hashlib.sha256(b"".join(prompt.token.tobytes() for prompt in found)).hexdigest()[:12]


def trace_of(pair: Pair, split: str, settings: Recording, console: Console) -> Trace:
    """Records a split's prompts, or reads what was recorded before."""
    found = embedded_prompts(pair, split, settings.prompts, settings.new_tokens)
    path = settings.out / "traces" / f"{split}.npz"
    origin = provenance.environment(jnp.dtype(pair.dtype).name) | {
        "tasks": list(prompts.TASKS),
        "fingerprint": pair.fingerprint,
        "prompts": digest(found),
        "new_tokens": settings.new_tokens,
    }
    if path.exists():
        trace = traces.load(path)
        for name in ("fingerprint", "prompts", "new_tokens"):
            must_equal(path, name, trace.provenance.get(name), origin[name])
        return trace
    started = time.monotonic()
    with bar(console, f"record {split}") as advance:
        parts = path.parent / f"{split}-parts"
        report = lambda texts: advance(texts / len(found))
        trace = record.record(pair, found, settings.new_tokens, origin, parts, report)
    seconds = time.monotonic() - started
    trace = dataclasses.replace(trace, provenance=trace.provenance | {"seconds": seconds})
    traces.save(trace, path)
    return trace


def table_of(pair: Pair, settings: Measuring, console: Console) -> LatencyTable:
    """Measures this device, or reads what was measured before."""
    path = settings.out / "latency.json"
    if path.exists():
        table = latency.load(path)
        must_equal(path, "fingerprint", table.provenance.get("fingerprint"), pair.fingerprint)
        return table
    origin = provenance.environment(jnp.dtype(pair.dtype).name) | {"fingerprint": pair.fingerprint}
    with bar(console, "measure latencies") as advance:
        table = measure.measure(pair, settings.policy, settings.measure, origin, advance)
    latency.save(table, path)
    return table


def policies_of(
    pair: Pair,
    replays: coadapt.Replays,
    best: optimum.BestConstant,
    table: LatencyTable,
    settings: Settings,
    console: Console,
) -> coadapt.Learned:
    """Trains both policies (or goes on training them) and saves the actors."""
    learning = dataclasses.replace(settings.learning, depth_stage_size=best.size)
    origin = {
        "fingerprint": pair.fingerprint,
        "latency": latency.fingerprint(table),
        "device": table.provenance["device"],
    }
    with bar(console, "train policies") as advance:
        learned = coadapt.train(
            replays,
            pair.config.cycle,
            settings.policy,
            learning,
            folder=settings.out / "learning",
            provenance=origin,
            progress=lambda point, share: advance(share),
        )
    saved.save(
        settings.out / "policies", learned.params, pair.config.cycle, settings.policy, origin
    )
    return learned


def must_equal(path: Path, name: str, there: Any, here: Any) -> None:
    """Raises UserError unless a file found was made with the same value of a setting."""
    if there != here:
        raise UserError(
            f"{path} was made with {name} {there}, not {here}; give another --out or delete it."
        )
