"""Figure 5: committed tokens per cycle by levels and size, of every constant setting, exactly.

    python -m experiments.paper.figure5_acceptance --out runs/embedded  1 minute on 2 CPU cores

Replays the split's trace, recorded where OUT/traces lacks it. Writes figure5_acceptance.json and
.png to OUT/results, and prints every task's mean at most levels and nodes. The paper's finding:
more levels and nodes accept more, with falling gains, and how much differs from one place to the
next; the quartiles over places are in the JSON.
"""

import dataclasses
from typing import Any

import numpy as np
from rich.console import Console

from experiments import output
from experiments.output import ResultFlags
from experiments.report import plots
from ltd_jax import flags, workflow
from ltd_jax.questions import Split
from ltd_jax.replay import trace as traces
from ltd_jax.replay.trace import Trace


@dataclasses.dataclass(frozen=True)
class Config(ResultFlags):
    """Questions to record."""

    split: Split = "test"


def rows_of(committed_PDV: np.ndarray, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Mean and quartiles over all positions of what a cycle there commits."""
    mean_DV = committed_PDV.mean(axis=0)
    quartiles_2DV = np.quantile(committed_PDV, (0.25, 0.75), axis=0)
    return [
        {
            "levels": row + 1,
            "size": sizes[column],
            "committed": float(mean),
            "quartiles": quartiles_2DV[:, row, column].tolist(),
        }
        for (row, column), mean in np.ndenumerate(mean_DV)
    ]


def tasks_of(committed_PDV: np.ndarray, trace: Trace) -> dict[str, float]:
    """The mean of every task at most levels and nodes, and under "mean" that of the tasks."""
    largest_P = committed_PDV[:, -1, -1]
    means = {
        name: float(largest_P[trace.task == task].mean())
        for task, name in enumerate(trace.provenance["tasks"])
        if (trace.task == task).any()
    }
    return means | {"mean": float(np.mean(list(means.values())))}


def main() -> None:
    config = flags.parse(lambda preset: Config())
    flags.writable(config.out)
    console, cycle = Console(), config.cycle
    pair = flags.load_pair(config, cycle)
    with flags.progress_bars(console) as progress:
        trace = workflow.load_or_record(pair, config.stages, config.split, progress=progress)
    left_P11 = trace.tokens_left[:, None, None]
    committed_PDV = np.minimum(traces.accepted(trace, cycle) + 1.0, left_P11)
    committed_DV = committed_PDV.mean(axis=0)
    title = "committed tokens per cycle, mean over all positions"
    lines = [
        (str(levels), *(f"{value:.2f}" for value in means))
        for levels, means in enumerate(committed_DV, 1)
    ]
    headings = ("levels", *(f"size {size}" for size in cycle.sizes))
    console.print(output.table(title, headings, lines))
    by_task = tasks_of(committed_PDV, trace)
    shown = ", ".join(f"{task} {committed:.2f}" for task, committed in by_task.items())
    console.print(f"At {cycle.max_levels} levels and size {cycle.sizes[-1]}: {shown}.")
    content = {
        "rows": rows_of(committed_PDV, cycle.sizes),
        "tasks": by_task,
        "trace": trace.provenance,
    }
    png = plots.encode(plots.acceptance(committed_DV, cycle.sizes))
    output.write(config.folder, "figure5_acceptance", config, content, png)


if __name__ == "__main__":
    flags.run(main)
