"""One table that decides: all methods, tasks and temperatures on one pair, decoded in turns.

    ltd train --out runs/embedded                     about 5 minutes on 2 CPU cores
    ltd train --out runs/embedded --classifiers       about 2 minutes
    ltd train --out runs/sampled --temperature 1
    python -m experiments.studies.leaderboard --out runs/arena --sampled runs/sampled

The last one takes about an hour; without --sampled only greedy-trained policies decode. Writes
OUT/results/leaderboard.html (start there) and leaderboard.json, whose rows are {"method", "task",
"temperature", "tokens_per_second", "speedup", "low", "high", "over_best_constant",
"committed_per_cycle", "share_of_optimum"}. With the same --out table1_greedy and table5_sampling
decode nothing anew.
"""

import dataclasses

from rich.console import Console

from experiments import output
from experiments.report import page, tables
from experiments.report.paper import TABLE1, TABLE5
from experiments.studies import arena
from experiments.studies.arena import SampledFlags
from ltd_jax import flags
from ltd_jax.files import UserError, replacing

PAPERS = {0.0: TABLE1[:2], 1.0: TABLE5[:2]}


@dataclasses.dataclass(frozen=True)
class Config(SampledFlags):
    """And at which temperatures."""

    temperatures: tuple[float, ...] = (0.0, 1.0)


def main() -> None:
    config = flags.parse(lambda preset: Config(), description=__doc__)
    if config.sampled is not None and not any(config.temperatures):
        raise UserError("`sampled` needs a temperature above 0 among `temperatures`.")
    console = Console()
    contests = {
        heat: arena.contest(config, heat, console, sampled=config.sampled if heat > 0 else None)
        for heat in config.temperatures
    }
    document = output.write(config.folder, "leaderboard", config, arena.document(contests))
    for heat in contests:
        title = f"all methods, temperature {heat:g}"
        console.print(tables.leaderboard(title, document["rows"], heat, PAPERS.get(heat, ())))
    path = config.folder / "leaderboard.html"
    with replacing(path) as temporary:
        temporary.write_text(page.leaderboard(document, PAPERS), encoding="utf-8")
    console.print(f"Leaderboard: {path}")


if __name__ == "__main__":
    flags.run(main)
