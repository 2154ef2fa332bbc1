"""Table 6: what the policies see.

    python -m experiments.paper.table6_observations --out runs/embedded   about 4 minutes on 2 cores

Rows as the paper has them: P = probabilities of the tree, D = levels so far, L = context length,
E = the draft's entropy; H = the draft's output, where the trace was recorded with it. More rows:
the best nodes sorted with their expected tokens, recent acceptance, the target's entropy at the
root. Same widths, same seeds; by default exact learning, which has the least noise of its own.
"""

import dataclasses
from functools import partial

from experiments.report import paper
from experiments.studies import scores, study
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags
from ltd_jax.config import LearningConfig, ObservationConfig
from ltd_jax.files import UserError
from ltd_jax.presets import QUICK_LEARNING, SORTED

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
    """Observations to compare, and the way of learning."""

    seen: tuple[str, ...] = tuple(SEEN)
    learning: LearningConfig = QUICK_LEARNING


def rows(study: Study[Config]) -> list[Row]:
    """The baselines, then a row per observation that was asked for and that the traces allow.

    Raises:
      UserError: there is no such observation.
    """
    config, ground = study.config, study.ground
    for name in config.seen:
        if name not in SEEN:
            raise UserError(f"There is no observation {name!r}; choose {', '.join(SEEN)}.")
    observations = {name: SEEN[name] for name in config.seen}
    if ground.train.hidden is not None:
        observations["P+D+L+H"] = ObservationConfig(hidden=ground.train.hidden.shape[-1])
    table, store = scores.baselines(ground), study.open_store(NAME)
    for name, observation in observations.items():
        widths = dataclasses.replace(ground.widths, observation=observation)
        under = dataclasses.replace(ground, widths=widths)
        make = partial(study.learned_row, name, under)
        table.append(store.value(f"{name} {dataclasses.asdict(observation)}", make))
        study.progress("observations", (len(table) - 3) / len(observations))
    return table


def main() -> None:
    config, title = study.parse(Config), "What the policies see"
    study.run_methods(NAME, config, rows, title, [paper.TABLE6])


if __name__ == "__main__":
    flags.run(main)
