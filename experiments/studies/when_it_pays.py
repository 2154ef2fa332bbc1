"""The tables of docs/when-it-pays.md: measured speedups, and what a device needs to have one.

    python -m experiments.studies.when_it_pays

In go the recorded results (experiments/results), the paper's Table 1 and the latency tables that
ship; out come Markdown tables. A cycle that takes as long as B plain steps pays where it commits
more than B tokens, which is the break-even point

    B(levels, size) = cycle_seconds(levels, size) / plain_seconds

and no cycle commits more than levels + 1. For several sequences side by side the roofline model
gives it: weights are read once for all of them, caches and operations count for each.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.report import paper
from experiments.studies.model_latency import LLAMA_3_1_8B, eagle3_draft
from ltd_jax import flags
from ltd_jax.presets import PAPER_CYCLE
from ltd_jax.replay import latency, roofline
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.roofline import Work

RESULTS = Path(__file__).parents[1] / "results"
SETTINGS = {  # levels and sizes that are looked at, by table
    "epyc-2-cores-embedded": ((1, 1), (2, 3), (3, 6), (5, 16)),
    "a100-vicuna-13b-paper": ((4, 20), (8, 60), (10, 200)),
    "h100-llama-3.1-8b-modelled": ((4, 20), (8, 60), (12, 240)),
    "tpu-v6e-llama-3.1-8b-modelled": ((4, 20), (8, 60), (12, 240)),
}
BATCHES = (1, 4, 16, 64, 256)
BATCH_SETTINGS = ((4, 20), (8, 60))
BATCH_CONTEXT = 1024  # tokens before the root of every sequence
METHODS = {"eagle3": "EAGLE-3", "best_constant": "constant", "best constant": "constant"}


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(name: str) -> dict[str, Any]:
    """A recorded result."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def measured() -> str:
    """Live speedups over plain decoding on this project's devices, the mean of the tasks."""
    rows = []
    for target, name, temperature in (
        ("SmolLM2-135M", "smollm2-cpu/report.json", 0),
        ("embedded", "quickstart-cpu/report.json", 0),
        ("embedded", "quickstart-avx2/report.json", 0),
        ("embedded", "embedded-cpu/table5_sampling.json", 1),
    ):
        result = read(name)
        of_all = {
            METHODS.get(row["method"], row["method"]): row
            for row in result["methods" if "methods" in result else "rows"]
            if row.get("task", "mean") in ("mean", None)
        }
        device = result["environment"]["device"]
        plain = of_all["autoregressive"]["tokens_per_second"]
        methods = [of_all[method] for method in ("EAGLE-3", "constant", "ltd")]
        lows = [_interval(row)[0] for row in methods[1:]]
        faster = [low is not None and low > 1 for low in lows]
        shown = "LTD and the constant" if all(faster) else "LTD" if faster[1] else "none"
        rows.append(
            [
                target,
                device,
                str(temperature),
                f"{plain:.0f}",
                *(_speedup(row) for row in methods),
                "no interval recorded" if None in lows else shown,
            ]
        )
    heads = [
        "target",
        "device",
        "temperature",
        "plain, tokens/s",
        "EAGLE-3's default",
        "best constant",
    ]
    return markdown([*heads, "LTD", "shown to be faster than plain"], rows)


def _interval(row: dict[str, Any]) -> tuple[float | None, float | None]:
    prefix = "speedup_" if "speedup_low" in row else ""
    return row[f"{prefix}low"], row[f"{prefix}high"]


def _speedup(row: dict[str, Any]) -> str:
    low, high = _interval(row)
    interval = "" if low is None else f" ({low:.2f}–{high:.2f})"
    return f"{row['speedup']:.2f}x{interval}"


def of_the_paper() -> str:
    """The paper's speedups on one A100, the mean of its tasks, at temperature 0."""
    names = ("eagle3", "best constant", "ltd")
    shown = [
        [
            table.model,
            *(f"{rows[name].mean.speedup:.2f}x" if name in rows else "–" for name in names),
        ]
        for table in paper.TABLE1
        for rows in (table.rows,)
    ]
    return markdown(["target", "EAGLE-3's default", "best constant", "LTD"], shown)


def break_even() -> str:
    """Tokens that a cycle must commit to be as fast as plain decoding, by latency table."""
    committed = {
        (row["levels"], row["size"]): row["committed"]
        for row in read("embedded-cpu/figure5_acceptance.json")["rows"]
    }
    rows = []
    for name, settings in SETTINGS.items():
        table = LatencyTable.find(name)
        if "fingerprint" not in table.provenance:
            table = latency.fit(table, PAPER_CYCLE)
        for levels, size in settings:
            needed = cost(table, levels, size)
            gained = committed.get((levels, size)) if "embedded" in name else None
            rows.append(
                [
                    f"`{name}`",
                    f"{1e3 * table.plain_seconds.mean():.1f} ms",
                    f"{levels}, {size}",
                    f"{needed:.2f} of {levels + 1}",
                    "not known" if gained is None else f"{gained:.2f}: {gained / needed:.2f}x",
                ]
            )
    heads = ["latency table", "plain step", "levels, size", "break-even, of at most"]
    return markdown([*heads, "the embedded pair commits"], rows)


def cost(table: LatencyTable, levels: int, size: int) -> float:
    """A cycle's time in plain steps, mean over contexts."""
    cycle = table.cycle_seconds[:, levels - 1, table.sizes.index(size)]
    return float(np.mean(cycle / table.plain_seconds))


def batches() -> str:
    """The break-even point of several sequences side by side, by the roofline model."""
    rows = []
    for name in ("h100", "tpu-v6e"):
        for levels, size in BATCH_SETTINGS:
            needed = [batch_cost(name, levels, size, batch) for batch in BATCHES]
            shown = [f"**{one:.1f}**" if one > levels + 1 else f"{one:.1f}" for one in needed]
            device = roofline.ACCELERATORS[name].name
            rows.append([device, f"{levels}, {size}", str(levels + 1), *shown])
    heads = ["device", "levels, size", "at most", *(f"batch {batch}" for batch in BATCHES)]
    return markdown(heads, rows)


def batch_cost(name: str, levels: int, size: int, batch: int) -> float:
    """The modelled time of a cycle of Llama-3.1-8B and its draft, in plain steps."""
    device, target = roofline.ACCELERATORS[name], LLAMA_3_1_8B
    draft = eagle3_draft(target)
    seconds = lambda work, alone: side_by_side(work, alone, batch).seconds(device)
    drafting = sum(
        seconds(*(roofline.draft_pass(draft, PAPER_CYCLE, level, n) for n in (BATCH_CONTEXT, 0)))
        for level in range(1, levels + 1)
    )
    passes = [
        seconds(*(roofline.target_pass(target, rows, n) for n in (BATCH_CONTEXT, 0)))
        for rows in (size + 1, 1)
    ]
    return (drafting + passes[0]) / passes[1]


def side_by_side(work: Work, without_cache: Work, batch: int) -> Work:
    """One pass over several sequences: the weights are read once, each one's cache for itself.

    Args:
      without_cache: the same pass after no tokens, which reads the weights alone.
    """
    cache = work.bytes - without_cache.bytes
    return Work(without_cache.bytes + batch * cache, batch * work.operations, work.layers)


@dataclasses.dataclass(frozen=True)
class Config:
    """It has no flags: everything comes from what is recorded and shipped."""


def main() -> None:
    tyro.cli(Config, description=__doc__)
    for table in (measured(), of_the_paper(), break_even(), batches()):
        print(table + "\n")


if __name__ == "__main__":
    flags.run(main, resumes=False)
