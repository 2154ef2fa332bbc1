"""What the studies of learning share: their flags, their course, where results go."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from matplotlib.figure import Figure
from rich.console import Console, RenderableType

from experiments import output
from experiments.report import paper, plots, tables
from experiments.report.paper import PaperTable
from experiments.studies import ground as grounds
from experiments.studies import scores, seeds
from experiments.studies.ground import Ground
from experiments.studies.scores import Row
from ltd_jax import flags
from ltd_jax.cli import StageFlags
from ltd_jax.config import LearningConfig, PolicyConfig
from ltd_jax.files import ResumableStore, UserError
from ltd_jax.learning import loop
from ltd_jax.presets import EMBEDDED_POLICY, STUDY_LEARNING
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import Progress


@dataclasses.dataclass(frozen=True)
class StudyFlags(StageFlags):
    """One --out feeds all studies: what is recorded or trained there is found again."""

    results: Path | None = None  # folder of the numbers and pictures; None = OUT/results
    latency: str | None = None  # a shipped latency table or a file; None = measure this device
    seeds: int = 5
    widths: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = STUDY_LEARNING
    profiling: ProfileConfig = ProfileConfig()

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.out / "results" if self.results is None else self.results


Flags = TypeVar("Flags", bound=StudyFlags)


def parse(kind: type[Flags]) -> Flags:
    """The command line of a study; for another pair it starts from that pair's networks."""
    config = flags.parse(lambda preset: kind(widths=preset.policy))
    flags.at_least_one(config, "seeds")
    return config


def stand(config: StudyFlags, progress: Progress) -> Ground:
    """Records and measures what is missing."""
    flags.writable(config.out)
    flags.writable(config.folder)
    pair = flags.load_pair(config, config.cycle)
    return grounds.ground(pair, config.stages, config.latency, progress=progress)


def run(
    config: Flags,
    name: str,
    compute: Callable[[Ground, Flags, Progress], Sequence[Any]],
    show: Callable[[Ground, Sequence[Any]], RenderableType],
    *,
    papers: Sequence[Any] = (),
    draw: Callable[[Sequence[Any]], Figure] | None = None,
) -> None:
    """A whole study: rows are computed, shown in the terminal, written as NAME.json and NAME.png.

    Args:
      papers: the paper's rows, for the JSON.
    """
    started, console = time.monotonic(), Console()
    with flags.progress_bars(console) as progress:
        ground = stand(config, progress)
        rows = compute(ground, config, progress)
    console.print(show(ground, rows))
    picture = None if draw is None else draw(rows)
    write(config, name, ground, rows, papers=papers, started=started, picture=picture)


def run_methods(
    config: Flags,
    name: str,
    title: str,
    compute: Callable[[Ground, Flags, Progress], Sequence[Row]],
    papers: Sequence[PaperTable],
) -> None:
    """A study whose rows are methods, as some tables of the paper have them."""
    show = lambda ground, rows: tables.study(title, rows, papers)
    run(config, name, compute, show, papers=paper.as_json(papers))


def learned_row(ground: Ground, name: str, config: StudyFlags, progress: Progress) -> Row:
    """The row of policies that learn on a ground, over all seeds."""
    trained = seeds.train(ground, config.learning, config.seeds, progress)
    return scores.row(ground, name, [scores.of_policy(ground, one) for one in trained.policies])


def open_store(config: StudyFlags, name: str, ground: Ground) -> ResumableStore:
    """Rows of NAME that a stopped command of the same settings left; `write` ends with them."""
    settings = loop.resume_settings(ground.splits, ground.widths, config.learning)
    settings |= {"seeds": config.seeds, "jax": jax.__version__}
    return ResumableStore(_partial_file(config, name), settings, is_numeric=False)


def _partial_file(config: StudyFlags, name: str) -> Path:
    return config.folder / f"{name}.partial"


def write(
    config: StudyFlags,
    name: str,
    ground: Ground,
    rows: Sequence[Any],
    *,
    papers: Sequence[Any] = (),
    started: float,
    picture: Figure | None = None,
) -> None:
    """Writes NAME.json, and NAME.png where there is a picture.

    Args:
      started: `time.monotonic()` when the study began.
    """
    content = {
        "ground": ground.origin,
        "best_constant": ground.best._asdict(),
        "seeds": config.seeds,
        "rows": list(rows),
        "paper": list(papers),
        "seconds": time.monotonic() - started,
    }
    png = None if picture is None else plots.encode(picture)
    output.write(config.folder, name, config, content, png)
    _partial_file(config, name).unlink(missing_ok=True)


def require_known(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError for a name that is not known."""
    for name in names:
        if name not in known:
            raise UserError(f"There is no {kind} {name!r}; choose {', '.join(known)}.")
