"""The ground of all studies of learning: recorded texts under a latency table, and trainings.

One folder feeds all studies: traces and this device's table are recorded once, and every training
in the paper's order is kept under FOLDER/studies/TABLE/REWARD-SETTINGS/seed-N, so that a study
finds what another one trained. Settings and checkpoints are chosen on the validation texts, numbers
are of the test texts.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltd_jax import workflow
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import alternate
from ltd_jax.learning.loop import Splits, TrainResult
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Constant, eagle3_default
from ltd_jax.replay import latency as latencies
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.optimum import BestConstant
from ltd_jax.replay.simulate import Simulator
from ltd_jax.text import Split
from ltd_jax.workflow import Progress, StageConfig

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Ground:
    """Texts of all splits under one latency table."""

    train: Simulator
    validation: Simulator
    test: Simulator
    table: LatencyTable
    widths: PolicyConfig
    tasks: tuple[str, ...]
    best: BestConstant  # of the validation texts
    origin: dict[str, Any]  # fingerprints of pair and table, device, dtype

    @property
    def config(self) -> CycleConfig:
        """The cycle that was recorded."""
        return self.train.config

    @property
    def splits(self) -> Splits:
        """What is learned from."""
        return Splits(self.train, self.validation)

    @property
    def eagle3(self) -> Constant:
        """EAGLE-3's fixed levels and size, as near as the cycle has them."""
        return eagle3_default(self.config)


def ground(
    pair: Pair,
    stages: StageConfig,
    latency: str | None = None,
    *,
    progress: Progress = workflow.silent,
) -> Ground:
    """Records and measures, or reads what was recorded and measured before.

    Args:
      latency: a shipped table's name or a file; None = this device.
    """
    with_hidden = stages.widths.observation.hidden > 0
    traces = [
        workflow.load_or_record(pair, stages, split, with_hidden=with_hidden, progress=progress)
        for split in SPLITS
    ]
    if latency is None:
        table = workflow.load_or_profile(pair, stages, progress=progress)
    else:  # beside the folder's own
        table = LatencyTable.find(latency, pair.config.cycle)
    train, validation, test = (simulate.build(trace, table, pair.config.cycle) for trace in traces)
    return Ground(
        train=train,
        validation=validation,
        test=test,
        table=table,
        widths=stages.widths,
        tasks=tuple(traces[2].provenance["tasks"]),
        best=optimum.best_constant(validation),
        origin={"fingerprint": pair.fingerprint, "pair": list(pair.names), **_identity(table)},
    )


def with_latency(ground: Ground, table: LatencyTable) -> Ground:
    """The same texts under another table, which is fitted to their cycle."""
    table = latencies.fit(table, ground.config)
    validation = simulate.with_latency(ground.validation, table)
    return dataclasses.replace(
        ground,
        train=simulate.with_latency(ground.train, table),
        validation=validation,
        test=simulate.with_latency(ground.test, table),
        table=table,
        best=optimum.best_constant(validation),
        origin=ground.origin | _identity(table),
    )


def under_tables(ground: Ground, names: Sequence[str]) -> dict[str, Ground]:
    """The same texts under other tables, by their names: shipped ones or files, each once.

    The ground's own table is not among them.
    """
    by_table, known = {}, {ground.origin["latency"]}
    for name in names:
        under = with_latency(ground, LatencyTable.find(name))
        if under.origin["latency"] not in known:
            by_table[name] = under
            known.add(under.origin["latency"])
    return by_table


def _identity(table: LatencyTable) -> dict[str, Any]:
    device, dtype = table.provenance["device"], table.provenance["dtype"]
    return {"latency": latencies.fingerprint(table), "device": device, "dtype": dtype}


def learn(
    ground: Ground,
    settings: LearningConfig,
    folder: Path,
    *,
    last: str | None = None,
    progress: Progress = workflow.silent,
) -> TrainResult:
    """The paper's order of learning with one seed, or what is left to do of it.

    Args:
      folder: of all studies.
      last: phase to end with; None = all.
    """
    same = dataclasses.replace(settings, seed=0)
    subject = repr((same, ground.widths, ground.config))
    name = f"{settings.reward}-{hashlib.sha256(subject.encode()).hexdigest()[:8]}"
    kept = folder / "studies" / ground.origin["latency"] / name / f"seed-{settings.seed}"
    title = f"{settings.reward} reward, seed {settings.seed}"
    return alternate.train(
        ground.splits,
        ground.widths,
        settings,
        folder=kept,
        provenance=ground.origin,
        progress=lambda point, share: progress(title, share),
        last=last,
    )
