"""What the experiments on learning share: recorded texts under a table, and trainings.

One output folder feeds all experiments: traces and this device's table are recorded once, and every
training is kept under OUT/studies/TABLE/REWARD-SETTINGS/seed-N, so that an experiment finds what
another one trained. Settings and checkpoints are chosen on the validation texts, numbers are of the
test texts.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from ltd_jax import learning, presets, workflow
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig, Reward
from ltd_jax.learning import alternate
from ltd_jax.learning.loop import Splits, TrainResult
from ltd_jax.models.pair import Pair
from ltd_jax.replay import latency, optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.optimum import BestConstant
from ltd_jax.replay.simulate import Simulator
from ltd_jax.workflow import Settings, Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Ground(NamedTuple):
    """What a study stands on."""

    cycle: CycleConfig
    policy: PolicyConfig
    table: LatencyTable
    train: Simulator
    validation: Simulator
    test: Simulator
    tasks: tuple[str, ...]
    best: BestConstant  # of the validation texts
    eagle3: tuple[int, int]  # EAGLE-3's fixed levels and size, as near as the cycle has them
    origin: dict[str, Any]  # fingerprints of pair and table, device

    @property
    def lessons(self) -> Splits:
        """What is learned from."""
        return Splits(self.train, self.validation)


def ground(pair: Pair, settings: Settings, latencies: str | None, console: Console) -> Ground:
    """Records and measures, or reads what was recorded and measured before.

    Args:
      latencies: a shipped table's name or a file; None = this device.
    """
    hidden = settings.policy.observation.hidden > 0
    traces = [
        workflow.load_or_record(pair, split, settings, console, with_hidden=hidden)
        for split in SPLITS
    ]
    table = workflow.named_table(pair, settings, latencies, console)
    cycle = pair.config.cycle
    origin = {
        "fingerprint": pair.fingerprint,
        "pair": list(pair.names),
        "latency": latency.fingerprint(table),
        "device": table.provenance["device"],
        "dtype": table.provenance["dtype"],
    }
    replays = [simulate.build(trace, table, cycle) for trace in traces]
    return Ground(
        cycle=cycle,
        policy=settings.policy,
        table=table,
        train=replays[0],
        validation=replays[1],
        test=replays[2],
        tasks=tuple(traces[2].provenance["tasks"]),
        best=optimum.best_constant(replays[1], cycle),
        eagle3=nearest(cycle, *presets.of(pair.folder).eagle3),
        origin=origin,
    )


def learn(
    here: Ground,
    settings: Settings,
    seed: int,
    console: Console,
    *,
    reward: Reward | None = None,
    last: str | None = None,
) -> TrainResult:
    """The paper's schedule with one seed, or as much of it as was not done before.

    Args:
      reward: None = the settings' own.
      last: stage to end with; None = the whole schedule.
    """
    reward = reward or settings.learning.reward
    taught = dataclasses.replace(settings.learning, algorithm="alternate", reward=reward, seed=seed)
    with workflow.bar(console, f"{taught.reward} reward, seed {seed}") as advance:
        return alternate.train(
            here.lessons,
            here.cycle,
            here.policy,
            taught,
            folder=kept_at(here, settings, taught),
            provenance=here.origin,
            progress=lambda point, share: advance(share),
            last=last,
        )


def train(here: Ground, settings: Settings, seed: int, console: Console) -> TrainResult:
    """Policies with one seed, in the way that the settings name, or what is found of it."""
    taught = dataclasses.replace(settings.learning, seed=seed)
    with workflow.bar(console, f"{here.origin['device']}, seed {seed}"[:30]) as advance:
        return learning.train(
            here.lessons,
            here.cycle,
            here.policy,
            taught,
            folder=kept_at(here, settings, taught),
            provenance=here.origin,
            progress=lambda point, share: advance(share),
        )


def kept_at(here: Ground, settings: Settings, taught: LearningConfig, *also: str) -> Path:
    """Where a training under a ground's table is kept: one folder for all that it depends on.

    Args:
      also: whatever else it depends on.
    """
    same = dataclasses.replace(taught, seed=0)
    name = hashlib.sha256(repr((same, here.policy, here.cycle, also)).encode()).hexdigest()[:8]
    folder = settings.out / "studies" / here.origin["latency"] / f"{taught.reward}-{name}"
    return folder / f"seed-{taught.seed}"


def nearest(cycle: CycleConfig, levels: int, size: int) -> tuple[int, int]:
    """The nearest that a cycle has to some levels and size."""
    return min(levels, cycle.max_levels), min(cycle.sizes, key=lambda each: abs(each - size))
