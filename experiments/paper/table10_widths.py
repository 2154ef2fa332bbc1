"""Table 10: widths of the size policy's network; here also of the depth policy's and 0 layers.

    python -m experiments.paper.table10_widths --out runs/embedded           about 45 minutes on 2 cores

The paper's widths and a sixteenth of them; the widest networks take most of the time, and
`--widths 16 64 256` leaves them out. Where the table is this device's own, every row pays for
its policies what they are measured to take inside the compiled cycle; under a shipped table all
rows pay the same.
"""

import dataclasses
import functools
import time

from rich.console import Console

from experiments import command
from experiments.report import beside, paper
from experiments.studies import comparing, scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from experiments.studies.study import StudyFlags
from ltd_jax.config import LearningConfig
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.presets import COMPARED_LEARNING

LINEAR = "linear"
WIDTHS = (LINEAR, "16", "64", "64-16", "256", "1024", "1024-256", "1024-512-256")
NAME = "table10_widths"


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which widths."""

    widths: tuple[str, ...] = WIDTHS  # of the size policy; the depth policy has the first
    learning: LearningConfig = COMPARED_LEARNING
    time_policies: bool = True  # measure what the policies take, where the device is this one


def layers(name: str) -> tuple[int, ...]:
    """Hidden layers as the paper writes them; none for "linear".

    Raises:
      UserError: they are not written so.
    """
    try:
        widths = () if name == LINEAR else tuple(map(int, name.split("-")))
    except ValueError as error:
        raise UserError(f"Widths are written as 64, 1024-256 or {LINEAR}, not {name!r}.") from error
    return widths


def rows(here: Ground, config: Config, console: Console) -> list[Row]:
    """The baselines, then a row per width."""
    found, kept = scores.baselines(here), study.kept(config, NAME, here)
    timed = config.time_policies and config.latency is None
    pair = command.load_pair(config, config.cycle) if timed else None
    paying = "no time" if pair is None else f"time on {pair.device}"
    for name in config.widths:
        widths = layers(name)
        policy = dataclasses.replace(here.policy, size_actor=widths, depth_actor=widths[:1])
        console.print(name)
        under = here._replace(policy=policy)
        make = functools.partial(priced_row, under, name, pair, config, console)
        found.append(kept.value(f"{name}, {paying}", make))
    return found


def priced_row(
    under: Ground, name: str, pair: Pair | None, config: Config, console: Console
) -> Row:
    """One width's row; with a pair its policies' own time is measured first."""
    if pair is not None:
        under = comparing.with_policy_times(under, pair, config.measure)
    return study.learned_row(under, name, config, console)


def main() -> None:
    config, console, started = study.parse(Config), Console(), time.monotonic()
    here = study.stand(config, console)
    found = rows(here, config, console)
    console.print(beside.table("Widths of the size policy", found, []))
    theirs = ", ".join(f"{width.hidden} {width.mean:.2f}x" for width in paper.TABLE10)
    console.print(f"Table 10 of the paper, Llama-3.1-8B on an A100: {theirs}")
    papers = [width._asdict() for width in paper.TABLE10]
    study.write(config, NAME, here, found, papers, started)


if __name__ == "__main__":
    command.run(main)
