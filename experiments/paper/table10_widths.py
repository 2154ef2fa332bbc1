"""Table 10: layers of the size policy's network; here also of the depth policy's, and none.

    python -m experiments.paper.table10_widths --out runs/embedded       about 45 minutes on 2 cores

The paper's layers and a sixteenth of them; the widest networks take most of the time, and
`--layers 16 64 256` leaves them out. Where the table is this device's own, every row pays for
its policies what they are measured to take inside the compiled cycle; under a shipped table all
rows pay the same.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
from rich.console import Group

from experiments.report import paper, tables
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.config import LearningConfig
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks
from ltd_jax.presets import QUICK_LEARNING
from ltd_jax.replay import profile
from ltd_jax.replay.profile import CycleTimer, ProfileConfig

LINEAR = "linear"
LAYERS = (LINEAR, "16", "64", "64-16", "256", "1024", "1024-256", "1024-512-256")
NAME = "table10_widths"


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which networks."""

    layers: tuple[str, ...] = LAYERS  # of the size policy; the depth policy has the first
    learning: LearningConfig = QUICK_LEARNING
    time_policies: bool = True  # measure what the policies take, where the device is this one


def parse_layers(name: str) -> tuple[int, ...]:
    """Hidden layers as the paper writes them; none for "linear".

    Raises:
      UserError: they are not written so.
    """
    try:
        return () if name == LINEAR else tuple(map(int, name.split("-")))
    except ValueError as error:
        raise UserError(f"Layers are written as 64, 1024-256 or {LINEAR}, not {name!r}.") from error


def rows(study: Study[Config]) -> list[Row]:
    """The baselines, then a row per network."""
    config, ground = study.config, study.ground
    table, store = scores.baselines(ground), study.open_store(NAME)
    is_timed = config.time_policies and config.latency is None
    pair = flags.load_pair(config, config.cycle) if is_timed else None
    paying = "no time" if pair is None else f"time on {pair.device}"
    for name in config.layers:
        layers = parse_layers(name)
        widths = dataclasses.replace(ground.widths, size_actor=layers, depth_actor=layers[:1])
        under = dataclasses.replace(ground, widths=widths)
        make = partial(row, study, name, under, pair)
        table.append(store.value(f"{name}, {paying}", make))
        study.progress("networks", (len(table) - 3) / len(config.layers))
    return table


def row(study: Study[Config], name: str, ground: Ground, pair: Pair | None) -> Row:
    """One network's row; with a pair its policies' own time is measured first."""
    if pair is not None:
        ground = with_decision_times(ground, pair, study.config.profiling)
    return study.learned_row(name, ground)


def with_decision_times(ground: Ground, pair: Pair, config: ProfileConfig) -> Ground:
    """The same ground, where decisions take what the ground's own policies take on this device."""
    timer = CycleTimer(pair, config.contexts[0], config.cycles)
    policy = networks.init(jax.random.key(config.seed), pair.config.cycle, ground.widths)
    overhead = profile.time_decisions(timer, policy, config.policy_visits)
    return dataclasses.replace(
        ground,
        train=profile.with_overhead(ground.train, overhead),
        validation=profile.with_overhead(ground.validation, overhead),
        test=profile.with_overhead(ground.test, overhead),
    )


def show(rows: Sequence[Row]) -> Group:
    """Our networks, then the paper's in a line."""
    theirs = ", ".join(f"{width['hidden']} {width['mean']:.2f}x" for width in paper.TABLE10)
    line = f"Table 10 of the paper, Llama-3.1-8B on an A100: {theirs}"
    return Group(tables.study("Layers of the size policy", rows, []), line)


def main() -> None:
    study.run(NAME, study.parse(Config), rows, show, papers=paper.TABLE10)


if __name__ == "__main__":
    flags.run(main)
