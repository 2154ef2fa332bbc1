"""The ground of all studies of learning: recorded texts under a latency table.

One folder feeds all studies: traces and this device's table are recorded once. Settings and
checkpoints are chosen on the validation texts, numbers are of the test texts.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from ltd_jax import workflow
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.learning.loop import Splits
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Constant, eagle3_default
from ltd_jax.questions import Split
from ltd_jax.replay import latency as latencies
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.optimum import BestConstant
from ltd_jax.replay.simulate import Simulator
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
    pair: dict[str, Any]  # its fingerprint and names

    @property
    def config(self) -> CycleConfig:
        """The cycle that was recorded."""
        return self.train.config

    @functools.cached_property
    def best(self) -> BestConstant:
        """Of the validation texts."""
        return optimum.best_constant(self.validation)

    @property
    def origin(self) -> dict[str, Any]:
        """Fingerprints of pair and table, names, device and dtype."""
        device, dtype = self.table.provenance["device"], self.table.provenance["dtype"]
        table = {"latency": latencies.fingerprint(self.table), "device": device, "dtype": dtype}
        return self.pair | table

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
    latency: str | None,
    progress: Progress,
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
        pair={"fingerprint": pair.fingerprint, "pair": list(pair.names)},
    )


def with_latency(ground: Ground, table: LatencyTable) -> Ground:
    """The same texts under another table, which is fitted to their cycle."""
    table = latencies.fit(table, ground.config)
    return dataclasses.replace(
        ground,
        train=simulate.with_latency(ground.train, table),
        validation=simulate.with_latency(ground.validation, table),
        test=simulate.with_latency(ground.test, table),
        table=table,
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
