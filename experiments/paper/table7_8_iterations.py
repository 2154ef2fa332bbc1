"""Tables 7 and 8: how many turns the two policies need against each other.

    python -m experiments.paper.table7_8_iterations --out runs/embedded   about 4 minutes on 2 cores

iter0: both as they learned alone. Then turn by turn: iter1 the size policy, iter2 the depth policy,
iter3 the size policy. In the paper most is gained by the second or third turn.
"""

from experiments.report import paper
from experiments.studies import scores, study
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.learning.loop import TrainResult
from ltd_jax.policies.networks import Learned


def iterations(result: TrainResult) -> dict[str, Learned]:
    """Both policies after every turn, by the paper's names."""
    depth, size = (result.stages[f"{name}-alone"] for name in ("depth", "size"))
    turns = {
        name.split("-")[0]: policy
        for name, policy in result.stages.items()
        if name.startswith("iter")
    }
    return {"iter0": depth.replace(size=size.size), **turns}


def rows(study: Study[StudyFlags]) -> list[Row]:
    """The baselines, then a row per turn."""
    ground = study.ground
    by_seed = [iterations(result) for result in study.learn()]
    return scores.baselines(ground) + [
        scores.row(ground, turn, [scores.of_policy(ground, one[turn]) for one in by_seed])
        for turn in by_seed[0]
    ]


def main() -> None:
    config, papers = study.parse(StudyFlags), [paper.TABLE7, paper.TABLE8]
    study.run_methods("table7_8_iterations", config, rows, "Iterations", papers)


if __name__ == "__main__":
    flags.run(main)
