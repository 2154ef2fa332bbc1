"""Table 11: LTD over another kind of draft, Griffin, beside the paper's numbers.

    python -m experiments.paper.table11_griffin --target DIR --draft DIR --questions DIR
    python -m experiments.paper.table11_griffin --smoke --out runs/griffin-smoke     about 3 minutes

Records, measures, searches, trains, decodes and compares as the quickstart does, for any draft of
another structure. Where --draft is left out, a Griffin draft of random weights takes its place: a
smoke run whose numbers say nothing. The paper (Meta-Llama-3-8B): 2.55 times with constants, 2.78
with the best ones, 2.81 with LTD.
"""

import dataclasses
import json
from pathlib import Path

from rich.console import Console

from experiments import comparison, output, quickstart
from experiments.quickstart import Config
from experiments.report import paper, tables
from experiments.studies import random_draft
from ltd_jax import flags
from ltd_jax.decoding.benchmark import MEAN
from ltd_jax.files import ASSETS
from ltd_jax.presets import Preset

OUT = Path("runs/griffin")


def start(preset: Preset) -> Config:
    """The settings for a target where no flag changes them."""
    return dataclasses.replace(quickstart.start(preset), out=OUT)


def main() -> None:
    config = flags.parse(start, small=quickstart.smoke)
    flags.writable(config.out)
    console = Console(stderr=config.json)
    is_random = config.draft in (None, ASSETS / "draft")
    if is_random:
        folder = config.out / "random-griffin"
        config = dataclasses.replace(config, draft=folder)
        random_draft.write_griffin(folder, config.target)
        flags.say("The draft has random weights: a smoke run, whose numbers say nothing.")
    pair = flags.load_pair(config, config.cycle)
    with flags.progress_bars(console) as progress:
        report = comparison.report_of(comparison.compare(pair, config.stages, progress))
    console.print(tables.report(report))
    theirs = paper.TABLE11[0]
    for row in report["methods"]:
        name = row["method"].replace("_", " ")
        if row["task"] == MEAN and name in theirs.rows:
            ours = f"{row['speedup']:.2f}x, {row['committed_per_cycle']:.2f}"
            beside = f"{theirs.model} in the paper {tables.paper_cell(theirs, name)}"
            console.print(f"{row['method']}: {ours}; {beside}")
    content = {
        "rows": report["methods"],
        "paper": paper.as_json(paper.TABLE11),
        "random_weights": is_random,
    }
    document = output.write(config.out / "results", "table11_griffin", config, content)
    if config.json:
        print(json.dumps(document))


if __name__ == "__main__":
    flags.run(main)
