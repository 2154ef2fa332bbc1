"""Table 5: all methods at temperature 1, with policies and classifiers trained greedily.

    python -m experiments.train_policies --out runs/embedded         about 5 minutes on 2 CPU cores
    python -m experiments.train_classifiers --out runs/embedded      about 2 minutes
    python -m experiments.paper.table5_sampling --out runs/arena           about 12 minutes

With --sampled (see the leaderboard) policies that learned at that temperature decode, too. Writes
OUT/results/table5_sampling.json and .png; the leaderboard with the same --out uses the same
decoding. --top-p and the other sampling flags hold, too. In the paper LTD is first, but on
Llama-3.1-8B four methods are within 1 % of it.
"""

from rich.console import Console

from experiments import command
from experiments.report.paper_methods import TABLE5
from experiments.studies import arena
from experiments.studies.arena import SampledFlags


def main() -> None:
    config = command.parse(lambda preset: SampledFlags())
    arena.show(config, "table5_sampling", 1.0, TABLE5[:2], Console(), config.sampled)


if __name__ == "__main__":
    command.run(main)
