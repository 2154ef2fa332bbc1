"""Decisions per second of the environments and of learning, and time to the same quality.

    python -m experiments.studies.bench_learning --out runs/quickstart --json bench.json
                           (20 minutes to an hour on 2 CPU cores: the paper's schedule)

Records and measures what OUT lacks. Then: the environments alone under random actions; training
with the paper's networks and budgets (A.2, A.3), in turns with Stable-Baselines3 on the same
environment where that library is installed; and both schedules, the paper's and the default, on
the same simulator: seconds until the default one validates as well as the paper's does at its end.
`--learning.algorithm exact` (or joint) names what is compared with the paper's schedule, and
`--paper-share 0.05` shortens the paper's schedule. Stopped, the same command goes on.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments.studies import gym_replay
from ltd_jax import flags, workflow
from ltd_jax import learning as trainings
from ltd_jax.cli import StageFlags
from ltd_jax.config import LearningConfig, PolicyConfig, PPOConfig
from ltd_jax.learning import alternate, loop
from ltd_jax.learning.environment import DepthEnvironment, EnvData, Environment, SizeEnvironment
from ltd_jax.learning.loop import CurvePoint, Splits
from ltd_jax.learning.ppo import PPO, PolicyName
from ltd_jax.presets import EMBEDDED_POLICY, LEARNING
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.replay.simulate import Simulator

PAPER_LEARNING, PAPER_WIDTHS = LearningConfig(), PolicyConfig()
ALMOST = 0.99  # of the paper's best validation


@dataclasses.dataclass(frozen=True)
class Config(StageFlags):
    """What is compared."""

    json: Path | None = None  # None = OUT/bench_learning.json
    widths: PolicyConfig = EMBEDDED_POLICY
    learning: LearningConfig = LEARNING
    profiling: ProfileConfig = ProfileConfig()
    walks: int = 512  # environments side by side, alone
    steps: int = 256  # of each, per call
    rounds: int = 3  # turns of every measurement; the median counts
    paper_share: float = 1.0  # of the paper's decisions


def main() -> None:
    config = flags.parse(lambda preset: Config(widths=preset.policy), description=__doc__)
    flags.at_least_one(config, "walks", "steps", "rounds")
    path = config.json or config.out / "bench_learning.json"
    for folder in (config.out, path.parent):
        flags.writable(folder)
    splits = record_splits(config)
    names: dict[str, Any] = {
        name: Path(getattr(config, name).name) for name in ("out", "target", "draft")
    }
    settings = dataclasses.replace(config, **names, json=None)
    results = (
        measure_rates(config, splits.train)
        | compare_schedules(config, splits)
        | {
            "positions": len(splits.train.tokens_left),
            "settings": dataclasses.asdict(settings) | {"cycle": dataclasses.asdict(config.cycle)},
            "provenance": config.environment,
        }
    )
    path.write_text(json.dumps(results, indent=1, default=str) + "\n")
    shown = [name for name in results if name.endswith(("per_second", "ratio"))]
    print(json.dumps({name: results[name] for name in shown}))


def record_splits(config: Config) -> Splits:
    """The simulators to learn and to validate on."""
    pair, stages = flags.load_pair(config, config.cycle), config.stages
    with flags.progress_bars(Console(stderr=True)) as progress:
        train, validation = (
            workflow.load_or_record(pair, stages, split, progress=progress)
            for split in ("train", "validation")
        )
        table = workflow.load_or_profile(pair, stages, progress=progress)
    cycle = pair.config.cycle
    return Splits(simulate.build(train, table, cycle), simulate.build(validation, table, cycle))


# Decisions per second


def measure_rates(config: Config, simulator: Simulator) -> dict[str, Any]:
    """Decisions per second: over the paper's mix of both policies' decisions, and of each."""
    alone: dict[str, float] = {}
    training: dict[str, dict[str, float]] = {}
    for name, (environment, data) in environments(simulator).items():
        alone[name] = environment_rate(environment, data, config.walks, config.steps, config.rounds)
        flags.say(f"environment alone, {name}: {alone[name]:,.0f} decisions/s")
        for library, rate in training_rates(name, environment, data, config.rounds).items():
            training.setdefault(library, {})[name] = rate
            flags.say(f"training of {name}, {library}: {rate:,.0f} decisions/s")
    mean = partial(rate_of_schedule, learning=PAPER_LEARNING)
    return {
        "environment_decisions_per_second": mean(alone),
        "training_decisions_per_second": mean(training["ours"]),
        "sb3_training_decisions_per_second": mean(training["sb3"]) if "sb3" in training else None,
        "by_policy": {"environment": alone, **training},
    }


def environments(simulator: Simulator) -> dict[PolicyName, tuple[Environment, EnvData]]:
    """Both policies' environments alone, with the paper's reward, and what they read.

    The size policy decides at random levels, the depth policy at the best constant's size.
    """
    best = optimum.best_constant(simulator).policy.traced()
    reward = PAPER_LEARNING.reward
    return {
        "size": (SizeEnvironment(simulator.config, reward), EnvData(simulator, None)),
        "depth": (DepthEnvironment(simulator.config, reward), EnvData(simulator, best)),
    }


def environment_rate(
    environment: Environment, data: EnvData, walks: int, steps: int, rounds: int
) -> float:
    """Decisions per second of an environment under random actions, median over the rounds."""
    run = lambda seed: _walk_at_random(environment, data, jax.random.key(seed), walks, steps)
    jax.block_until_ready(run(0))
    return statistics.median(timed(partial(run, seed), walks * steps) for seed in range(rounds))


@partial(jax.jit, static_argnames=("environment", "walks", "steps"))
def _walk_at_random(
    environment: Environment, data: EnvData, key: jax.Array, walks: int, steps: int
) -> jax.Array:
    """The sum of everything that learning would read, so that nothing is left out."""
    key_start, key_walk = jax.random.split(key)
    no_throughput = jnp.float32(0)  # the paper's reward does not read it

    def advance(carry: Any, key: jax.Array) -> tuple[Any, None]:
        states, total = carry
        key_action, key_step = jax.random.split(key)
        observation_BO = jax.vmap(environment.observe, (None, 0))(data, states)
        action_B = jax.random.randint(key_action, (walks,), 0, environment.action_count)
        keys_B = jax.random.split(key_step, walks)
        step = jax.vmap(environment.step, (None, 0, 0, None, 0))(
            data, states, action_B, no_throughput, keys_B
        )
        gained = step.reward + step.committed + step.seconds + step.terminated
        return (step.state, total + observation_BO.sum() + gained.sum()), None

    states = jax.vmap(environment.reset, (None, 0))(data, jax.random.split(key_start, walks))
    start = (states, jnp.float32(0.0))
    (_, total), _ = jax.lax.scan(advance, start, jax.random.split(key_walk, steps))
    return total


def training_rates(
    name: PolicyName, environment: Environment, data: EnvData, rounds: int
) -> dict[str, float]:
    """Decisions per second of training with the paper's networks, by library, in turns."""
    settings: PPOConfig = getattr(PAPER_LEARNING, name)
    updates = {"ours": ppo_update(name, environment, PAPER_WIDTHS, settings, data)}
    if gym_replay.has_sb3():
        updates["sb3"] = gym_replay.sb3_update(name, data, PAPER_WIDTHS, settings)
    for update in updates.values():  # compiles and warms up
        update()
    turns = [
        {library: timed(update, settings.rollout) for library, update in updates.items()}
        for _ in range(rounds)
    ]
    return {library: statistics.median(turn[library] for turn in turns) for library in updates}


