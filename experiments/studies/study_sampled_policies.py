"""Do policies that learn from sampled texts beat greedy-trained ones at temperature 1?

    python -m experiments.studies.study_sampled_policies --out runs/sampled-policies
    python -m experiments.studies.study_sampled_policies --out runs/tiny --smoke      shows that it runs

Records greedy and sampled texts with acceptance probabilities, measures this device at that
temperature, trains three kinds of policies, and replays all on sampled texts of the test prompts.
Writes OUT/study.json. Stopped, the same command goes on.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from experiments import command, quickstart
from experiments.command import SamplingFlags
from experiments.studies import sampled_texts


@dataclasses.dataclass(frozen=True)
class Config(quickstart.Config):
    """The quickstart's settings, at another temperature."""

    out: Path = Path("runs/sampled-policies")
    sampling: tyro.conf.OmitArgPrefixes[SamplingFlags] = SamplingFlags(temperature=1.0)
    repeats: int = 3  # trainings of each kind


def smoke(config: Config) -> Config:
    """A few prompts, decisions and one training of each kind."""
    return dataclasses.replace(quickstart.smoke(config), repeats=1)


def shown(rows: list[dict[str, Any]]) -> Table:
    """The table for the terminal."""
    table = Table(
        title="Sampled texts of the test prompts, by replay; tokens as expected and as drawn",
        caption="over best constant: with its 95 % interval by resampling texts",
    )
    for heading in ("policies", "seed", "tokens/s", "over best constant", "drawn"):
        table.add_column(heading, justify="left" if heading == "policies" else "right")
    for row in rows:
        mean, drawn = row["expected"], row["drawn"]
        table.add_row(
            row["policies"],
            str(row["seed"]),
            f"{mean['tokens_per_second']:.1f}",
            f"{mean['over_best_constant']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})",
            f"{drawn['over_best_constant']:.3f}",
        )
    return table


def main() -> None:
    config = command.parse(lambda preset: Config(**command.stage_settings(preset)), smoke)
    path = command.writable(config.out) / "study.json"
    console = Console(stderr=config.json)
    pair = command.load_pair(config, config.cycle)
    found = sampled_texts.study(pair, config, console)
    console.print(shown(found["rows"]))
    head = {"environment": config.environment, "pair": pair.fingerprint}
    summary = {"means": sampled_texts.means(found["rows"])}
    path.write_text(json.dumps(head | summary | found, indent=1) + "\n")
    if config.json:
        print(json.dumps(head | summary | found))
    console.print(f"Written: {path}")


if __name__ == "__main__":
    command.run(main)
