"""Figure 2 (left): milliseconds of drafting by levels and of verifying by size, beside the paper's.

    python -m experiments.paper.figure2_costs --out runs/embedded          seconds, once measured

Measures this device where OUT/latency.json is missing (2 minutes). Writes OUT/results/figure2_costs
.json and .png. The paper's (Vicuna-13B, A100): a draft pass 1.6 ms, verifying 33 to 53 ms in steps.
"""

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import command, output
from experiments.command import PairFlags
from experiments.report import curves
from experiments.report.paper import FIGURE2
from ltd_jax import workflow
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_POLICY, Preset
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.profile import ProfileConfig


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to measure."""

    out: Path = Path("runs/embedded")
    results: Path | None = None  # None = OUT/results
    cycle: CycleConfig = EMBEDDED_CYCLE
    policy: PolicyConfig = EMBEDDED_POLICY
    measure: ProfileConfig = ProfileConfig()


def part_rows(part: str, places: Any, milliseconds: Any) -> list[dict[str, Any]]:
    """One row per number of levels or per size."""
    return [
        {"part": part, "at": int(at), "milliseconds": float(value)}
        for at, value in zip(places, milliseconds, strict=True)
    ]


def rows_of(table: LatencyTable) -> list[dict[str, Any]]:
    """This device's, means over contexts."""
    levels = range(1, table.max_levels + 1)
    draft, verify = table.draft_seconds.mean(axis=0), table.verify_seconds.mean(axis=0)
    return part_rows("draft", levels, 1e3 * draft) + part_rows("verify", table.sizes, 1e3 * verify)


def start(preset: Preset) -> Config:
    """The settings for a pair where no flag changes them."""
    return Config(cycle=preset.cycle, policy=preset.policy)


def main() -> None:
    config = command.parse(start)
    command.writable(config.out)
    console = Console()
    table = workflow.load_or_profile(command.load_pair(config, config.cycle), config, console)
    rows = rows_of(table)
    paper = part_rows("draft", range(1, len(FIGURE2.draft) + 1), FIGURE2.draft)
    paper += part_rows("verify", FIGURE2.sizes, FIGURE2.verify)
    shown = Table(title="milliseconds of the parts of a cycle")
    for heading in ("", "part", "levels or size", "milliseconds"):
        shown.add_column(heading, justify="right")
    for name, lists in (("here", rows), (f"paper, {FIGURE2.model}", paper)):
        for row in lists:
            shown.add_row(name, row["part"], str(row["at"]), f"{row['milliseconds']:.2f}")
    console.print(shown)
    content = {"rows": rows, "paper": paper, "table": table.provenance}
    png = curves.part_costs(rows, paper, FIGURE2.model)
    output.write(config.results or config.out / "results", "figure2_costs", config, content, png)


if __name__ == "__main__":
    command.run(main)
