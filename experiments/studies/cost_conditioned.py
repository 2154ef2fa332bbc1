"""Policies that also see what things cost: one pair of networks for all hardware.

The ordinary policies are right for one latency table only. The networks here have a few more
inputs, numbers of the table, so they can be trained on many tables and serve one they never saw. A
table does not change while it is decoded under, so its numbers are folded into the first layer
(`fold_costs`): what decodes are ordinary policies of ordinary cost.

They learn with exact gradients on a simulator whose texts stand under different tables
(`domain_randomization`); a validation is the throughput on the validation texts in the same way, as
a ratio over the best constant settings.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import domain_randomization
from experiments.studies.seeds import TrainedSeeds, side_by_side
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import environment
from ltd_jax.learning.environment import Observations
from ltd_jax.learning.exact import Exact
from ltd_jax.learning.loop import Splits
from ltd_jax.policies import networks
from ltd_jax.policies.networks import ActorCritic, ActorCritics, Learned
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator

COST_COUNT = 6
COPIES = 2  # of every text, each under a table of its own


def costs_of(table: LatencyTable) -> np.ndarray:
    """A table as the policies see it, at the mean of its contexts: f32 [COST_COUNT] in [0, 1).

    In plain steps: the smallest cycle, a further level, the lower and the upper half of the sizes,
    a decision of each policy; x is seen as x / (1 + x), so that no network input saturates.
    """
    costs, sizes = domain_randomization.costs_of(table), table.sizes
    middle = sizes[len(sizes) // 2]
    steps = np.maximum(
        [
            costs.first_level + costs.start,
            costs.level,
            costs.lower * (middle - sizes[0]),
            costs.upper * (sizes[-1] - middle),
            costs.depth_decision,
            costs.size_decision,
        ],
        0.0,
    )
    return (steps / (1 + steps)).astype(np.float32)


def with_costs(cost: jax.Array, observation: jax.Array) -> jax.Array:
    """The networks' input: the costs [..., COST_COUNT], then the observation [..., O]."""
    return jnp.concatenate([cost, observation], axis=-1)


def init(key: jax.Array, config: CycleConfig, widths: PolicyConfig) -> Learned:
    """Random networks that read costs and observations; to decode, `fold_costs` of them."""
    key_depth, key_size = jax.random.split(key)
    depth_O, size_O = networks.blank_observations(config, widths)
    blank = jnp.zeros(COST_COUNT)
    return Learned(
        depth=networks.depth_actor(widths).init(key_depth, with_costs(blank, depth_O)),
        size=networks.size_actor(config, widths).init(key_size, with_costs(blank, size_O)),
        widths=widths,
    )


def fold_costs(policy: Learned, cost: np.ndarray) -> Learned:
    """Ordinary policies that choose as cost-conditioned ones do under a table of such costs."""
    return policy.replace(depth=_fold(policy.depth, cost), size=_fold(policy.size, cost))


def _fold(variables: Any, cost: np.ndarray) -> Any:
    """The network without its first inputs, which are always `cost`."""
    name = networks.layers_of(variables)[0]
    first = variables["params"][name]
    kernel = first["kernel"]
    layer = {
        "kernel": kernel[COST_COUNT:],
        "bias": first["bias"] + jnp.asarray(cost) @ kernel[:COST_COUNT],
    }
    return {**variables, "params": {**variables["params"], name: layer}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostConditioned(Exact):
    """Exact gradients for networks that read costs, too; learns on `observe`."""

    def init_params(self, key: jax.Array, data: Observations) -> ActorCritics:
        policy = init(key, data.simulator.config, self.widths)
        return ActorCritics(
            depth=ActorCritic(actor=policy.depth, critic=None),
            size=ActorCritic(actor=policy.size, critic=None),
        )


def observe(
    simulator: Simulator, tables: Sequence[LatencyTable], widths: PolicyConfig
) -> Observations:
    """A simulator under the tables, and what its trees and tables show the policies."""
    under = domain_randomization.under_tables(simulator, tables, COPIES, seed=0)
    cost_KC = np.stack([costs_of(table) for table in tables])
    cost_P1C = jnp.asarray(cost_KC[under.table_index])[:, None]

    def after_costs(view_PDO: jax.Array) -> jax.Array:
        shape = (*view_PDO.shape[:2], COST_COUNT)
        return with_costs(jnp.broadcast_to(cost_P1C, shape), view_PDO)

    plain = environment.observe_all(under.simulator, widths.observation)
    return plain.replace(depth=after_costs(plain.depth), size=after_costs(plain.size))


def train(
    splits: Splits,
    tables: Sequence[LatencyTable],
    widths: PolicyConfig,
    learning: LearningConfig,
    seeds: int,
) -> TrainedSeeds:
    """Trains both policies with as many seeds on texts that stand under the tables."""
    algorithm = CostConditioned(
        widths=widths,
        settings=learning.exact,
        reward=learning.reward,
        validate_every=learning.validate_every,
    )
    data, validation = (observe(simulator, tables, widths) for simulator in splits)
    return side_by_side(algorithm, data, validation, throughput=1.0, seeds=seeds)
