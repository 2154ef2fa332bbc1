"""One table that decides: all methods, tasks and temperatures on one pair, decoded in turns.

    python -m experiments.train_policies --out runs/embedded         about 5 minutes on 2 CPU cores
    python -m experiments.train_classifiers --out runs/embedded      about 2 minutes
    python -m experiments.leaderboard --out runs/arena               about 10 minutes

Writes OUT/results/leaderboard.html (start there) and leaderboard.json, whose rows are {"method",
"task", "temperature", "tokens_per_second", "speedup", "low", "high", "over_best_constant",
"committed_per_cycle", "share_of_optimum"}. With the same --out table1_greedy decodes nothing anew.
"""

from rich.console import Console

from experiments import arena, command, output
from experiments.arena import ArenaFlags
from ltd_jax.replay.trace import replacing
from ltd_jax.report import leaderboard
from ltd_jax.report.paper_methods import TABLE1

PAPERS = {0.0: TABLE1[:2]}


def main() -> None:
    config = command.parse(lambda preset: ArenaFlags())
    console = Console()
    found = {0.0: arena.hold(config, console)}
    document = output.write(config.folder, "leaderboard", config.dtype, arena.document(found))
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
