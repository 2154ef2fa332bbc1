"""What the experiments on learning share: their flags, what they stand on, where results go."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro
from rich.console import Console

from experiments import command
from experiments.command import PairFlags
from experiments.studies import comparing, scores
from experiments.studies import ground as grounds
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from ltd_jax import presets
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.files import ResumableStore, replacing
from ltd_jax.learning import loop
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_POLICY, STUDY_LEARNING
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import QuestionFlags


@dataclasses.dataclass(frozen=True)
class StudyFlags(PairFlags):
    """One --out feeds all experiments: what is recorded or trained there is found again."""

    out: Path = Path("runs/embedded")
    results: Path | None = None  # folder of the numbers and pictures; None = OUT/results
    latency: str | None = None  # a shipped latency table or a file; None = measure this device
    seeds: int = 5
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    cycle: CycleConfig = EMBEDDED_CYCLE
    policy: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = STUDY_LEARNING
    measure: ProfileConfig = ProfileConfig()

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"--seeds is {self.seeds} but must be at least 1.")

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.out / "results" if self.results is None else self.results


Flags = TypeVar("Flags", bound=StudyFlags)


def parse(flags: type[Flags]) -> Flags:
    """The command line of an experiment; for another pair it starts from that pair's preset."""
    return command.parse(
        lambda preset: (
            flags()
            if preset is presets.EMBEDDED
            else flags(**command.stage_settings(preset) | {"learning": flags.learning})
        )
    )


def stand(config: StudyFlags, console: Console) -> Ground:
    """Records and measures what is missing."""
    command.writable(config.out)
    command.writable(config.folder)
    pair = command.load_pair(config, config.cycle)
    return grounds.ground(pair, config, config.latency, console)


def learned_row(under: Ground, name: str, config: StudyFlags, console: Console) -> Row:
    """The row of policies that learn on a ground, over all seeds."""
    trained = comparing.train(under, config.learning, config.seeds, console)
    return scores.row(under, name, [scores.of_policies(under, each) for each in trained.params])


def kept(config: StudyFlags, name: str, here: Ground) -> ResumableStore:
    """Rows of NAME that a stopped command of the same settings left; `write` ends with them."""
    settings = loop.resume_settings(here.lessons, here.cycle, here.policy, config.learning)
    settings |= {"seeds": config.seeds, "jax": jax.__version__}
    return ResumableStore(_partial_file(config, name), settings, is_numeric=False)


def _partial_file(config: StudyFlags, name: str) -> Path:
    return config.folder / f"{name}.partial"


def write(
    config: StudyFlags,
    name: str,
    here: Ground,
    rows: Sequence[Any],
    paper: Sequence[Any],
    started: float,
    picture: bytes | None = None,
) -> Path:
    """Writes NAME.json, and NAME.png where there is a picture; returns the JSON's path.

    Args:
      started: `time.monotonic()` when the experiment began.
    """
    path = config.folder / f"{name}.json"
    document = {
        "schema": 1,
        "experiment": name,
        "environment": config.environment,
        "ground": here.origin,
        "best_constant": here.best._asdict(),
        "seeds": config.seeds,
        "rows": list(rows),
        "paper": list(paper),
        "seconds": time.monotonic() - started,
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    if picture is not None:
        with replacing(path.with_suffix(".png")) as temporary:
            temporary.write_bytes(picture)
    _partial_file(config, name).unlink(missing_ok=True)
    command.say(f"Results: {path}")
    return path
