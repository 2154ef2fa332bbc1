"""Tables 7 and 8: how many turns the two policies need against each other.

    python -m experiments.paper.table7_8_iterations --out runs/embedded      about 4 minutes on 2 cores

iter0: both as they learned alone. Then turn by turn: iter1 the size policy, iter2 the depth policy,
iter3 the size policy. In the paper most is gained by the second or third turn.
"""

import time

from rich.console import Console

from experiments import command
from experiments.report import beside, paper
from experiments.studies import ground as grounds
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from experiments.studies.study import StudyFlags
from ltd_jax.learning.loop import TrainResult
from ltd_jax.policies.networks import LearnedParams


def iterations(learned: TrainResult) -> dict[str, LearnedParams]:
    """Both policies after every turn, by the paper's names."""
    alone = LearnedParams(
        depth=learned.stages["depth-alone"].depth, size=learned.stages["size-alone"].size
    )
    turns = {
        name.split("-")[0]: params
        for name, params in learned.stages.items()
        if name.startswith("iter")
    }
    return {"iter0": alone, **turns}


def rows(here: Ground, config: StudyFlags, console: Console) -> list[Row]:
    """The baselines, then a row per turn."""
    trained = [
        iterations(grounds.learn(here, config, seed, console)) for seed in range(config.seeds)
    ]
    return scores.baselines(here) + [
        scores.row(here, name, [scores.of_policies(here, found[name]) for found in trained])
        for name in trained[0]
    ]


def main() -> None:
    config, console, started = study.parse(StudyFlags), Console(), time.monotonic()
    here = study.stand(config, console)
    found = rows(here, config, console)
    console.print(beside.table("Iterations", found, [paper.TABLE7, paper.TABLE8]))
    papers = beside.paper_rows([paper.TABLE7, paper.TABLE8])
    study.write(config, "table7_8_iterations", here, found, papers, started)


if __name__ == "__main__":
    command.run(main)
