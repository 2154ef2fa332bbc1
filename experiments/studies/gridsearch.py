"""Grid search over constant settings: all at once by replay, the best few checked live."""

from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from experiments.studies import compare
from ltd_jax import workflow
from ltd_jax.config import CycleConfig
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay import simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator
from ltd_jax.workflow import Recording, Split


class Grid(NamedTuple):
    """Which settings."""

    levels: tuple[int, ...]
    sizes: tuple[int, ...]


def grid_of(levels: tuple[int, ...], sizes: tuple[int, ...], config: CycleConfig) -> Grid:
    """A grid of what a cycle has compiled; nothing given = all of it.

    Raises:
      UserError: a level or size is not there.
    """
    grid = Grid(levels or tuple(range(1, config.max_levels + 1)), sizes or config.sizes)
    for level in grid.levels:
        if not 1 <= level <= config.max_levels:
            raise UserError(f"--levels {level} must lie in 1..{config.max_levels}.")
    for size in grid.sizes:
        if size not in config.sizes:
            raise UserError(f"--sizes {size} is not one of the compiled sizes {config.sizes}.")
    return grid


def rows_of(replay: Simulator, config: CycleConfig, grid: Grid) -> list[dict[str, Any]]:
    """Every setting of the grid, the fastest first: tokens per second by replay."""
    rate_DV = np.asarray(simulate.throughput(simulate.constants(replay, config)))
    rows = [
        {
            "levels": levels,
            "size": size,
            "predicted_tokens_per_second": float(rate_DV[levels - 1, config.sizes.index(size)]),
        }
        for levels in grid.levels
        for size in grid.sizes
    ]
    return sorted(rows, key=lambda row: -row["predicted_tokens_per_second"])


def check_live(
    pair: Pair,
    rows: list[dict[str, Any]],
    few: int,
    split: Split,
    settings: Recording,
    console: Console,
) -> list[dict[str, Any]]:
    """The first few rows with what they give live, decoded in turns."""
    chosen, constant = rows[:few], policy_module.constant()
    names = [f"levels {row['levels']}, size {row['size']}" for row in chosen]
    methods = [
        Method(
            name,
            constant,
            policy_module.constant_params(row["levels"], row["size"], pair.config.cycle),
        )
        for name, row in zip(names, chosen, strict=True)
    ]
    found = workflow.load_prompts(pair, settings.asked, split, settings.out / "traces").prompts
    runs = compare.runs_of(pair, methods, found, settings, console)
    return [
        row | {"measured_tokens_per_second": _rate(runs, name)}
        for name, row in zip(names, chosen, strict=True)
    ]


def _rate(runs: list[Run], name: str) -> float:
    return benchmark.tokens_per_second([run for run in runs if run.method == name])


def agreement(checked: list[dict[str, Any]]) -> dict[str, float]:
    """How far replay and live are apart on what was checked.

    `lost`: what live decoding loses by taking the replay's best instead of the live best, a share;
    `worst`: the largest relative difference of a setting's tokens per second.
    """
    live = [row["measured_tokens_per_second"] for row in checked]
    said = [row["predicted_tokens_per_second"] for row in checked]
    differences = [abs(one / two - 1) for one, two in zip(said, live, strict=True)]
    return {"lost": 1 - live[0] / max(live), "worst": max(differences)}


def replay_of(
    pair: Pair, table: LatencyTable, split: Split, settings: Recording, console: Console
) -> Simulator:
    """The split's replay."""
    trace = workflow.load_or_record(pair, split, settings, console)
    return simulate.build(trace, table, pair.config.cycle)
