"""Common to all studies of learning: their flags, their course, where results go.

Every training in the paper's order is kept under OUT/studies/TABLE/REWARD-SETTINGS/seed-N, so that
a study finds what another one trained.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
from matplotlib.figure import Figure
from rich.console import Console, RenderableType

from experiments import output
from experiments.output import ResultFlags
from experiments.report import paper, plots, tables
from experiments.report.paper import PaperTable
from experiments.studies import ground as grounds
from experiments.studies import scores, seeds
from experiments.studies.ground import Ground
from ltd_jax import flags
from ltd_jax.config import LearningConfig, PolicyConfig, Reward
from ltd_jax.files import ResumableStore
from ltd_jax.learning import alternate, loop
from ltd_jax.learning.loop import TrainResult
from ltd_jax.presets import EMBEDDED_POLICY, LEARNING
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import Progress

Row = dict[str, Any]  # JSON
CURVE = "curve"  # what of a row is drawn only, and not written

STUDY_LEARNING = dataclasses.replace(
    LEARNING,
    algorithm="alternate",
    size=dataclasses.replace(LEARNING.size, total_steps=200_000),
    depth=dataclasses.replace(LEARNING.depth, total_steps=400_000),
    joint=LearningConfig().joint,
)  # the paper's schedule in a size that five seeds of it take minutes on two cores


@dataclasses.dataclass(frozen=True)
class StudyFlags(ResultFlags):
    """One --out feeds all studies: what is recorded or trained there is found again."""

    latency: str | None = None  # a shipped latency table or a file; None = measure this device
    seeds: int = 5
    widths: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = STUDY_LEARNING
    profiling: ProfileConfig = ProfileConfig()


Flags = TypeVar("Flags", bound=StudyFlags)


def parse(kind: type[Flags]) -> Flags:
    """The command line of a study; for another pair it starts from that pair's networks."""
    config = flags.parse(lambda preset: kind(widths=preset.policy))
    flags.at_least_one(config, "seeds")
    return config


@dataclasses.dataclass(frozen=True, eq=False)
class Study(Generic[Flags]):
    """A study under way."""

    config: Flags
    grounds: Sequence[Ground]  # several where widths of the beam are compared
    progress: Progress

    @property
    def ground(self) -> Ground:
        """The only one, or the first."""
        return self.grounds[0]

    def learn(self, *, reward: Reward | None = None, last: str | None = None) -> list[TrainResult]:
        """The paper's order of learning with every seed, or what is left to do of it.

        Args:
          reward: None = the flags' own.
          last: phase to end with; None = all.
        """
        config, ground = self.config, self.ground
        reward = reward or config.learning.reward
        learning = dataclasses.replace(config.learning, algorithm="alternate", reward=reward)
        subject = repr((dataclasses.replace(learning, seed=0), ground.widths, ground.config))
        name = f"{reward}-{hashlib.sha256(subject.encode()).hexdigest()[:8]}"
        kept = config.out / "studies" / ground.origin["latency"] / name

        def train(seed: int) -> TrainResult:
            title = f"{reward} reward, seed {seed}"
            return alternate.train(
                ground.splits,
                ground.widths,
                dataclasses.replace(learning, seed=seed),
                folder=kept / f"seed-{seed}",
                provenance=ground.origin,
                progress=lambda point, share: self.progress(title, share),
                last=last,
            )

        return [train(seed) for seed in range(config.seeds)]

    def learned_row(self, name: str, ground: Ground) -> Row:
        """The row of policies that learn on a ground in the flags' way, over all seeds."""
        trained = seeds.train(ground, self.config.learning, self.config.seeds, self.progress)
        return scores.row(ground, name, [scores.of_policy(ground, one) for one in trained.policies])

    def open_store(self, name: str) -> ResumableStore:
        """Rows of NAME that a stopped command of the same settings left; `run` ends with them."""
        config, ground = self.config, self.ground
        settings = loop.resume_settings(ground.splits, ground.widths, config.learning)
        settings |= {"seeds": config.seeds, "jax": jax.__version__}
        return ResumableStore(config.folder / f"{name}.partial", settings)


def stand(config: StudyFlags, progress: Progress) -> list[Ground]:
    """Records and measures what is missing."""
    pair = flags.load_pair(config, config.cycle)
    return [grounds.ground(pair, config.stages, config.latency, progress)]


def run(
    name: str,
    config: Flags,
    compute: Callable[[Study[Flags]], Sequence[Row]],
    show: Callable[[Sequence[Row]], RenderableType],
    *,
    stand: Callable[[Flags, Progress], Sequence[Ground]] = stand,
    papers: Sequence[Any] = (),
    draw: Callable[[Sequence[Row]], Figure] | None = None,
) -> None:
    """A whole study: rows are computed, shown in the terminal, written as NAME.json and NAME.png.

    Args:
      papers: the paper's rows, for the JSON.
    """
    started, console = time.monotonic(), Console()
    for folder in (config.out, config.folder):
        flags.writable(folder)
    with flags.progress_bars(console) as progress:
        study = Study(config, stand(config, progress), progress)
        rows = compute(study)
    console.print(show(rows))
    content = {
        "ground": study.ground.origin,
        "best_constant": study.ground.best._asdict(),
        "seeds": config.seeds,
        "rows": [{key: row[key] for key in row if key != CURVE} for row in rows],
        "paper": list(papers),
        "seconds": time.monotonic() - started,
    }
    png = None if draw is None else plots.encode(draw(rows))
    output.write(config.folder, name, config, content, png)
    (config.folder / f"{name}.partial").unlink(missing_ok=True)


def run_methods(
    name: str,
    config: Flags,
    compute: Callable[[Study[Flags]], Sequence[Row]],
    title: str,
    papers: Sequence[PaperTable],
) -> None:
    """A study whose rows are methods (`scores.row`), as some tables of the paper have them."""
    show = lambda rows: tables.study(title, rows, papers)
    run(name, config, compute, show, papers=paper.as_json(papers))
