"""The paper's order of learning (Sec. 4): each policy alone, then one at a time against the other.

    size-alone     levels drawn at random; validated at the levels of the best constant setting
    depth-alone    one fixed size
    iter1-size     against the frozen depth policy, both as learned so far
    iter2-depth    against the frozen size policy
    iter3-size     ...

In: simulators to learn and to validate on, settings. Out: the policies of best validation
throughput and the curves. With a folder every phase leaves checkpoints, and the same call goes on
from them.
"""

import dataclasses
import itertools
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import loop
from ltd_jax.learning.environment import DepthEnvironment, EnvData, SizeEnvironment
from ltd_jax.learning.loop import CurvePoint, Progress, Splits, Stage, TrainResult
from ltd_jax.learning.ppo import PPO, PolicyName
from ltd_jax.policies.networks import ActorCritic, Learned
from ltd_jax.policies.policy import Constant, Mixed, Policy
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.optimum import BestConstant

ENVIRONMENTS: dict[PolicyName, type[SizeEnvironment] | type[DepthEnvironment]] = {
    "size": SizeEnvironment,
    "depth": DepthEnvironment,
}


class Phase(NamedTuple):
    """Which policy learns, and how."""

    name: str
    policy: PolicyName
    alone: bool  # or against the frozen other policy


def train(
    splits: Splits,
    widths: PolicyConfig,
    learning: LearningConfig,
    *,
    folder: Path | None = None,
    provenance: dict[str, Any] | None = None,
    progress: Progress = lambda point, share: None,
    mesh: Mesh | None = None,
    last: str | None = None,
) -> TrainResult:
    """Trains both policies up to the phase `last`, or goes on from checkpoints, bit for bit.

    All else as of `learning.train`; the share that `progress` is told is that of all decisions.
    """
    if folder is not None:
        loop.claim(folder, loop.resume_settings(splits, widths, learning))
    best = optimum.best_constant(splits.train)
    config = splits.train.config
    constant = Constant(best.levels, fixed_size(config, learning, best)).traced()
    algorithms = {
        name: PhasePPO(
            policy=name,
            widths=widths,
            environment=environment(config, learning.reward, widths.observation),
            settings=getattr(learning, name),
            validate_every=learning.validate_every,
            mesh=mesh,
        )
        for name, environment in ENVIRONMENTS.items()
    }
    untrained = Learned(depth=None, size=None, widths=widths)
    budgets = [algorithms[phase.policy].settings for phase in phases(learning)]
    made, all_decisions = 0, sum(budget.updates * budget.rollout for budget in budgets)
    learned: dict[PolicyName, ActorCritic] = {}
    policy = untrained
    stages: dict[str, Learned] = {}
    curves: list[CurvePoint] = []
    for index, phase in enumerate(phases(learning, last)):
        frozen, other = (untrained, constant) if phase.alone else (policy, policy)
        draws_levels = phase.alone and phase.policy == "size"
        state, points = loop.run_stage(
            Stage(
                name=phase.name,
                algorithm=algorithms[phase.policy],
                key=jax.random.fold_in(jax.random.key(learning.seed), index),
                throughput=jnp.float32(best.tokens_per_second),
                data=EnvData(splits.train, None if draws_levels else other),
                validation=EnvData(splits.validation, other),
                params=learned.get(phase.policy),
            ),
            folder=folder,
            provenance=provenance,
            report=partial(_report, progress, made, all_decisions),
        )
        learned[phase.policy] = state.best
        stages[phase.name] = frozen.replace(**{phase.policy: state.best.actor})
        policy = policy.replace(**{phase.policy: state.best.actor})
        made += points[-1].decisions
        curves += points
    validation = state.best_validation
    if phase.alone and policy.depth is not None:  # it was validated with a constant beside it
        validation = simulate.throughput(simulate.run(splits.validation, policy))
    return TrainResult(policy, stages, curves, float(validation))


def _report(progress: Progress, made: int, all_decisions: int, point: CurvePoint) -> None:
    progress(point, (made + point.decisions) / all_decisions)


def phases(learning: LearningConfig, last: str | None = None) -> list[Phase]:
    """The order of learning, without running it; up to the phase `last`, None = all."""
    alone = [Phase("size-alone", "size", True), Phase("depth-alone", "depth", True)]
    order: tuple[PolicyName, ...] = ("size", "depth")
    numbered = zip(range(1, learning.alternations + 1), itertools.cycle(order))
    turns = alone + [Phase(f"iter{number}-{policy}", policy, False) for number, policy in numbered]
    names = [phase.name for phase in turns]
    return turns if last is None else turns[: names.index(last) + 1]


def fixed_size(config: CycleConfig, learning: LearningConfig, best: BestConstant) -> int:
    """Nodes verified while the depth policy learns alone: of two sizes equally near the smaller."""
    wanted = best.size if learning.depth_stage_size is None else learning.depth_stage_size
    return min(config.sizes, key=lambda size: abs(size - wanted))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhasePPO(PPO):
    """One policy by PPO, validated with the other one; learns on `EnvData`."""

    def validate(self, params: ActorCritic, validation: EnvData) -> jax.Array:
        alone = Learned(depth=None, size=None, widths=self.widths)
        assert validation.other is not None  # nothing is drawn at random where it counts
        parts: dict[str, Policy] = {"depth": validation.other, "size": validation.other}
        parts[self.policy] = alone.replace(**{self.policy: params.actor})
        return simulate.throughput(simulate.run(validation.simulator, Mixed(**parts)))
