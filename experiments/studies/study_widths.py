"""The beam width as a third choice per cycle, by replay: what it adds to the optimum and to LTD.

    python -m experiments.studies.study_widths --out runs/widths   about half an hour on 2 CPU cores

Records every width, measures all of them in turns, trains each one's policies (exact learning), and
learns which width to draft from the entropy of the target's last token; then the same under the
shipped latency tables of other devices. All numbers are on the test texts, over the best constant
of the first width: the paper's action space has one. Decoding has one width per program; nothing
here is measured live. Stopped, the same command goes on with the next table.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.studies import beam_widths, comparing, retargeting, study
from experiments.studies import ground as studies
from experiments.studies.ground import Ground
from experiments.studies.study import StudyFlags
from ltd_jax import presets, workflow
from ltd_jax.config import LearningConfig
from ltd_jax.files import UserError
from ltd_jax.presets import EMBEDDED_LEARNING
from ltd_jax.replay import latency

NAME = "study_widths"


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which widths; each is recorded in a folder of its own under --out."""

    out: Path = Path("runs/widths")
    widths: tuple[int, ...] = (4, 2, 8)
    tables: tuple[str, ...] = (
        latency.shipped_names()
    )  # shipped latency tables or files, beside --latency
    learning: LearningConfig = EMBEDDED_LEARNING


def grounds_of(config: Config, console: Console) -> list[Ground]:
    """What every width stands on."""
    settings = [
        dataclasses.replace(
            config,
            cycle=command.with_cycle(config.cycle, beam_width=width),
            out=config.out / f"width-{width}",
        )
        for width in config.widths
    ]
    pairs = [command.load_pair(here, here.cycle) for here in settings]
    if config.latency is None:
        workflow.load_or_profile_all(pairs, settings, console)
    grounds = []
    for width, pair, here in zip(config.widths, pairs, settings, strict=True):
        console.print(f"beam width {width}")
        grounds.append(studies.ground(pair, here, config.latency, console))
    return grounds


def under_tables(config: Config, grounds: list[Ground]) -> dict[str, list[Ground]]:
    """What every width stands on, by the name of the table, each once."""
    found = {config.latency or retargeting.HERE: grounds}
    known = {grounds[0].origin["latency"]}
    for name in config.tables:
        table = latency.find(name)
        fitted = [retargeting.under(here, latency.fit(table, here.cycle)) for here in grounds]
        if fitted[0].origin["latency"] not in known:
            found[name] = fitted
            known.add(fitted[0].origin["latency"])
    return found


def rows_under(
    config: Config, name: str, grounds: list[Ground], console: Console
) -> list[dict[str, Any]]:
    """Trains every width's policies under one table; its rows, with the table's name."""
    console.print(f"latency table {name}")
    params = [
        comparing.train(here, config.learning, config.seeds, console).params for here in grounds
    ]
    rows = beam_widths.rows_of(config.widths, grounds, params)
    return [{"latency": name, **row} for row in rows]


def shown(rows: list[dict[str, Any]]) -> Table:
    """The table for the terminal."""
    table = Table(
        title="Throughput over the best constant of the first width, test texts, by replay",
        caption="learned: mean over seeds with its 95 % interval",
    )
    for heading in ("latency", "widths", "best constant", "optimum", "learned", "chosen"):
        justify = "left" if heading in ("latency", "widths") else "right"
        table.add_column(heading, justify=justify)
    for row in rows:
        low, high = row["learned_low"], row["learned_high"]
        table.add_row(
            row["latency"],
            ", ".join(map(str, row["widths"])),
            f"{row['best_constant']:.3f}",
            f"{row['optimum']:.3f}",
            f"{row['learned']:.3f} ({low:.3f} to {high:.3f})",
            " ".join(f"{100 * share:.0f}%" for share in row["chosen"]),
        )
    return table


def main() -> None:
    config, console, started = study.parse(Config), Console(), time.monotonic()
    distinct = len(set(config.widths)) == len(config.widths)
    if not config.widths or not distinct or min(config.widths) < 1:
        given = " ".join(map(str, config.widths))
        raise UserError(f"--widths {given} must be one or more distinct widths of at least 1.")
    if config.cycle.beam_width != presets.of(config.target).cycle.beam_width:
        command.say("--cycle.beam-width changes nothing here: --widths names the widths.")
    grounds = beam_widths.same_speed(grounds_of(config, console))
    beam_widths.must_be_comparable(grounds)
    kept, rows = study.kept(config, NAME, grounds[0]), []
    for name, under in under_tables(config, grounds).items():
        tables_of_widths = [here.origin["latency"] for here in under]
        make = functools.partial(rows_under, config, name, under, console)
        rows += kept.value(f"{name} {config.widths} {tables_of_widths}", make)
    console.print(shown(rows))
    study.write(config, NAME, grounds[0], rows, [], started)


if __name__ == "__main__":
    command.run(main)
