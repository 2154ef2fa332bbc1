"""The best constant levels and size: all by replay, the best few checked live.

    python -m experiments.studies.grid_search --out runs/embedded     about 3 minutes on 2 CPU cores

A grid by --levels and --nodes (the paper's: levels 4 to 12, nodes 40 to 240 of its cycle). Records
and measures what OUT lacks; writes OUT/results/grid_search.json. Expected: taking the replay's best
loses less than 2 % against the best that was decoded.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments import output
from ltd_jax import flags, workflow
from ltd_jax.cli import StageFlags
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.decoding import benchmark, runs
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Constant
from ltd_jax.presets import EMBEDDED_POLICY
from ltd_jax.replay import simulate
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.replay.simulate import Simulator
from ltd_jax.text import QuestionConfig, Split
from ltd_jax.workflow import Progress


@dataclasses.dataclass(frozen=True)
class Config(StageFlags):
    """Which settings, on which questions."""

    results: Path | None = None  # None = OUT/results
    levels: tuple[int, ...] = ()  # none = all
    nodes: tuple[int, ...] = ()  # of the cycle's sizes; none = all
    few: int = 5  # checked live
    split: Split = "validation"
    asked: tyro.conf.OmitArgPrefixes[QuestionConfig] = QuestionConfig(prompts=6)
    widths: PolicyConfig = EMBEDDED_POLICY  # of the policies whose decisions are timed
    profiling: ProfileConfig = ProfileConfig()


def grid_of(
    levels: Sequence[int], nodes: Sequence[int], config: CycleConfig
) -> list[tuple[int, int]]:
    """Levels and sizes of a grid of what a cycle has compiled; nothing given = all of it.

    Raises:
      UserError: a level or size is not there.
    """
    levels = levels or range(1, config.max_levels + 1)
    for level in levels:
        if not 1 <= level <= config.max_levels:
            raise UserError(f"`levels` {level} must lie in 1..{config.max_levels}.")
    for size in nodes:
        if size not in config.sizes:
            raise UserError(f"`nodes` {size} is not one of the compiled sizes {config.sizes}.")
    return [(level, size) for level in levels for size in nodes or config.sizes]


def rows_of(simulator: Simulator, grid: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Every setting of the grid, the fastest first: tokens per second by replay."""
    rate_DV = np.asarray(simulate.throughput(simulate.constants(simulator)))
    sizes = simulator.config.sizes
    rows = [
        {
            "levels": levels,
            "size": size,
            "predicted_tokens_per_second": float(rate_DV[levels - 1, sizes.index(size)]),
        }
        for levels, size in grid
    ]
    return sorted(rows, key=lambda row: -row["predicted_tokens_per_second"])


def check_live(
    pair: Pair, rows: Sequence[dict[str, Any]], config: Config, progress: Progress
) -> list[dict[str, Any]]:
    """The rows with what they give live, decoded in turns on the split's questions."""
    stages = grid_stages(config)
    by_name = {f"levels {row['levels']}, size {row['size']}": row for row in rows}
    done = runs.load_or_decode(
        pair,
        [Method(name, Constant(row["levels"], row["size"])) for name, row in by_name.items()],
        workflow.load_prompts(pair, stages, config.split).prompts,
        config.asked.new_tokens,
        stages.folder / "runs.jsonl",
        progress=lambda share: progress("check live", share),
    )
    live = {
        name: benchmark.tokens_per_second([run for run in done if run.method == name])
        for name in by_name
    }
    return [row | {"measured_tokens_per_second": live[name]} for name, row in by_name.items()]


def grid_stages(config: Config) -> workflow.StageConfig:
    """The stages with a folder for fewer questions than others record there."""
    return dataclasses.replace(config.stages, folder=config.out / "grid")


def agreement(checked: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How far replay and live are apart on what was checked.

    `lost`: what live decoding loses by taking the replay's best instead of the live best, a share;
    `worst`: the largest relative difference of a setting's tokens per second.
    """
    live = [row["measured_tokens_per_second"] for row in checked]
    predicted = [row["predicted_tokens_per_second"] for row in checked]
    differences = [abs(one / two - 1) for one, two in zip(predicted, live, strict=True)]
    return {"lost": 1 - live[0] / max(live), "worst": max(differences)}


def show(checked: Sequence[dict[str, Any]], count: int, apart: dict[str, float]) -> Table:
    """The rows that were checked, of `count` settings."""
    table = Table(
        title=f"the best {len(checked)} of {count} constant settings",
        caption=f"The replay's best loses {100 * apart['lost']:.1f} % against the live best; "
        f"tokens per second differ by at most {100 * apart['worst']:.1f} %.",
    )
    for heading in ("levels", "size", "tokens/s by replay", "tokens/s live"):
        table.add_column(heading, justify="right")
    for row in checked:
        rates = row["predicted_tokens_per_second"], row["measured_tokens_per_second"]
        table.add_row(str(row["levels"]), str(row["size"]), *(f"{rate:.1f}" for rate in rates))
    return table


def main() -> None:
    config = flags.parse(lambda preset: Config(widths=preset.policy))
    flags.at_least_one(config, "few")
    flags.writable(config.out)
    console = Console()
    grid = grid_of(config.levels, config.nodes, config.cycle)
    pair = flags.load_pair(config, config.cycle)
    with flags.progress_bars(console) as progress:
        table = workflow.load_or_profile(pair, config.stages, progress=progress)
        stages = grid_stages(config)
        trace = workflow.load_or_record(pair, stages, config.split, progress=progress)
        rows = rows_of(simulate.build(trace, table, config.cycle), grid)
        checked = check_live(pair, rows[: config.few], config, progress)
    apart = agreement(checked)
    console.print(show(checked, len(rows), apart))
    content = {"rows": rows, "checked": checked, "agreement": apart}
    output.write(config.results or config.out / "results", "grid_search", config, content)


if __name__ == "__main__":
    flags.run(main)
