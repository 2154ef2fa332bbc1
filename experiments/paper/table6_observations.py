"""Table 6: what the policies see.

    python -m experiments.paper.table6_observations --out runs/embedded      about 4 minutes on 2 cores

Rows as the paper has them: P = probabilities of the tree, D = levels so far, L = context length,
E = the draft's entropy; H = the draft's output, where the trace was recorded with it. More rows:
the best nodes sorted with their expected tokens, recent acceptance, the target's entropy at the
root. Same widths, same seeds; by default exact learning, which has the least noise of its own.
"""

import dataclasses
import functools
import time

from rich.console import Console

from experiments import command
from experiments.report import beside, paper
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from experiments.studies.study import StudyFlags
from ltd_jax.config import LearningConfig, ObservationConfig
from ltd_jax.files import UserError
from ltd_jax.presets import COMPARED_LEARNING, SORTED

SEEN = {
    "P+L": ObservationConfig(levels=False),
    "P+D": ObservationConfig(length=False),
    "P+D+L": ObservationConfig(),
    "P+D+L+E": ObservationConfig(entropy=True),
    "sorted": SORTED,
    "sorted+L": dataclasses.replace(SORTED, length=True),
    "sorted+recent": dataclasses.replace(SORTED, recent=True),
    "sorted+E": dataclasses.replace(SORTED, entropy=True),
    "sorted+root": dataclasses.replace(SORTED, certainty=True),
    "everything": dataclasses.replace(
        SORTED, nodes=True, recent=True, entropy=True, certainty=True
    ),
}
NAME = "table6_observations"


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """What the policies see, and how they learn."""

    seen: tuple[str, ...] = tuple(SEEN)
    learning: LearningConfig = COMPARED_LEARNING


def variants(here: Ground, config: Config) -> dict[str, ObservationConfig]:
    """The rows that were asked for and that the traces allow.

    Raises:
      UserError: there is no such row.
    """
    for name in config.seen:
        if name not in SEEN:
            raise UserError(f"There is no observation {name!r}; choose {', '.join(SEEN)}.")
    found = {name: SEEN[name] for name in config.seen}
    if here.train.hidden is None:
        return found
    channels = here.train.hidden.shape[-1]
    return found | {"P+D+L+H": ObservationConfig(hidden=channels)}


def rows(here: Ground, config: Config, console: Console) -> list[Row]:
    """The baselines, then a row per observation."""
    found, kept = scores.baselines(here), study.kept(config, NAME, here)
    for name, seen in variants(here, config).items():
        under = here._replace(policy=dataclasses.replace(here.policy, observation=seen))
        console.print(name)
        make = functools.partial(study.learned_row, under, name, config, console)
        found.append(kept.value(f"{name} {dataclasses.asdict(seen)}", make))
    return found


def main() -> None:
    config, console, started = study.parse(Config), Console(), time.monotonic()
    here = study.stand(config, console)
    found = rows(here, config, console)
    console.print(beside.table("What the policies see", found, [paper.TABLE6]))
    papers = beside.paper_rows([paper.TABLE6])
    study.write(config, NAME, here, found, papers, started)


if __name__ == "__main__":
    command.run(main)
