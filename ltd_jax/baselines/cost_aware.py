"""The cost-aware tree: training-free levels and size from the draft's scores and a latency table.

Under a calibrated draft the expected accepted tokens of the V best nodes are the sum of their
probabilities. With `throughput` tokens per second to be had elsewhere, a second costs that many
tokens, so after every pass

    gain(levels) = max over V of  expected(levels, V) - throughput * verify_seconds(V)
    go on while  ratio * (gain(levels) - gain(levels - 1)) > throughput * seconds of one more level

`ratio` is the mean of the last such gains over the ones before them, as CAST has it (arXiv
2510.26577); the size is the V of the maximum. The spirit is that of OPT-Tree (2406.17276) and of
engines that pick tree sizes by measured cost. Probabilities are calibrated per level by a power:
a node at level l is accepted with probability path_probability ** power[l].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.policies.policy import Controller, LevelView, TreeView

MEMORY = 16  # ratios of gains that are remembered


@struct.dataclass
class Costs:
    """Of a latency table: seconds as a sum of drafting and verifying (Eq. 1)."""

    contexts: np.ndarray  # [L]
    draft_seconds: np.ndarray  # [L, D]
    verify_seconds: np.ndarray  # [L, V]
    plain_seconds: float


@struct.dataclass
class CostParams:
    """What time is worth, what things cost, how sure the draft may be."""

    throughput: jax.Array  # f32 [] tokens per second
    ratio: jax.Array  # f32 [] what is expected of a next level before there is a memory
    power: jax.Array  # [D] f32 of the path probabilities; 1 = trust the draft
    contexts: jax.Array  # [L] f32 of the table
    draft_seconds: jax.Array  # [L, D] f32 of drafting so many levels
    verify_seconds: jax.Array  # [L, V] f32


@struct.dataclass
class CostState:
    """What was seen of the tree, and how gains followed each other."""

    score: jax.Array  # [best] f32 raw scores of the best nodes so far, falling
    chance: jax.Array  # [best] f32 their calibrated probabilities
    size: jax.Array  # i32 [] index of the best size so far
    gain: jax.Array  # f32 [] tokens, of the best size
    step: jax.Array  # f32 [] tokens, by which the newest level raised it
    ratios: jax.Array  # [MEMORY] f32
    count: jax.Array  # i32 [] ratios ever seen


@functools.cache
def cost_rule(config: CycleConfig) -> Controller:
    """Levels and size by expected tokens against time; params are `CostParams`."""
    best = max(config.sizes[-1], 1)

    def init() -> CostState:
        zero, none = jnp.float32(0), jnp.int32(0)
        score, chance = jnp.full(best, -jnp.inf, jnp.float32), jnp.zeros(best, jnp.float32)
        return CostState(score, chance, none, zero, zero, jnp.zeros(MEMORY, jnp.float32), none)

    def notice(params: CostParams, state: CostState, view: LevelView) -> CostState:
        is_first = view.levels == 1
        old_score = jnp.where(is_first, -jnp.inf, state.score)
        new_N = view.score.reshape(-1)
        chance_N = jnp.exp(params.power[view.levels - 1] * new_N)
        score, index = jax.lax.top_k(jnp.concatenate([old_score, new_N]), best)
        chance = jnp.concatenate([state.chance, chance_N])[index]
        chance = jnp.where(score > -jnp.inf, chance, 0.0)
        value_V = _expected(chance, config.sizes) - params.throughput * _at(
            params, params.verify_seconds, view.length
        )
        seconds_1 = _at(params, params.verify_seconds, view.length)[0]
        before = jnp.where(is_first, -params.throughput * seconds_1, state.gain)
        step = jnp.max(value_V) - before
        seen = state.replace(score=score, chance=chance, size=jnp.argmax(value_V).astype(jnp.int32))
        return _with_ratio(seen.replace(gain=jnp.max(value_V)), state.step, step, is_first)

    def keep_drafting(params: CostParams, state: CostState, view: LevelView) -> jax.Array:
        seconds_D = _at(params, params.draft_seconds, view.length)
        after = jnp.minimum(view.levels, config.max_levels - 1)
        seconds = seconds_D[after] - seconds_D[view.levels - 1]
        worth = expected_ratio(params, state) * state.step > params.throughput * seconds
        return worth & (view.levels < config.max_levels)

    def choose_size(params: CostParams, state: CostState, view: TreeView) -> jax.Array:
        return state.size

    return Controller(init, keep_drafting, choose_size, lambda state, outcome: state, notice)


def expected_ratio(params: CostParams, state: CostState) -> jax.Array:
    """Mean of the remembered ratios; places that are still empty hold the params' one."""
    known = jnp.minimum(state.count, MEMORY)
    return (state.ratios.sum() + (MEMORY - known) * params.ratio) / MEMORY


def _with_ratio(
    state: CostState, step_before: jax.Array, step: jax.Array, is_first: jax.Array
) -> CostState:
    """Remembers how the newest level's gain compares with the one of the level before."""
    ratio = jnp.clip(step / jnp.maximum(step_before, 1e-6), 0.0, 1.0)
    skip = is_first | (step_before <= 0)
    ratios = state.ratios.at[state.count % MEMORY].set(ratio)
    return state.replace(
        step=step,
        ratios=jnp.where(skip, state.ratios, ratios),
        count=state.count + jnp.where(skip, 0, 1),
    )


def _expected(chance: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Expected accepted tokens [V] of the best `size` nodes, for every size."""
    total = jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.cumsum(chance)])
    return total[np.asarray(sizes)]


def _at(params: CostParams, seconds_LX: jax.Array, length: jax.Array) -> jax.Array:
    """Seconds [X] at a context length, between the two nearest ones."""
    if seconds_LX.shape[0] == 1:
        return seconds_LX[0]
    row = jnp.clip(jnp.sum(params.contexts <= length) - 1, 0, seconds_LX.shape[0] - 2)
    gap = params.contexts[row + 1] - params.contexts[row]
    share = jnp.clip((length - params.contexts[row]) / gap, 0.0, 1.0)
    return (1 - share) * seconds_LX[row] + share * seconds_LX[row + 1]
