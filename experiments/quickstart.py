"""The whole way on a pair: record, measure, search, train, decode, compare, report.

    python -m experiments.quickstart --out runs/quickstart        6 to 10 minutes on 2 CPU cores
    python -m experiments.quickstart --pair smollm2 --prompts 14 --new-tokens 96 \
      --out runs/quickstart-real                                  20 to 25 minutes

Writes report.html (start there), report.json and the plots. Stopped at any point, the same command
goes on from there. `--smoke` runs everything in a tiny size, but for what other flags say; `--json`
prints the report.
"""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from experiments import comparison, report
from experiments.report import tables
from ltd_jax import flags, presets
from ltd_jax.cli import StageFlags
from ltd_jax.config import ExactConfig, LearningConfig, PolicyConfig
from ltd_jax.presets import EMBEDDED_POLICY, LEARNING, Preset
from ltd_jax.replay.profile import ProfileConfig


@dataclasses.dataclass(frozen=True)
class Config(StageFlags):
    """Settings of all stages."""

    out: Path = Path("runs/quickstart")
    smoke: bool = False  # a few prompts, a few decisions: shows that everything runs
    widths: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = LEARNING
    profiling: ProfileConfig = ProfileConfig()
    json: bool = False


def start(preset: Preset) -> Config:
    """The settings for a target where no flag changes them."""
    return Config(widths=preset.policy)


Flags = TypeVar("Flags", bound=Config)


def smoke(config: Flags) -> Flags:
    """The same stages in a size that takes a minute or two."""
    short = {"total_steps": 2048, "environments": 32, "rollout": 1024, "minibatch": 256}
    learning = config.learning
    return dataclasses.replace(
        config,
        asked=dataclasses.replace(config.asked, new_tokens=24, prompts=1),
        shapes=dataclasses.replace(config.shapes, max_levels=2, sizes=(0, 2), short_catch_ups=()),
        learning=dataclasses.replace(
            learning,
            size=dataclasses.replace(learning.size, **short),
            depth=dataclasses.replace(learning.depth, **short),
            joint=dataclasses.replace(learning.joint, **short),
            exact=ExactConfig(updates=2, environments=16, cycles=4, steps=2, minibatch=32),
            alternations=1,
            validate_every=1,
        ),
        profiling=ProfileConfig(cycles=1, visits=3, policy_visits=2),
    )


def main() -> None:
    config = flags.parse(start, small=smoke)
    flags.writable(config.out)
    console = Console(stderr=config.json)
    pair = flags.load_pair(config, config.cycle)
    with flags.progress_bars(console) as progress:
        compared = comparison.compare(pair, config.stages, progress)
    content, figures = comparison.report_of(compared), comparison.figures_of(compared)
    folder = shlex.quote(str(config.out))
    is_chat = not presets.is_embedded(pair.config.target)
    prompt = "'Why is the sky blue?'" if is_chat else "'def read_lines(path):'"
    sampling = pair.config.sampling
    page = report.write(
        content,
        figures,
        config.out,
        sample=f"{len(compared.prompts.prompts)} prompts of {len(compared.prompts.tasks)} tasks "
        f"({', '.join(compared.prompts.tasks)}), {config.asked.new_tokens} new tokens each, "
        f"temperature {sampling.temperature:g}",
        next_commands=(
            f"ltd generate --policy {folder} --prompt {prompt}",
            f"ltd bench --policy {folder}",
        ),
    )
    report.headline_picture(content, config.out / "headline.png")
    if config.json:
        print(json.dumps(content))
    console.print(tables.report(content))
    console.print(f"Report: {page}")
    flags.say(f"Next: ltd generate --policy {folder} --compare --prompt {prompt}")


if __name__ == "__main__":
    flags.run(main)
