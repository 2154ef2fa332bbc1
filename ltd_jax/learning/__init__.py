"""Learning on the simulator: the paper's order, both policies jointly, or with exact gradients.

environment   the decision process          loop       the training loop of all algorithms
ppo           one policy by PPO             alternate  the paper's order of learning (Sec. 4)
joint         both policies by PPO          exact      both by expected policy gradients
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ltd_jax.config import LearningConfig, PolicyConfig
from ltd_jax.learning import alternate, environment, loop
from ltd_jax.learning.exact import Exact
from ltd_jax.learning.joint import Joint
from ltd_jax.learning.loop import CurvePoint, Progress, Splits, Stage, TrainResult, split
from ltd_jax.presets import EMBEDDED_POLICY, QUICK_LEARNING
from ltd_jax.replay import optimum
from ltd_jax.replay.simulate import Simulator

__all__ = ["CurvePoint", "Progress", "Splits", "TrainResult", "split", "train"]

ALGORITHMS: dict[str, type[Joint] | type[Exact]] = {"joint": Joint, "exact": Exact}


def train(
    data: Splits | Simulator,
    widths: PolicyConfig = EMBEDDED_POLICY,
    learning: LearningConfig = QUICK_LEARNING,
    *,
    folder: Path | None = None,
    provenance: dict[str, Any] | None = None,
    progress: Progress = lambda point, share: None,
    mesh: Mesh | None = None,
) -> TrainResult:
    """Trains both policies as `learning.algorithm` says, or goes on from the folder's checkpoints.

    Args:
      data: what to learn and to validate on; of one simulator 15 % of the texts are set aside.
      folder: for checkpoints, one folder per stage; None = leave none.
      provenance: what the checkpoints say about themselves, JSON.
      progress: called with every new point of the curve and the share of the whole that is done.
      mesh: of one axis, which the environments are spread over; None = one device.

    Returns:
      the policies of best validation throughput, and how they came about.

    Raises:
      UserError: the folder holds a training with other settings or simulators, or cannot be used.

    Example:
      >>> import dataclasses
      >>> import ltd_jax as ltd
      >>> from ltd_jax import presets
      >>> from ltd_jax.config import ExactConfig
      >>> pair = ltd.load()
      >>> trace = ltd.record(pair, ["import os", "def f(x):"], new_tokens=8)
      >>> table = ltd.LatencyTable.find("epyc-2-cores-embedded", pair.config.cycle)
      >>> few = ExactConfig(updates=1, environments=4, cycles=2, steps=1, minibatch=4)
      >>> quick = dataclasses.replace(presets.QUICK_LEARNING, exact=few)
      >>> simulator = ltd.Simulator.of(trace, table, pair.config.cycle)
      >>> trained = ltd.train(simulator, presets.EMBEDDED_POLICY, quick)
      >>> isinstance(trained.policy, ltd.Learned)
      True
    """
    splits = data if isinstance(data, Splits) else split(data)
    if learning.algorithm == "alternate":
        return alternate.train(
            splits,
            widths,
            learning,
            folder=folder,
            provenance=provenance,
            progress=progress,
            mesh=mesh,
        )
    if folder is not None:
        loop.claim(folder, loop.resume_settings(splits, widths, learning))
    algorithm = ALGORITHMS[learning.algorithm].of(widths, learning, mesh)
    observed = [environment.observe_all(each, widths.observation) for each in splits]
    best = optimum.best_constant(splits.train)
    state, curve = loop.run_stage(
        Stage(
            name=learning.algorithm,
            algorithm=algorithm,
            key=jax.random.key(learning.seed),
            throughput=jnp.float32(best.tokens_per_second),
            data=observed[0],
            validation=observed[1],
        ),
        folder=folder,
        provenance=provenance,
        report=lambda point: progress(point, point.update / algorithm.updates),
    )
    policy = state.best.policy(widths)
    validation = float(state.best_validation)
    return TrainResult(policy, {learning.algorithm: policy}, curve, validation)
