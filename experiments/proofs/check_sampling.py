"""Is sampling lossless? The law of a text's first three tokens, drawn by the compiled cycle.

    python -m experiments.proofs.check_sampling --draws 200000 --processes 2
    python -m experiments.proofs.check_sampling --draws 4000          shows that it runs

A random pair of a small vocabulary, whose exact law is computed from the target alone; 7 settings,
14 methods, both rules. Expected: p-values uniform over the rows, total variation that of plain
decoding, and every coupled text plain decoding's own. Writes OUT/sampling.json. About 40
minutes on 2 CPU cores, most of it drawing. Stopped, the same command goes on.
"""

import dataclasses
import json
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import tyro

from experiments import command
from experiments.proofs import sampling
from ltd_jax import files
from ltd_jax.files import ResumableStore


@dataclasses.dataclass(frozen=True)
class Config:
    """How much to draw."""

    draws: int = 200_000  # texts per row
    vocabulary: int = 10
    processes: int = 1  # that share the settings
    out: Path = Path("runs/sampling")


def rows(config: Config, setting: str) -> list[dict[str, Any]]:
    """All rows of one setting; prints them as they come."""
    pair, found = sampling.pair_of(config.vocabulary), []
    origin = {"draws": config.draws, "vocabulary": config.vocabulary, "jax": jax.__version__}
    kept = ResumableStore(config.out / "rows" / f"{setting.replace(' ', '-')}.json", origin)
    for row in sampling.rows(pair, setting, config.draws, kept):
        found.append(row)
        print(
            f"{row['setting']:<16} {row['rule']:<10} {row['method']:<26} p {row['p_value']:.3f}  "
            f"variation {row['total_variation']:.4f} (plain {row['plain_total_variation']:.4f})",
            flush=True,
        )
    return found


def main() -> None:
    config = tyro.cli(Config)
    command.at_least_one(config, "draws", "processes")
    path = command.writable(config.out) / "sampling.json"
    command.writable(config.out / "rows")
    chosen = sampling.choices(sampling.pair_of(config.vocabulary))
    print(
        "levels, size and how often:",
        *(f"{name} {each}" for name, each in chosen.items()),
        sep="\n",
    )
    spawning = multiprocessing.get_context("spawn")
    unheard = (signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches all processes; this one ends them
    with ProcessPoolExecutor(config.processes, spawning, signal.signal, unheard) as pool:
        try:
            lists = pool.map(partial(rows, config), sampling.SETTINGS)
            found = [row for one in lists for row in one]
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
    summary = sampling.summary(found)
    head = {"draws": config.draws, "environment": files.environment("float32")}
    content = head | summary | {"choices": chosen, "rows": found}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(summary)
    print(f"Written: {path}")


if __name__ == "__main__":
    command.run(main)
