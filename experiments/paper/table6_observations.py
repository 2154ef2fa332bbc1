"""Table 6: what the policies see.

    python -m experiments.paper.table6_observations --out runs/embedded   about 4 minutes on 2 cores

Rows as the paper has them: P = probabilities of the tree, D = levels so far, L = context length,
E = the draft's entropy; H = the draft's output, where the trace was recorded with it. More rows:
the best nodes sorted with their expected tokens, recent acceptance, the target's entropy at the
root. Same widths, same seeds; by default exact learning, which has the least noise of its own.
"""

import dataclasses
import functools

from experiments.report import paper
from experiments.studies import scores, study
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from experiments.studies.study import StudyFlags
from ltd_jax import flags
from ltd_jax.config import LearningConfig, ObservationConfig
from ltd_jax.presets import COMPARED_LEARNING, SORTED
from ltd_jax.workflow import Progress

SEEN = {
    "P+L": ObservationConfig(levels=False),
    "P+D": ObservationConfig(length=False),
    "P+D+L": ObservationConfig(),
    "P+D+L+E": ObservationConfig(entropy=True),
    "sorted": SORTED,
    "sorted+L": dataclasses.replace(SORTED, length=True),
    "sorted+recent": dataclasses.replace(SORTED, acceptance_ema=True),
    "sorted+E": dataclasses.replace(SORTED, entropy=True),
    "sorted+root": dataclasses.replace(SORTED, root_entropy=True),
    "everything": dataclasses.replace(
        SORTED, node_probs=True, acceptance_ema=True, entropy=True, root_entropy=True
    ),
}
NAME = "table6_observations"


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """What the policies see, and how they learn."""

    seen: tuple[str, ...] = tuple(SEEN)
    learning: LearningConfig = COMPARED_LEARNING


def variants(ground: Ground, config: Config) -> dict[str, ObservationConfig]:
    """The rows that were asked for and that the traces allow; UserError for an unknown name."""
    study.require_known("observation", config.seen, tuple(SEEN))
    asked = {name: SEEN[name] for name in config.seen}
    if ground.train.hidden is None:
        return asked
    return asked | {"P+D+L+H": ObservationConfig(hidden=ground.train.hidden.shape[-1])}


def rows(ground: Ground, config: Config, progress: Progress) -> list[Row]:
    """The baselines, then a row per observation."""
    table, store = scores.baselines(ground), study.open_store(config, NAME, ground)
    for name, seen in variants(ground, config).items():
        widths = dataclasses.replace(ground.widths, observation=seen)
        under = dataclasses.replace(ground, widths=widths)
        make = functools.partial(study.learned_row, under, name, config, progress)
        table.append(store.value(f"{name} {dataclasses.asdict(seen)}", make))
        progress("observations", len(table) / (len(config.seen) + 3))
    return table


def main() -> None:
    config = study.parse(Config)
    study.run_methods(config, NAME, "What the policies see", rows, [paper.TABLE6])


if __name__ == "__main__":
    flags.run(main)
