"""Table 2: which reward the size policy learns best from.

    python -m experiments.paper.table2_rewards --out runs/embedded        about 3 minutes on 2 cores

The size policy learns alone, with random levels, and decodes at the levels of the best constant
setting. The paper's rewards: accepted tokens, time, throughput (its own, "paper"); here also
"average", committed - throughput * seconds. In the paper throughput wins by far.
"""

import dataclasses

from experiments.report import paper
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from experiments.studies.study import StudyFlags
from ltd_jax import flags
from ltd_jax.config import Reward
from ltd_jax.policies.policy import Mixed
from ltd_jax.replay import optimum
from ltd_jax.workflow import Progress


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which rewards."""

    rewards: tuple[Reward, ...] = ("accepted", "time", "paper", "average")


def rows(ground: Ground, config: Config, progress: Progress) -> list[Row]:
    """The baselines, then a row per reward."""
    levels = optimum.best_constant(ground.train).policy
    table = scores.baselines(ground)
    for reward in config.rewards:
        of_seeds = []
        for seed in range(config.seeds):
            result = grounds.learn(
                ground, config.stages, seed, reward=reward, last="size-alone", progress=progress
            )
            policy = Mixed(depth=levels, size=result.stages["size-alone"])
            of_seeds.append(scores.of_policy(ground, policy))
        table.append(scores.row(ground, reward, of_seeds))
    return table


def main() -> None:
    config, title = study.parse(Config), "Rewards of the size policy"
    study.run_methods(config, "table2_rewards", title, rows, [paper.TABLE2])


if __name__ == "__main__":
    flags.run(main)
