"""How fast learning is: environments alone, PPO updates, seconds to the same quality.

In: replays, configs, learning curves. Out: decisions per second and seconds, medians over rounds.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig, PPOConfig, Reward
from ltd_jax.learning import alternate, environment, ppo
from ltd_jax.learning.environment import Environment, ReplayData
from ltd_jax.learning.loop import Point
from ltd_jax.learning.ppo import Learner
from ltd_jax.replay import optimum
from ltd_jax.replay.simulate import Simulator

PAPER_LEARNING, PAPER_WIDTHS = LearningConfig(), PolicyConfig()
ALMOST = 0.99  # of the paper's best validation


def worlds(replay: Simulator, config: CycleConfig, reward: Reward) -> dict[str, Environment]:
    """The environments of both policies alone; the depth policy's at the best constant's size."""
    best = optimum.best_constant(replay, config)
    return {
        "size": environment.size_environment(config, reward, "random"),
        "depth": environment.depth_environment(config, reward, config.sizes.index(best.size)),
    }


def by_schedule(rates: dict[str, float], learning: LearningConfig) -> float:
    """Decisions per second over a schedule's decisions of each policy."""
    decisions = dict.fromkeys(rates, 0)
    for turn in alternate.phases(learning):
        settings = getattr(learning, turn.policy)
        decisions[turn.policy] += settings.updates * settings.rollout
    return sum(decisions.values()) / sum(decisions[name] / rates[name] for name in rates)


@functools.partial(jax.jit, static_argnames=("world", "walks", "steps"))
def wander(world: Environment, data: ReplayData, key: jax.Array, walks: int, steps: int) -> Any:
    """Random actions; everything that learning reads is summed, so that nothing is left out."""
    key_start, key_walk = jax.random.split(key)

    def advance(carry: Any, key: jax.Array) -> tuple[Any, None]:
        states, total = carry
        key_action, key_step = jax.random.split(key)
        seen_BO = jax.vmap(world.observe, (None, 0))(data, states)
        action_B = jax.random.randint(key_action, (walks,), 0, world.action_count)
        keys_B = jax.random.split(key_step, walks)
        step = jax.vmap(world.step, (None, 0, 0, 0))(data, states, action_B, keys_B)
        gained = step.reward + step.committed + step.seconds + step.terminated
        return (step.state, total + seen_BO.sum() + gained.sum()), None

    reset = jax.vmap(world.reset, (None, 0))
    states = reset(data, jax.random.split(key_start, walks))
    return jax.lax.scan(advance, (states, 0.0), jax.random.split(key_walk, steps))[0][1]


def alone(world: Environment, data: ReplayData, walks: int, steps: int, rounds: int) -> float:
    """Decisions per second of an environment under random actions, median over the rounds."""
    run = functools.partial(wander, world, data, walks=walks, steps=steps)
    jax.block_until_ready(run(jax.random.key(0)))
    call = lambda key: functools.partial(run, jax.random.key(key))
    return statistics.median(timed(call(key), walks * steps) for key in range(rounds))


def timed(work: Callable[[], Any], decisions: int) -> float:
    """Decisions per second of a call that makes so many."""
    began = time.perf_counter()
    jax.block_until_ready(work())
    return decisions / (time.perf_counter() - began)


def training(
    name: str, world: Environment, widths: PolicyConfig, settings: PPOConfig, data: ReplayData
) -> Callable[[], Any]:
    """One PPO update of a policy: a rollout and the epochs over it."""
    actor, critic = (getattr(widths, f"{name}_{part}") for part in ("actor", "critic"))
    learner = Learner(world, settings, actor, critic, lambda actor, validation: jnp.float32(0))
    state = [ppo.init(learner, jax.random.key(0), data, None)]

    def update() -> Any:
        state[0], _ = ppo.run_updates(learner, state[0], data, None, 1)
        return state[0].params

    return update


def totals(curve: Sequence[Point]) -> list[tuple[float, float]]:
    """(seconds since the beginning, validation) at every point of all stages."""
    rows, before, stage_seconds = [], 0.0, 0.0
    for last, point in zip([curve[0], *curve], curve, strict=False):
        before += stage_seconds if point.stage != last.stage else 0.0
        stage_seconds = point.seconds
        rows.append((before + point.seconds, point.validation))
    return rows


def quality(paper: Sequence[Point], default: Sequence[Point]) -> dict[str, Any]:
    """Seconds until the default schedule validates as well as the paper's best at its end.

    A best of many noisy validations is a matter of luck in its last per mille: seconds of both
    schedules to `ALMOST` of it say more.
    """
    end = [point.validation for point in paper if point.stage == paper[-1].stage]
    wanted, paper_seconds = max(end), totals(paper)[-1][0]
    reached = _first(default, wanted)
    almost = [_first(curve, ALMOST * wanted) for curve in (paper, default)]
    return {
        "time_to_quality_ratio": None if reached is None else paper_seconds / reached,
        "paper_seconds": paper_seconds,
        "paper_validation": wanted,
        "default_seconds": reached,
        "default_validation": max(validation for _, validation in totals(default)),
        "almost": ALMOST,
        "almost_seconds": dict(zip(("paper", "default"), almost, strict=True)),
    }


def _first(curve: Sequence[Point], wanted: float) -> float | None:
    """Seconds until a schedule validates so well; None if it never does."""
    return next((seconds for seconds, validation in totals(curve) if validation >= wanted), None)


def whole_rate(curve: Sequence[Point]) -> float:
    """Decisions per second of a whole training, compiling and validating included."""
    last = {point.stage: point.decisions for point in curve}
    return sum(last.values()) / totals(curve)[-1][0]


def shortened(learning: LearningConfig, share: float) -> LearningConfig:
    """A share of a schedule's decisions."""
    budget = lambda settings: dataclasses.replace(
        settings, total_steps=max(1, round(share * settings.total_steps))
    )
    return dataclasses.replace(learning, size=budget(learning.size), depth=budget(learning.depth))