class UnvalidatedPPO(PPO):
    """Updates alone: nothing is validated."""

    def validate(self, params: Any, validation: Any) -> jax.Array:
        return jnp.float32(0)


def ppo_update(
    name: PolicyName,
    environment: Environment,
    widths: PolicyConfig,
    settings: PPOConfig,
    data: EnvData,
) -> Callable[[], Any]:
    """One PPO update of a policy: a rollout and the epochs over it; gives its parameters."""
    ppo = UnvalidatedPPO(
        policy=name, widths=widths, environment=environment, settings=settings, validate_every=1
    )
    state = loop.init(ppo, jax.random.key(0), jnp.float32(0), data, None)

    def update() -> Any:
        nonlocal state
        state, _ = loop.advance(ppo, state, data, None)
        return state.params

    return update


def timed(work: Callable[[], Any], decisions: int) -> float:
    """Decisions per second of a call that makes so many."""
    began = time.perf_counter()
    jax.block_until_ready(work())
    return decisions / (time.perf_counter() - began)


def rate_of_schedule(rates: Mapping[str, float], learning: LearningConfig) -> float:
    """Decisions per second over a schedule's decisions of each policy."""
    decisions = dict.fromkeys(rates, 0)
    for phase in alternate.phases(learning):
        settings = getattr(learning, phase.policy)
        decisions[phase.policy] += settings.updates * settings.rollout
    return sum(decisions.values()) / sum(decisions[name] / rates[name] for name in rates)


