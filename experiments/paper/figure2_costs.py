"""Figure 2 (left): milliseconds of drafting by levels and of verifying by size, beside the paper's.

    python -m experiments.paper.figure2_costs --out runs/embedded          seconds, once measured

Measures this device where OUT/latency.json is missing (2 minutes). Writes OUT/results/figure2_costs
.json and .png. The paper's (Vicuna-13B, A100): a draft pass 1.6 ms, verifying 33 to 53 ms in steps.
"""

import dataclasses
from typing import Any

from rich.console import Console

from experiments import output
from experiments.output import ResultFlags
from experiments.report import plots
from experiments.report.paper import FIGURE2, PartTimes
from ltd_jax import flags, workflow
from ltd_jax.config import PolicyConfig
from ltd_jax.presets import EMBEDDED_POLICY
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.profile import ProfileConfig


@dataclasses.dataclass(frozen=True)
class Config(ResultFlags):
    """Settings of the measurement."""

    widths: PolicyConfig = EMBEDDED_POLICY  # of the policies whose decisions are timed
    profiling: ProfileConfig = ProfileConfig()


def rows_of(times: PartTimes) -> list[dict[str, Any]]:
    """One row per number of levels, then one per size."""
    places = [("draft", at) for at in range(1, len(times.draft) + 1)]
    places += [("verify", at) for at in times.sizes]
    return [
        {"part": part, "at": at, "milliseconds": milliseconds}
        for (part, at), milliseconds in zip(places, times.draft + times.verify, strict=True)
    ]


def times_of(table: LatencyTable) -> PartTimes:
    """This device's, means over contexts."""
    draft, verify = (
        tuple((1e3 * seconds.mean(axis=0)).tolist())
        for seconds in (table.draft_seconds, table.verify_seconds)
    )
    return PartTimes("here", draft, table.sizes, verify)


def main() -> None:
    config = flags.parse(lambda preset: Config(widths=preset.policy))
    flags.writable(config.out)
    console = Console()
    pair = flags.load_pair(config, config.cycle)
    with flags.progress_bars(console) as progress:
        table = workflow.load_or_profile(pair, config.stages, progress=progress)
    rows, papers = rows_of(times_of(table)), rows_of(FIGURE2)
    headings = ("", "part", "levels or size", "milliseconds")
    lines = [
        (name, row["part"], str(row["at"]), f"{row['milliseconds']:.2f}")
        for name, part_rows in (("here", rows), (f"paper, {FIGURE2.model}", papers))
        for row in part_rows
    ]
    console.print(output.table("milliseconds of the parts of a cycle", headings, lines))
    content = {"rows": rows, "paper": papers, "table": table.provenance}
    png = plots.encode(plots.part_costs(rows, papers, FIGURE2.model))
    output.write(config.folder, "figure2_costs", config, content, png)


if __name__ == "__main__":
    flags.run(main)
