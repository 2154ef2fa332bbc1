"""The best constant levels and size: all by replay, the best few checked live.

    python -m experiments.studies.grid_search --out runs/embedded         about 3 minutes on 2 cores

A grid by --levels and --nodes (the paper's: levels 4 to 12, nodes 40 to 240 of its cycle). Records
and measures what OUT lacks; writes OUT/results/grid_search.json. Expected: taking the replay's best
loses less than 2 % against the best that was decoded.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from experiments import output
from experiments.output import ResultFlags
from ltd_jax import flags, workflow
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.decoding import benchmark, runs
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Constant
from ltd_jax.presets import EMBEDDED_POLICY
from ltd_jax.questions import QuestionConfig, Split
from ltd_jax.replay import simulate
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.replay.simulate import Simulator
from ltd_jax.workflow import Progress, StageConfig

PREDICTED, MEASURED = "predicted_tokens_per_second", "measured_tokens_per_second"


@dataclasses.dataclass(frozen=True)
class Config(ResultFlags):
    """Which settings, on which questions."""

    levels: tuple[int, ...] = ()  # none = all
    nodes: tuple[int, ...] = ()  # of the cycle's sizes; none = all
    few: int = 5  # checked live
    split: Split = "validation"
    asked: tyro.conf.OmitArgPrefixes[QuestionConfig] = QuestionConfig(prompts=6)
    widths: PolicyConfig = EMBEDDED_POLICY  # of the policies whose decisions are timed
    profiling: ProfileConfig = ProfileConfig()


def grid_of(config: Config, cycle: CycleConfig) -> list[Constant]:
    """The settings of the flags; UserError where a cycle has not compiled one."""
    for level in config.levels:
        if not 1 <= level <= cycle.max_levels:
            raise UserError(f"`levels` {level} must lie in 1..{cycle.max_levels}.")
    for size in config.nodes:
        if size not in cycle.sizes:
            raise UserError(f"`nodes` {size} is not one of the compiled sizes {cycle.sizes}.")
    levels, sizes = config.levels or range(1, cycle.max_levels + 1), config.nodes or cycle.sizes
    return [Constant(level, size) for level in levels for size in sizes]


def rows_of(simulator: Simulator, grid: Sequence[Constant]) -> list[dict[str, Any]]:
    """Every setting of the grid, the fastest first: tokens per second by replay."""
    rate_DV = np.asarray(simulate.throughput(simulate.constants(simulator)))
    index = simulator.config.sizes.index
    rows = [
        {"levels": one.levels, "size": one.size}
        | {PREDICTED: float(rate_DV[one.levels - 1, index(one.size)])}
        for one in grid
    ]
    return sorted(rows, key=lambda row: -row[PREDICTED])


def check_live(
    pair: Pair,
    rows: Sequence[dict[str, Any]],
    split: Split,
    stages: StageConfig,
    progress: Progress,
) -> list[dict[str, Any]]:
    """The rows with what they give live, decoded in turns on the split's questions."""
    by_name = {f"levels {row['levels']}, size {row['size']}": row for row in rows}
    done = runs.load_or_decode(
        pair,
        [Method(name, Constant(row["levels"], row["size"])) for name, row in by_name.items()],
        workflow.load_prompts(pair, stages, split).prompts,
        stages.questions.new_tokens,
        stages.folder / "runs.jsonl",
        progress=progress,
    )
    rate = lambda name: benchmark.tokens_per_second([run for run in done if run.method == name])
    return [row | {MEASURED: rate(name)} for name, row in by_name.items()]


def agreement(checked: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The difference of replay and live decoding on what was checked.

    `lost`: what live decoding loses by taking the replay's best instead of the live best, a share;
    `worst`: the largest relative difference of a setting's tokens per second.
    """
    live = [row[MEASURED] for row in checked]
    worst = max(abs(row[PREDICTED] / row[MEASURED] - 1) for row in checked)
    return {"lost": 1 - live[0] / max(live), "worst": worst}


def main() -> None:
    config = flags.parse(lambda preset: Config(widths=preset.policy))
    flags.at_least_one(config, "few")
    flags.writable(config.out)
    console, cycle = Console(), config.cycle
    grid = grid_of(config, cycle)
    pair = flags.load_pair(config, cycle)
    stages = dataclasses.replace(config.stages, folder=config.out / "grid")  # fewer questions
    with flags.progress_bars(console) as progress:
        table = workflow.load_or_profile(pair, config.stages, progress=progress)
        trace = workflow.load_or_record(pair, stages, config.split, progress=progress)
        rows = rows_of(simulate.build(trace, table, cycle), grid)
        checked = check_live(pair, rows[: config.few], config.split, stages, progress)
    apart = agreement(checked)
    shown = output.table(
        f"the best {len(checked)} of {len(rows)} constant settings",
        ("levels", "size", "tokens/s by replay", "tokens/s live"),
        [
            (str(row["levels"]), str(row["size"]), f"{row[PREDICTED]:.1f}", f"{row[MEASURED]:.1f}")
            for row in checked
        ],
        f"The replay's best loses {100 * apart['lost']:.1f} % against the live best; tokens per "
        f"second differ by at most {100 * apart['worst']:.1f} %.",
    )
    console.print(shown)
    content = {"rows": rows, "checked": checked, "agreement": apart}
    output.write(config.folder, "grid_search", config, content)


if __name__ == "__main__":
    flags.run(main)
