"""Is sampling lossless? The law of a text's first three tokens, drawn by the compiled cycle.

    python -m experiments.check_sampling --draws 200000
    python -m experiments.check_sampling --draws 4000          shows that it runs

A random pair of a small vocabulary, whose exact law is computed from the target alone; 7 settings,
14 methods, both rules. Expected: p-values uniform over the rows, total variation that of plain
decoding, and every coupled text plain decoding's own. Writes OUT/sampling.json. About two hours on
2 CPU cores, most of it drawing.
"""

import dataclasses
import json
from pathlib import Path

import tyro
from rich.console import Console

from experiments import command
from ltd_jax import provenance
from ltd_jax.decoding import distribution
from ltd_jax.pipeline import sampling_check


@dataclasses.dataclass(frozen=True)
class Config:
    """How much to draw."""

    draws: int = 200_000  # texts per row
    vocabulary: int = 10
    out: Path = Path("runs/sampling")


def main() -> None:
    config, console = tyro.cli(Config), Console()
    path = command.writable(config.out) / "sampling.json"
    pair = distribution.random_pair(config.vocabulary, sampling_check.CYCLE, seed=0)
    found, chosen = [], sampling_check.choices(pair)
    for row in sampling_check.rows(pair, config.draws):
        found.append(row)
        console.print(
            f"{row['setting']:<16} {row['rule']:<10} {row['method']:<26} p {row['p_value']:.3f}  "
            f"variation {row['total_variation']:.4f} (plain {row['plain_total_variation']:.4f})"
        )
    summary = sampling_check.summary(found)
    head = {"draws": config.draws, "environment": provenance.environment("float32")}
    path.write_text(
        json.dumps(head | summary | {"choices": chosen, "rows": found}, indent=1) + "\n"
    )
    console.print(summary)
    console.print(f"Written: {path}")


if __name__ == "__main__":
    command.run(main)
