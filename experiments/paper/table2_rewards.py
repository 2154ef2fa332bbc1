"""Table 2: which reward the size policy learns best from.

    python -m experiments.paper.table2_rewards --out runs/embedded           about 3 minutes on 2 cores

The size policy learns alone, with random levels, and decodes at the levels of the best constant
setting. The paper's rewards: accepted tokens, time, throughput (its own, "paper"); here also
"average", committed - throughput * seconds. In the paper throughput wins by far.
"""

import dataclasses
import time

from rich.console import Console

from experiments import command
from experiments.report import beside, paper
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from experiments.studies.study import StudyFlags
from ltd_jax.config import Reward
from ltd_jax.learning import alternate
from ltd_jax.policies import networks
from ltd_jax.replay import optimum


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which rewards."""

    rewards: tuple[Reward, ...] = ("accepted", "time", "paper", "average")


def rows(here: Ground, config: Config, console: Console) -> list[Row]:
    """The baselines, then a row per reward."""
    levels = optimum.best_constant(here.train, here.cycle).levels
    alone = networks.learned_size(here.cycle, here.policy, levels)
    name = alternate.phases(config.learning)[0].name
    found = scores.baselines(here)
    for reward in config.rewards:
        of_seeds = []
        for seed in range(config.seeds):
            learned = grounds.learn(here, config, seed, console, reward=reward, last=name)
            params = learned.stages[name]
            of_seeds.append(scores.of_learned(here, alone, params, depth=False, size=True))
        found.append(scores.row(here, reward, of_seeds))
    return found


def main() -> None:
    config, console, started = study.parse(Config), Console(), time.monotonic()
    here = study.stand(config, console)
    found = rows(here, config, console)
    console.print(beside.table("Rewards of the size policy", found, [paper.TABLE2]))
    papers = beside.paper_rows([paper.TABLE2])
    study.write(config, "table2_rewards", here, found, papers, started)


if __name__ == "__main__":
    command.run(main)
