"""Table 2: which reward the size policy learns best from.

    python -m experiments.paper.table2_rewards --out runs/embedded        about 3 minutes on 2 cores

The size policy learns alone, with random levels, and decodes at the levels of the best constant
setting. The paper's rewards: accepted tokens, time, throughput (its own, "paper"); here also
"average", committed - throughput * seconds. In the paper throughput wins by far.
"""

import dataclasses

from experiments.report import paper
from experiments.studies import scores, study
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.config import Reward
from ltd_jax.policies.policy import Mixed
from ltd_jax.replay import optimum

ALONE = "size-alone"


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which rewards."""

    rewards: tuple[Reward, ...] = ("accepted", "time", "paper", "average")


def rows(study: Study[Config]) -> list[Row]:
    """The baselines, then a row per reward."""
    ground = study.ground
    constant = optimum.best_constant(ground.train).policy
    table = scores.baselines(ground)
    for reward in study.config.rewards:
        results = study.learn(reward=reward, last=ALONE)
        policies = [Mixed(depth=constant, size=result.stages[ALONE]) for result in results]
        table.append(scores.row(ground, reward, [scores.of_policy(ground, p) for p in policies]))
    return table


def main() -> None:
    config, title = study.parse(Config), "Rewards of the size policy"
    study.run_methods("table2_rewards", config, rows, title, [paper.TABLE2])


if __name__ == "__main__":
    flags.run(main)
