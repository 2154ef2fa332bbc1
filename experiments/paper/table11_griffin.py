"""Table 11: LTD over another kind of draft, Griffin, beside the paper's numbers.

    python -m experiments.paper.table11_griffin --target DIR --draft DIR --questions DIR
    python -m experiments.paper.table11_griffin --smoke --out runs/griffin-smoke      about 3 minutes

Records, measures, searches, trains, decodes and compares as the quickstart does, for any draft of
another structure. Where --draft is left out, a Griffin draft of random weights takes its place: a
smoke run whose numbers say nothing. The paper (Meta-Llama-3-8B): 2.55 times with constants, 2.78
with the best ones, 2.81 with LTD.
"""

import dataclasses
import json

from rich.console import Console

from experiments import command, output, quickstart
from experiments.quickstart import Config
from experiments.report import leaderboard, tables
from experiments.report.paper_methods import TABLE11
from experiments.studies import random_draft, results
from ltd_jax.presets import Preset

NAMES = {"eagle3": "eagle3", "best_constant": "best constant", "ltd": "ltd"}


def start(preset: Preset) -> Config:
    """The settings for a pair where no flag changes them."""
    return Config(out=Config.out.parent / "griffin", **command.stage_settings(preset))


def main() -> None:
    config = command.parse(start, quickstart.smoke)
    command.writable(config.out)
    console = Console(stderr=config.json)
    is_random = config.draft == Config.draft
    if is_random:
        config = dataclasses.replace(config, draft=config.out / "random-griffin")
        random_draft.write_griffin(config.draft, config.target)
        command.say("The draft has random weights: a smoke run, whose numbers say nothing.")
    pair = command.load_pair(config, config.cycle)
    found = results.run(pair, config, console)
    console.print(tables.terminal_table(found.report))
    (paper,) = TABLE11
    for row in found.report["methods"]:
        if row["task"] == "mean" and row["method"] in NAMES:
            theirs = leaderboard.paper_cell(paper, NAMES[row["method"]])
            ours = f"{row['speedup']:.2f}x, {row['committed_per_cycle']:.2f}"
            console.print(f"{row['method']}: {ours}; {paper.model} in the paper {theirs}")
    rows = [leaderboard.paper_row(paper, row) for row in paper.rows]
    content = {"rows": found.report["methods"], "paper": rows, "random_weights": is_random}
    document = output.write(config.out / "results", "table11_griffin", config, content)
    if config.json:
        print(json.dumps(document))


if __name__ == "__main__":
    command.run(main)
