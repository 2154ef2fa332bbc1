"""Table 4: what each part of the method adds.

    python -m experiments.paper.table4_components --out runs/embedded     about 4 minutes on 2 cores

Without the depth policy: the size policy alone, at the levels of the best constant setting. Without
the size policy: the depth policy alone, at its size. Without iterative training: both as they
learned alone. LTD: after the alternation. In the paper the alternation adds 3 %.
"""

from experiments.paper.table7_8_iterations import iterations
from experiments.report import paper
from experiments.studies import scores, study
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.learning import alternate
from ltd_jax.learning.loop import TrainResult
from ltd_jax.policies.policy import Constant, Mixed, Policy
from ltd_jax.replay import optimum

METHODS = ("without_depth_policy", "without_size_policy", "without_iterative_training", "ltd")


def policies(result: TrainResult, constant: Constant) -> dict[str, Policy]:
    """All of METHODS from one training, and the constant that stands in for a policy."""
    size, depth = (result.stages[f"{name}-alone"] for name in ("size", "depth"))
    methods = (
        Mixed(depth=constant, size=size),
        Mixed(depth=depth, size=constant),
        iterations(result)["iter0"],
        result.policy,
    )
    return dict(zip(METHODS, methods, strict=True))


def rows(study: Study[StudyFlags]) -> list[Row]:
    """The baselines, then a row per method."""
    ground = study.ground
    best = optimum.best_constant(ground.train)
    size = alternate.fixed_size(ground.config, study.config.learning, best)
    by_seed = [policies(result, Constant(best.levels, size)) for result in study.learn()]
    return scores.baselines(ground) + [
        scores.row(ground, method, [scores.of_policy(ground, one[method]) for one in by_seed])
        for method in METHODS
    ]


def main() -> None:
    config = study.parse(StudyFlags)
    study.run_methods("table4_components", config, rows, "Components", [paper.TABLE4])


if __name__ == "__main__":
    flags.run(main)
