"""Find out what pays for a pair on this device, and write it down for generate and evaluate.

    python -m experiments.studies.autotune --out runs/tuned                    about 3 minutes on 2 cores
    python -m experiments.studies.autotune --target DIR --draft DIR --questions DIR --out runs/tuned
    python -m experiments.generate --settings runs/tuned/settings.json --prompt "..."

Records a few texts, measures the device, learns, and says in plain words: the best constant setting
and what it gives over EAGLE-3's default, what learned policies add, what an optimum would add, and
whether speculation pays at all at this length of context. OUT gets advice.json, advice.png and
settings.json, and all that train_policies leaves. Stopped at any point, the same command goes on.
"""

import dataclasses
import json
from pathlib import Path

import tyro
from rich.console import Console

from experiments import command
from experiments.command import PairFlags
from experiments.report import advice
from experiments.studies import autotune
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.files import UserError, replacing
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_POLICY, QUICK_LEARNING, Preset
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import QuestionFlags


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """How much to record, to measure and to learn."""

    out: Path = Path("runs/tuned")
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags(prompts=6, new_tokens=64)
    live_prompts: int = 3  # per task, decoded live at the end; 0 = none
    cycle: CycleConfig = EMBEDDED_CYCLE
    policy: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = QUICK_LEARNING
    measure: ProfileConfig = ProfileConfig(visits=4, policy_visits=30)
    json: bool = False  # print advice.json alone


def start(preset: Preset) -> Config:
    """A pair's own settings, but for what is measured and learned less of than elsewhere."""
    less, usual = Config(), command.stage_settings(preset)
    return Config(**usual | {"learning": less.learning, "measure": less.measure})


def main() -> None:
    config = command.parse(start)
    if config.live_prompts < 0:
        raise UserError(f"--live-prompts is {config.live_prompts} but must not be negative.")
    command.writable(config.out)
    console = Console(stderr=config.json)
    pair = command.load_pair(config, config.cycle)
    found = autotune.advise(pair, config, config.live_prompts, console)
    text, picture = json.dumps(found, indent=1), advice.picture(found)
    for name, content in (("advice.json", text.encode() + b"\n"), ("advice.png", picture)):
        with replacing(config.out / name) as temporary:
            temporary.write_bytes(content)
    for sentence in advice.sentences(found):
        console.print(sentence, highlight=False)
    console.print(f"{config.out / 'settings.json'} says so to generate and evaluate (--settings).")
    if config.json:
        print(text)


if __name__ == "__main__":
    command.run(main)
