"""Figure 5: committed tokens per cycle by levels and size, of every constant setting, exactly.

    python -m experiments.paper.figure5_acceptance --out runs/embedded     about 1 minute on 2 CPU cores

Replays the split's trace, recorded where OUT/traces lacks it. Writes figure5_acceptance.json and
.png to OUT/results. The paper's finding: more levels and nodes accept more, with falling gains, and
how much differs from one place to the next; the quartiles over places are in the JSON.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments import command, output
from experiments.command import PairFlags
from experiments.report import curves
from ltd_jax import workflow
from ltd_jax.config import CycleConfig
from ltd_jax.presets import EMBEDDED_CYCLE
from ltd_jax.replay import trace as traces
from ltd_jax.workflow import QuestionFlags, Split


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to record."""

    out: Path = Path("runs/embedded")
    results: Path | None = None  # None = OUT/results
    split: Split = "test"
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    cycle: CycleConfig = EMBEDDED_CYCLE


def rows_of(committed: np.ndarray, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Mean and quartiles over all positions of what a cycle there commits, f64 [P, D, V]."""
    quartiles = np.quantile(committed, (0.25, 0.75), axis=0)
    return [
        {
            "levels": level + 1,
            "size": size,
            "committed": float(committed[:, level, place].mean()),
            "quartiles": [float(value) for value in quartiles[:, level, place]],
        }
        for level in range(committed.shape[1])
        for place, size in enumerate(sizes)
    ]


def main() -> None:
    config = command.parse(lambda preset: Config(cycle=preset.cycle))
    command.writable(config.out)
    console = Console()
    pair = command.load_pair(config, config.cycle)
    trace = workflow.load_or_record(pair, config.split, config, console)
    accepted_PDV = traces.accepted(trace, config.cycle)
    committed_PDV = np.minimum(accepted_PDV + 1.0, trace.remaining[:, None, None])
    committed_DV = committed_PDV.mean(axis=0)
    shown = Table(title="committed tokens per cycle, mean over all positions")
    shown.add_column("levels", justify="right")
    for size in config.cycle.sizes:
        shown.add_column(f"size {size}", justify="right")
    for level, row in enumerate(committed_DV, 1):
        shown.add_row(str(level), *(f"{value:.2f}" for value in row))
    console.print(shown)
    content = {"rows": rows_of(committed_PDV, config.cycle.sizes), "trace": trace.provenance}
    png = curves.acceptance(committed_DV, config.cycle.sizes)
    folder = config.results or config.out / "results"
    output.write(folder, "figure5_acceptance", config, content, png)


if __name__ == "__main__":
    command.run(main)
