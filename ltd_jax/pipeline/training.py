"""The first half of the way: traces, latency table, best constant, policies; or their folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from ltd_jax.cycle.pair import Pair
from ltd_jax.errors import UserError
from ltd_jax.learning.course import Learned, Replays
from ltd_jax.learning.stage import Point
from ltd_jax.pipeline import stages, tables
from ltd_jax.pipeline.stages import Settings
from ltd_jax.policies import saved
from ltd_jax.policies.saved import SavedPolicies
from ltd_jax.replay import cycles, latency, optimum
from ltd_jax.replay.cycles import Replay
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.optimum import BestConstant
from ltd_jax.replay.trace import Trace
from ltd_jax.sampling import described


class Trained(NamedTuple):
    """What a comparison needs."""

    table: LatencyTable
    best: BestConstant  # on the validation split
    policies: SavedPolicies
    learning: dict[str, Any]  # what the policies cost, as the report has it
    curves: Sequence[Point] = ()  # empty where it was read from a folder
    validation: Replay | None = None  # likewise


def train(
    pair: Pair, settings: Settings, console: Console, latencies: str | None = None
) -> Trained:
    """Trains policies for a pair and a device; whatever is found done in the folder is read.

    Args:
      latencies: a shipped table's name or a file; None = this device, measured.
    """
    cycle, folder = pair.config.cycle, settings.out / "policies"
    hidden = settings.policy.observation.hidden > 0
    traces = [
        stages.trace_of(pair, split, settings, console, with_hidden=hidden)
        for split in ("train", "validation")
    ]
    if latencies is None:
        table = tables.named_table(pair, settings, None, console)
    else:
        table = tables.kept_table(pair, settings, latencies, console)
    lessons = Replays(*[cycles.build(trace, table, cycle) for trace in traces])
    best = optimum.best_constant(lessons.validation, cycle)
    console.print(f"best constant on validation: levels {best.levels}, size {best.size}")
    origin = {
        "fingerprint": pair.fingerprint,
        "latency": latency.fingerprint(table),
        "device": table.provenance["device"],
        "dtype": table.provenance["dtype"],
        "sampling": described(pair.config.sampling),  # of the texts
    }
    learned = stages.learned_by(pair, lessons, origin, settings, console)
    learning = cost_of(learned, traces)
    found = {"best": best._asdict(), "learning": learning}
    saved.save(folder, learned.params, cycle, settings.policy, origin | found)
    return Trained(table, best, saved.load(folder), learning, learned.curves, lessons.validation)


def cost_of(learned: Learned, traces: Sequence[Trace]) -> dict[str, Any]:
    """What the policies cost."""
    last: dict[str, Point] = {point.stage: point for point in learned.curves}
    return {
        "decisions": sum(point.decisions for point in last.values()),
        "seconds": sum(point.seconds for point in last.values()),
        "positions_recorded": sum(len(trace.remaining) for trace in traces),
        "recording_seconds": sum(trace.provenance["seconds"] for trace in traces),
    }


def load(folder: Path) -> Trained:
    """The policies that `train` left, with the latency table beside their folder.

    Raises:
      UserError: something is missing or damaged, or policies and table are not of one training.
    """
    policies, path = saved.load(folder), folder.parent / "latency.json"
    table = latency.load(path)
    there, here = policies.provenance.get("latency"), latency.fingerprint(table)
    if there != here:
        raise UserError(
            f"{folder} was trained for latency table {there}, but {path} is {here}; train it again."
        )
    try:
        best = BestConstant(**policies.provenance["best"])
        return Trained(table, best, policies, policies.provenance["learning"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder} does not say its best constant ({error}); train it again."
        ) from error
