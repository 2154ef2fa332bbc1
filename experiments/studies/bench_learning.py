"""Decisions per second of the replay environments and of learning, and time to the same quality.

    python -m experiments.studies.bench_learning --out runs/quickstart --json bench.json
                           (20 minutes to an hour on 2 CPU cores: the paper's schedule)

Records and measures what OUT lacks. Then: the environments alone under random actions; training
with the paper's networks and budgets (A.2, A.3), in turns with Stable-Baselines3 on the same
environment where that library is installed; and both schedules, the paper's and the default, on
the same replay: seconds until the default one validates as well as the paper's does at its end.
`--learning.algorithm exact` (or joint) names what is compared with the paper's schedule, and
`--paper-share 0.05` shortens the paper's schedule. Stopped, the same command goes on.
"""

import dataclasses
import functools
import json
import statistics
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import tyro
from rich.console import Console

from experiments import command
from experiments.command import PairFlags
from experiments.studies import gym_replay, learning_speed
from experiments.studies.learning_speed import PAPER_LEARNING, PAPER_WIDTHS
from ltd_jax import learning as learners
from ltd_jax import workflow
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig, PPOConfig
from ltd_jax.learning.environment import Environment, ReplayData
from ltd_jax.learning.loop import Point, Splits
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_LEARNING, EMBEDDED_POLICY
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import QuestionFlags


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What is compared."""

    out: Path = Path("runs/embedded")
    json: Path | None = None  # None = OUT/bench_learning.json
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    cycle: CycleConfig = EMBEDDED_CYCLE
    policy: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = EMBEDDED_LEARNING
    measure: ProfileConfig = ProfileConfig()
    walks: int = 512  # environments side by side, alone
    steps: int = 256  # of each, per call
    rounds: int = 3  # turns of every measurement; the median counts
    paper_share: float = 1.0  # of the paper's decisions


def recorded(config: Config, console: Console) -> Splits:
    """The replays to learn and to validate on."""
    pair = command.load_pair(config, config.cycle)
    traces = [
        workflow.load_or_record(pair, split, config, console) for split in ("train", "validation")
    ]
    table = workflow.load_or_profile(pair, config, console)
    return Splits(*[simulate.build(trace, table, config.cycle) for trace in traces])


def alone(config: Config, worlds: dict[str, Environment], data: ReplayData) -> dict[str, float]:
    """Decisions per second of each environment."""
    rates = {}
    for name, world in worlds.items():
        sizes = (config.walks, config.steps, config.rounds)
        rates[name] = learning_speed.alone(world, data, *sizes)
        command.say(f"environment alone, {name}: {rates[name]:,.0f} decisions/s")
    return rates


def side_by_side(
    config: Config, worlds: dict[str, Environment], data: ReplayData
) -> dict[str, dict[str, float]]:
    """Decisions per second of training with the paper's networks, and of Stable-Baselines3's."""
    found: dict[str, dict[str, float]] = {}
    for name, world in worlds.items():
        settings: PPOConfig = getattr(PAPER_LEARNING, name)
        calls = {"ours": learning_speed.training(name, world, PAPER_WIDTHS, settings, data)}
        if gym_replay.has_sb3():
            calls["sb3"] = gym_replay.training(name, config.cycle, settings, data.replay)
        for call in calls.values():  # compile and warm up
            call()
        turns = [
            {who: learning_speed.timed(call, settings.rollout) for who, call in calls.items()}
            for _ in range(config.rounds)
        ]
        for who in calls:
            rate = statistics.median(turn[who] for turn in turns)
            found.setdefault(who, {})[name] = rate
            command.say(f"training of {name}, {who}: {rate:,.0f} decisions/s")
    return found


def schedule(
    config: Config, name: str, replays: Splits, widths: PolicyConfig, learning: LearningConfig
) -> list[Point]:
    """The learning curve of a whole training, resumable."""

    def report(point: Point, share: float) -> None:
        command.say(f"{name} {share:4.0%} {point.stage}: {point.validation:.1f} tokens/s")

    folder = config.out / "bench_learning" / name
    learned = learners.train(
        replays, config.cycle, widths, learning, folder=folder, progress=report
    )
    return learned.curves


def rates(config: Config, replays: Splits) -> dict[str, Any]:
    """Decisions per second: over the paper's mix of both policies' decisions, and of each."""
    best = optimum.best_constant(replays.train, config.cycle)
    data = ReplayData(replays.train, (), jnp.float32(best.tokens_per_second))
    worlds = learning_speed.worlds(replays.train, config.cycle, PAPER_LEARNING.reward)
    environments = alone(config, worlds, data)
    training = side_by_side(config, worlds, data)
    mean = functools.partial(learning_speed.by_schedule, learning=PAPER_LEARNING)
    return {
        "environment_decisions_per_second": mean(environments),
        "training_decisions_per_second": mean(training["ours"]),
        "sb3_training_decisions_per_second": mean(training["sb3"]) if "sb3" in training else None,
        "by_policy": {"environment": environments, **training},
    }


def qualities(config: Config, replays: Splits) -> dict[str, Any]:
    """Both schedules' times to the quality that the paper's ends with."""
    ours = schedule(config, config.learning.algorithm, replays, config.policy, config.learning)
    paper = learning_speed.shortened(PAPER_LEARNING, config.paper_share)
    theirs = schedule(config, "paper", replays, PAPER_WIDTHS, paper)
    return learning_speed.quality(theirs, ours) | {
        "default_decisions_per_second": learning_speed.whole_rate(ours),
        "paper_learning": dataclasses.asdict(paper),
        "paper_widths": dataclasses.asdict(PAPER_WIDTHS),
    }


def main() -> None:
    config = command.parse(lambda preset: Config(**command.stage_settings(preset)))
    command.at_least_one(config, "walks", "steps", "rounds")
    path = config.json or config.out / "bench_learning.json"
    for folder in (config.out, path.parent):
        command.writable(folder)
    replays = recorded(config, Console(stderr=True))
    names = {name: Path(getattr(config, name).name) for name in ("out", "target", "draft")}
    settings = dataclasses.replace(config, **names, json=None)
    record = (
        rates(config, replays)
        | qualities(config, replays)
        | {
            "positions": len(replays.train.remaining),
            "settings": dataclasses.asdict(settings),
            "provenance": config.environment,
        }
    )
    path.write_text(json.dumps(record, indent=1, default=str) + "\n")
    shown = [name for name in record if name.endswith(("per_second", "ratio"))]
    print(json.dumps({name: record[name] for name in shown}))


if __name__ == "__main__":
    command.run(main)
