"""Table 4: what each part of the method adds.

    python -m experiments.paper.table4_components --out runs/embedded        about 4 minutes on 2 cores

Without the depth policy: the size policy alone, at the levels of the best constant setting. Without
the size policy: the depth policy alone, at its size. Without iterative training: both as they
learned alone. LTD: after the alternation. In the paper the alternation adds 3 %.
"""

import time

from rich.console import Console

from experiments import command
from experiments.report import beside, paper
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row, Score
from experiments.studies.study import StudyFlags
from ltd_jax.config import LearningConfig
from ltd_jax.learning import alternate
from ltd_jax.learning.loop import TrainResult
from ltd_jax.policies import networks
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import optimum

METHODS = ("without_depth_policy", "without_size_policy", "without_iterative_training", "ltd")


def score_of(here: Ground, settings: LearningConfig, method: str, learned: TrainResult) -> Score:
    """One of METHODS from one training."""
    size, depth = (learned.stages[f"{name}-alone"] for name in ("size", "depth"))
    constant = optimum.best_constant(here.train, here.cycle)
    if method == "without_depth_policy":
        alone = networks.learned_size(here.cycle, here.policy, constant.levels)
        return scores.of_learned(here, alone, size, depth=False, size=True)
    if method == "without_size_policy":
        index = alternate.size_alone(here.cycle, settings, constant)
        alone = networks.learned_depth(here.cycle, here.policy, index)
        return scores.of_learned(here, alone, depth, depth=True, size=False)
    if method == "without_iterative_training":
        return scores.of_policies(here, LearnedParams(depth=depth.depth, size=size.size))
    return scores.of_policies(here, learned.params)


def rows(here: Ground, config: StudyFlags, console: Console) -> list[Row]:
    """The baselines, then a row per method."""
    trained = [grounds.learn(here, config, seed, console) for seed in range(config.seeds)]
    return scores.baselines(here) + [
        scores.row(
            here, method, [score_of(here, config.learning, method, learned) for learned in trained]
        )
        for method in METHODS
    ]


def main() -> None:
    config, console, started = study.parse(StudyFlags), Console(), time.monotonic()
    here = study.stand(config, console)
    found = rows(here, config, console)
    console.print(beside.table("Components", found, [paper.TABLE4]))
    papers = beside.paper_rows([paper.TABLE4])
    study.write(config, "table4_components", here, found, papers, started)


if __name__ == "__main__":
    command.run(main)
