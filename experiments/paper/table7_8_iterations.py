"""Tables 7 and 8: how many turns the two policies need against each other.

    python -m experiments.paper.table7_8_iterations --out runs/embedded   about 4 minutes on 2 cores

iter0: both as they learned alone. Then turn by turn: iter1 the size policy, iter2 the depth policy,
iter3 the size policy. In the paper most is gained by the second or third turn.
"""

from experiments.report import paper
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from experiments.studies.study import StudyFlags
from ltd_jax import flags
from ltd_jax.learning.loop import TrainResult
from ltd_jax.policies.networks import Learned
from ltd_jax.workflow import Progress


def iterations(result: TrainResult) -> dict[str, Learned]:
    """Both policies after every turn, by the paper's names."""
    depth, size = (result.stages[f"{name}-alone"] for name in ("depth", "size"))
    turns = {
        name.split("-")[0]: policy
        for name, policy in result.stages.items()
        if name.startswith("iter")
    }
    return {"iter0": depth.replace(size=size.size), **turns}


def rows(ground: Ground, config: StudyFlags, progress: Progress) -> list[Row]:
    """The baselines, then a row per turn."""
    of_seeds = [
        iterations(grounds.learn(ground, config.stages, seed, progress=progress))
        for seed in range(config.seeds)
    ]
    return scores.baselines(ground) + [
        scores.row(ground, turn, [scores.of_policy(ground, learned[turn]) for learned in of_seeds])
        for turn in of_seeds[0]
    ]


def main() -> None:
    config, papers = study.parse(StudyFlags), [paper.TABLE7, paper.TABLE8]
    study.run_methods(config, "table7_8_iterations", "Iterations", rows, papers)


if __name__ == "__main__":
    flags.run(main)
