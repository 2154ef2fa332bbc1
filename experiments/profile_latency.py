"""Measure this device: seconds of a cycle for every (levels, size), of its parts, of a plain step.

    python -m experiments.profile_latency --out runs/embedded

Writes OUT/latency.json with its provenance and prints it. A table that is there already is only
printed; `--json` prints the file. Stopped, the same command goes on from OUT/latency-partial.json.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.command import PairFlags
from ltd_jax import workflow
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_POLICY, Preset
from ltd_jax.replay import latency
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.profile import ProfileConfig


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to measure."""

    out: Path = Path("runs/embedded")
    cycle: CycleConfig = EMBEDDED_CYCLE
    policy: PolicyConfig = EMBEDDED_POLICY
    measure: ProfileConfig = ProfileConfig()
    json: bool = False


def terminal_table(table: LatencyTable) -> Table:
    """Milliseconds of whole cycles, mean over contexts: a row per levels, a column per size."""
    shown = Table(title="milliseconds per cycle", caption=caption(table))
    shown.add_column("levels", justify="right")
    for size in table.sizes:
        shown.add_column(f"size {size}", justify="right")
    for level, row in enumerate(1e3 * table.cycle_seconds.mean(axis=0), 1):
        shown.add_row(str(level), *(f"{value:.2f}" for value in row))
    return shown


def caption(table: LatencyTable) -> str:
    """What else the table holds, in one line."""
    plain = 1e3 * float(np.mean(table.plain_seconds))
    depth, size = 1e6 * table.depth_seconds, 1e6 * table.size_seconds
    return (
        f"plain step {plain:.2f} ms; one depth decision {depth:.0f} us, one size decision "
        f"{size:.0f} us; {table.provenance['device']}, {table.provenance['dtype']}"
    )


def start(preset: Preset) -> Config:
    """The settings for a preset."""
    found = command.stage_settings(preset)
    return Config(**{name: found[name] for name in ("cycle", "policy", "measure")})


def main() -> None:
    config = command.parse(start)
    command.writable(config.out)
    console = Console(stderr=config.json)
    table = workflow.named_table(command.load_pair(config, config.cycle), config, None, console)
    if config.json:
        print(json.dumps(latency.to_json(table)))
    else:
        console.print(terminal_table(table))


if __name__ == "__main__":
    command.run(main)
