"""Table 5: all methods at temperature 1, with policies and classifiers trained greedily.

    ltd train --out runs/embedded                                    about 5 minutes on 2 CPU cores
    ltd train --classifiers --out runs/embedded                      about 2 minutes
    python -m experiments.paper.table5_sampling --out runs/arena           about 12 minutes

With --sampled (see the leaderboard) policies that learned at that temperature decode, too. Writes
OUT/results/table5_sampling.json and .png; the leaderboard with the same --out uses the same
decoding. --top-p and the other sampling flags hold, too. In the paper LTD is first, but on
Llama-3.1-8B four methods are within 1 % of it.
"""

from experiments.report.paper import TABLE5
from experiments.studies import arena
from experiments.studies.arena import SampledFlags
from ltd_jax import flags


def main() -> None:
    config = flags.parse(lambda preset: SampledFlags())
    arena.show(config, "table5_sampling", 1.0, TABLE5[:2], sampled=config.sampled)


if __name__ == "__main__":
    flags.run(main)
