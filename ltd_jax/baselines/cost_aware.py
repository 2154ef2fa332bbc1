"""The cost-aware tree: training-free levels and size from the draft's probabilities and costs.

Under a calibrated draft the expected accepted tokens of the V best nodes are the sum of their
probabilities. With `speedup` tokens to be had elsewhere in the time of a plain decoding step, a
second is worth throughput = speedup / plain_seconds tokens, so after every pass

    gain(levels) = max over V of  expected(levels, V) - throughput * verify_seconds(V)
    go on while  ratio * (gain(levels) - gain(levels - 1)) > throughput * seconds of one more level

`ratio` is the mean of the last such gains over the ones before them, as CAST has it (arXiv
2510.26577); the size is the V of the maximum. The spirit is that of OPT-Tree (2406.17276) and of
engines that pick tree sizes by measured cost. Probabilities are calibrated per level by a power:
a node at level l is accepted with probability path_probability ** power[l].
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.baselines.rules import require
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import NO_NODE, LevelView, Policy, TreeView
from ltd_jax.replay.latency import LatencyTable

MEMORY = 16  # ratios of gains that are remembered


@struct.dataclass(kw_only=True)
class Costs:
    """Seconds as a sum of drafting and verifying (Eq. 1)."""

    draft_seconds: Any  # [D] f32 of drafting so many levels, more than of one
    verify_seconds: Any  # [V] f32 of verifying, with what every cycle costs
    plain_seconds: Any  # f32 [] of a plain decoding step


def costs_of(table: LatencyTable) -> Costs:
    """A table's costs, the mean over its contexts."""
    cycle_DV = table.cycle_seconds.mean(axis=0)
    return Costs(
        draft_seconds=cycle_DV[:, 0] - cycle_DV[0, 0],
        verify_seconds=cycle_DV[0],
        plain_seconds=float(table.plain_seconds.mean()),
    )


@struct.dataclass(kw_only=True)
class CostHistory:
    """What was seen of the tree, and how gains followed each other."""

    log_prob: jax.Array  # [best] f32 of the best nodes so far, falling
    chance: jax.Array  # [best] f32 their calibrated probabilities
    size_index: jax.Array  # i32 [] of the best size so far
    gain: jax.Array  # f32 [] tokens, of the best size
    step: jax.Array  # f32 [] tokens, by which the newest level raised it
    ratios: jax.Array  # [MEMORY] f32
    count: jax.Array  # i32 [] ratios ever seen


@struct.dataclass(kw_only=True)
class CostAware(Policy):
    """Levels and size by expected tokens against time."""

    costs: Costs
    power: Any  # [D] f32 of the path probabilities; 1 = trust the draft
    speedup: jax.Array | float = 1.5  # what time is worth, in tokens per plain step
    ratio: jax.Array | float = 0.6  # what is expected of a next level before there is a memory

    @classmethod
    def published(cls, config: CycleConfig, costs: Costs, power: Any = None) -> Self:
        """Untuned; without a calibration the draft is trusted."""
        trusted_D = np.ones(config.max_levels, np.float32)
        return cls(costs=costs, power=trusted_D if power is None else power)

    def check(self, config: CycleConfig) -> None:
        require("speedup", self.speedup, least=0)
        require("ratio", self.ratio, least=0)
        levels, sizes = (len(self.costs.draft_seconds), len(self.costs.verify_seconds))
        if (levels, sizes) != (config.max_levels, len(config.sizes)):
            raise UserError(
                f"The costs are of {levels} levels and {sizes} sizes, but this cycle has "
                f"{config.max_levels} and {len(config.sizes)}; fit the latency table to it."
            )
        if len(self.power) != config.max_levels:
            raise UserError(
                f"The calibration is of {len(self.power)} levels, but this cycle has "
                f"{config.max_levels}; train the classifiers with this cycle."
            )

    @property
    def throughput(self) -> jax.Array:
        """What a second is worth, tokens per second."""
        return self.speedup / self.costs.plain_seconds

    def init_history(self, config: CycleConfig) -> CostHistory:
        best, zero = max(config.sizes[-1], 1), jnp.float32(0)
        return CostHistory(
            log_prob=jnp.full(best, NO_NODE, jnp.float32),
            chance=jnp.zeros(best, jnp.float32),
            size_index=jnp.int32(0),
            gain=zero,
            step=zero,
            ratios=jnp.zeros(MEMORY, jnp.float32),
            count=jnp.int32(0),
        )

    def observe_level(
        self, history: CostHistory, view: LevelView, config: CycleConfig
    ) -> CostHistory:
        is_first = view.levels == 1
        old = jnp.where(is_first, NO_NODE, history.log_prob)
        new_N = view.log_prob.reshape(-1)
        chance_N = jnp.exp(jnp.asarray(self.power)[view.levels - 1] * new_N)
        log_prob, index = jax.lax.top_k(jnp.concatenate([old, new_N]), old.shape[0])
        chance = jnp.concatenate([history.chance, chance_N])[index]
        chance = jnp.where(log_prob > NO_NODE, chance, 0.0)
        price_V = self.throughput * jnp.asarray(self.costs.verify_seconds)
        value_V = expected_tokens(chance, config.sizes) - price_V
        before = jnp.where(is_first, -price_V[0], history.gain)
        gain = jnp.max(value_V)
        return _with_ratio(history, gain - before, is_first).replace(
            log_prob=log_prob,
            chance=chance,
            size_index=jnp.argmax(value_V).astype(jnp.int32),
            gain=gain,
            step=gain - before,
        )

    def keep_drafting(
        self, history: CostHistory, view: LevelView, config: CycleConfig
    ) -> jax.Array:
        seconds_D = jnp.asarray(self.costs.draft_seconds)
        after = jnp.minimum(view.levels, config.max_levels - 1)
        price = self.throughput * (seconds_D[after] - seconds_D[view.levels - 1])
        is_worth_it = self.expected_ratio(history) * history.step > price
        return is_worth_it & (view.levels < config.max_levels)

    def choose_size(self, history: CostHistory, view: TreeView, config: CycleConfig) -> jax.Array:
        return history.size_index

    def expected_ratio(self, history: CostHistory) -> jax.Array:
        """Mean of the remembered ratios; places that are still empty hold the first one."""
        known = jnp.minimum(history.count, MEMORY)
        return (history.ratios.sum() + (MEMORY - known) * self.ratio) / MEMORY


def expected_tokens(chance: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Expected accepted tokens [V] of the best `size` nodes, for every size."""
    total = jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.cumsum(chance)])
    return total[np.asarray(sizes)]


def _with_ratio(history: CostHistory, step: jax.Array, is_first: jax.Array) -> CostHistory:
    """Remembers how the newest level's gain compares with the one of the level before."""
    ratio = jnp.clip(step / jnp.maximum(history.step, 1e-6), 0.0, 1.0)
    skip = is_first | (history.step <= 0)
    ratios = history.ratios.at[history.count % MEMORY].set(ratio)
    return history.replace(
        ratios=jnp.where(skip, history.ratios, ratios),
        count=history.count + jnp.where(skip, 0, 1),
    )
