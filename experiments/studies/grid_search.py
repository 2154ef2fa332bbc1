"""The best constant levels and size: all by replay, the best few checked live.

    python -m experiments.studies.grid_search --out runs/embedded            about 3 minutes on 2 CPU cores

A grid by --levels and --sizes (the paper's: levels 4 to 12, sizes 40 to 240 of its cycle). Records
and measures what OUT lacks; writes OUT/results/grid_search.json. Expected: taking the replay's best
loses less than 2 % against the best that was decoded.
"""

import dataclasses
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from experiments import command, output
from experiments.command import PairFlags
from experiments.studies import gridsearch
from ltd_jax import workflow
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_POLICY, Preset
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import QuestionFlags, Split


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """Which settings, on which questions."""

    out: Path = Path("runs/embedded")
    results: Path | None = None  # None = OUT/results
    levels: tuple[int, ...] = ()  # none = all
    sizes: tuple[int, ...] = ()  # none = all
    few: int = 5  # checked live
    split: Split = "validation"
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags(prompts=6)
    cycle: CycleConfig = EMBEDDED_CYCLE
    policy: PolicyConfig = EMBEDDED_POLICY
    measure: ProfileConfig = ProfileConfig()


def start(preset: Preset) -> Config:
    """The settings for a pair where no flag changes them."""
    return Config(cycle=preset.cycle, policy=preset.policy)


def main() -> None:
    config = command.parse(start)
    command.at_least_one(config, "few")
    command.writable(config.out)
    console = Console()
    grid = gridsearch.grid_of(config.levels, config.sizes, config.cycle)
    pair = command.load_pair(config, config.cycle)
    table = workflow.load_or_profile(pair, config, console)
    here = dataclasses.replace(config, out=config.out / "grid")
    replay = gridsearch.replay_of(pair, table, config.split, here, console)
    rows = gridsearch.rows_of(replay, config.cycle, grid)
    checked = gridsearch.check_live(pair, rows, config.few, config.split, here, console)
    agreement = gridsearch.agreement(checked)
    shown = Table(
        title=f"the best {len(checked)} of {len(rows)} constant settings",
        caption=f"The replay's best loses {100 * agreement['lost']:.1f} % against the live best; "
        f"tokens per second differ by at most {100 * agreement['worst']:.1f} %.",
    )
    for heading in ("levels", "size", "tokens/s by replay", "tokens/s live"):
        shown.add_column(heading, justify="right")
    for row in checked:
        said, live = row["predicted_tokens_per_second"], row["measured_tokens_per_second"]
        shown.add_row(str(row["levels"]), str(row["size"]), f"{said:.1f}", f"{live:.1f}")
    console.print(shown)
    content = {"rows": rows, "checked": checked, "agreement": agreement}
    output.write(config.results or config.out / "results", "grid_search", config, content)


if __name__ == "__main__":
    command.run(main)
