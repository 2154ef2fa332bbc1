"""Table 4: what each part of the method adds.

    python -m experiments.paper.table4_components --out runs/embedded     about 4 minutes on 2 cores

Without the depth policy: the size policy alone, at the levels of the best constant setting. Without
the size policy: the depth policy alone, at its size. Without iterative training: both as they
learned alone. LTD: after the alternation. In the paper the alternation adds 3 %.
"""

from experiments.report import paper
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from experiments.studies.study import StudyFlags
from ltd_jax import flags
from ltd_jax.config import LearningConfig
from ltd_jax.learning import alternate
from ltd_jax.learning.loop import TrainResult
from ltd_jax.policies.policy import Constant, Mixed, Policy
from ltd_jax.replay import optimum
from ltd_jax.workflow import Progress

METHODS = ("without_depth_policy", "without_size_policy", "without_iterative_training", "ltd")


def policies(ground: Ground, learning: LearningConfig, result: TrainResult) -> dict[str, Policy]:
    """All of METHODS from one training."""
    size, depth = (result.stages[f"{name}-alone"] for name in ("size", "depth"))
    best = optimum.best_constant(ground.train)
    constant = Constant(best.levels, alternate.fixed_size(ground.config, learning, best))
    methods = (
        Mixed(depth=constant, size=size),
        Mixed(depth=depth, size=constant),
        depth.replace(size=size.size),
        result.policy,
    )
    return dict(zip(METHODS, methods, strict=True))


def rows(ground: Ground, config: StudyFlags, progress: Progress) -> list[Row]:
    """The baselines, then a row per method."""
    of_seeds = [
        policies(
            ground, config.learning, grounds.learn(ground, config.stages, seed, progress=progress)
        )
        for seed in range(config.seeds)
    ]
    return scores.baselines(ground) + [
        scores.row(
            ground, method, [scores.of_policy(ground, learned[method]) for learned in of_seeds]
        )
        for method in METHODS
    ]


def main() -> None:
    config = study.parse(StudyFlags)
    study.run_methods(config, "table4_components", "Components", rows, [paper.TABLE4])


if __name__ == "__main__":
    flags.run(main)
