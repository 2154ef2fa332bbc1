"""Table 1: all methods at temperature 0, beside the paper's numbers.

    ltd train --out runs/embedded                                    about 5 minutes on 2 CPU cores
    ltd train --classifiers --out runs/embedded                      about 2 minutes
    python -m experiments.paper.table1_greedy --out runs/arena             about 10 minutes

Any pair and questions by flags. Writes OUT/results/table1_greedy.json and .png; the leaderboard
with the same --out uses the same decoding. In the paper LTD is first, 2 to 36 % over the best
constant.
"""

from experiments.report.paper import TABLE1
from experiments.studies import arena
from experiments.studies.arena import ArenaFlags
from ltd_jax import flags


def main() -> None:
    arena.show(flags.parse(lambda preset: ArenaFlags()), "table1_greedy", 0.0, TABLE1[:2])


if __name__ == "__main__":
    flags.run(main)
