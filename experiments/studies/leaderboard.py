"""One table that decides: all methods, tasks and temperatures on one pair, decoded in turns.

    python -m experiments.train_policies --out runs/embedded         about 5 minutes on 2 CPU cores
    python -m experiments.train_classifiers --out runs/embedded      about 2 minutes
    python -m experiments.train_policies --out runs/sampled --temperature 1
    python -m experiments.studies.leaderboard --out runs/arena --sampled runs/sampled

The last one takes about an hour; without --sampled only greedy-trained policies decode. Writes
OUT/results/leaderboard.html (start there) and leaderboard.json, whose rows are {"method", "task",
"temperature", "tokens_per_second", "speedup", "low", "high", "over_best_constant",
"committed_per_cycle", "share_of_optimum"}. With the same --out table1_greedy and table5_sampling
decode nothing anew.
"""

import dataclasses

from rich.console import Console

from experiments import command, output
from experiments.report import leaderboard
from experiments.report.paper_methods import TABLE1, TABLE5
from experiments.studies import arena
from experiments.studies.arena import SampledFlags
from ltd_jax.files import UserError, replacing

PAPERS = {0.0: TABLE1[:2], 1.0: TABLE5[:2]}


@dataclasses.dataclass(frozen=True)
class Config(SampledFlags):
    """And at which temperatures."""

    temperatures: tuple[float, ...] = (0.0, 1.0)


def main() -> None:
    config = command.parse(lambda preset: Config())
    if config.sampled is not None and not any(config.temperatures):
        raise UserError("--sampled needs a temperature above 0 among --temperatures.")
    console = Console()
    found = {
        heat: arena.hold(config, heat, console, config.sampled if heat > 0 else None)
        for heat in config.temperatures
    }
    document = output.write(config.folder, "leaderboard", config, arena.document(found))
    for temperature in found:
        papers = PAPERS.get(temperature, ())
        title = f"all methods, temperature {temperature:g}"
        rows = document["rows"]
        console.print(leaderboard.terminal_table(title, rows, temperature, papers))
    page = config.folder / "leaderboard.html"
    with replacing(page) as temporary:
        temporary.write_text(leaderboard.html(document, PAPERS))
    console.print(f"Leaderboard: {page}")


if __name__ == "__main__":
    command.run(main)