# Time to the same quality


def compare_schedules(config: Config, splits: Splits) -> dict[str, Any]:
    """Both schedules' times to the quality that the paper's ends with."""
    default = train(config, config.learning.algorithm, splits, config.widths, config.learning)
    shorter = shorten(PAPER_LEARNING, config.paper_share)
    paper = train(config, "paper", splits, PAPER_WIDTHS, shorter)
    return time_to_quality(paper, default) | {
        "default_decisions_per_second": rate_of_training(default),
        "paper_learning": dataclasses.asdict(shorter),
        "paper_widths": dataclasses.asdict(PAPER_WIDTHS),
    }


def train(
    config: Config, name: str, splits: Splits, widths: PolicyConfig, learning: LearningConfig
) -> list[CurvePoint]:
    """The learning curve of a whole training, resumable."""

    def report(point: CurvePoint, share: float) -> None:
        flags.say(f"{name} {share:4.0%} {point.stage}: {point.validation:.1f} tokens/s")

    folder = config.out / "bench_learning" / name
    return trainings.train(splits, widths, learning, folder=folder, progress=report).curves


def shorten(learning: LearningConfig, share: float) -> LearningConfig:
    """A share of a schedule's decisions."""
    budget = lambda settings: dataclasses.replace(
        settings, total_steps=max(1, round(share * settings.total_steps))
    )
    return dataclasses.replace(learning, size=budget(learning.size), depth=budget(learning.depth))


def time_to_quality(paper: Sequence[CurvePoint], default: Sequence[CurvePoint]) -> dict[str, Any]:
    """Seconds until the default schedule validates as well as the paper's best at its end.

    A best of many noisy validations is a matter of luck in its last per mille: seconds of both
    schedules to `ALMOST` of it say more.
    """
    end = [point.validation for point in paper if point.stage == paper[-1].stage]
    wanted, paper_seconds = max(end), seconds_of(paper)[-1]
    reached = seconds_until(default, wanted)
    return {
        "time_to_quality_ratio": None if reached is None else paper_seconds / reached,
        "paper_seconds": paper_seconds,
        "paper_validation": wanted,
        "default_seconds": reached,
        "default_validation": max(point.validation for point in default),
        "almost": ALMOST,
        "almost_seconds": {
            "paper": seconds_until(paper, ALMOST * wanted),
            "default": seconds_until(default, ALMOST * wanted),
        },
    }


def seconds_of(curve: Sequence[CurvePoint]) -> list[float]:
    """Seconds since the beginning of the first stage, at every point of all stages."""
    seconds, before, stage_seconds = [], 0.0, 0.0
    for last, point in zip([curve[0], *curve], curve, strict=False):
        before += stage_seconds if point.stage != last.stage else 0.0
        stage_seconds = point.seconds
        seconds.append(before + point.seconds)
    return seconds


def seconds_until(curve: Sequence[CurvePoint], wanted: float) -> float | None:
    """Seconds until a schedule validates so well; None if it never does."""
    reached = zip(seconds_of(curve), curve, strict=True)
    return next((seconds for seconds, point in reached if point.validation >= wanted), None)


def rate_of_training(curve: Sequence[CurvePoint]) -> float:
    """Decisions per second of a whole training, compiling and validating included."""
    decisions = {point.stage: point.decisions for point in curve}  # the last point's
    return sum(decisions.values()) / seconds_of(curve)[-1]


if __name__ == "__main__":
    flags.run(main)
