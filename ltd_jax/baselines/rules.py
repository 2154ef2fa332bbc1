"""The compared methods that learn nothing: rules that stop drafting, under one fixed size.

Every rule is a `Controller` whose settings are traced arrays, so all settings of a rule share one
compiled cycle. Levels count draft passes; a rule is asked after every pass. What a rule remembers
over cycles starts anew with every prompt. Sources and the paper's settings are in `catalogue`.

    DDD          stop after some levels when the newest frontier's probability mass is low
    SVIP         stop when the draft's distribution behind the best new node is too flat
    GammaTune    as many levels as a running mean of accepted tokens asks for
    EMA tiers    one of a few settings, up and down by a running mean with hysteresis
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.policies.policy import Controller, LevelView, Outcome

ROUNDING = 1e-6  # 0.8 * 7 + 0.2 * 2 lies a hair above 6 in floating point; a ceil must not see it


@struct.dataclass
class MassParams:
    """DDD: stop after a checked level if log(mass of the frontier) < threshold."""

    threshold: jax.Array  # f32 [] nats
    checked: jax.Array  # [D] bool, levels after which the rule is asked
    most: jax.Array  # i32 [] levels
    size: jax.Array  # i32 [] index into config.sizes


@struct.dataclass
class EntropyParams:
    """SVIP: stop if sqrt(scale * entropy) > threshold."""

    threshold: jax.Array  # f32 []
    scale: jax.Array  # f32 [] per nat
    most: jax.Array  # i32 []
    size: jax.Array  # i32 []


@struct.dataclass
class GammaParams:
    """GammaTune; with a confidence above 0 GammaTune+."""

    start: jax.Array  # f32 [] levels of a prompt's first cycle
    share: jax.Array  # f32 [] of the newest cycle in the running mean
    step: jax.Array  # f32 [] levels more after a cycle in which every level was accepted
    least: jax.Array  # f32 []
    most: jax.Array  # f32 []
    confidence: jax.Array  # f32 [] stop early where the best new node's own probability is less
    size: jax.Array  # i32 []


@struct.dataclass
class GammaState:
    """Of GammaTune."""

    levels: jax.Array  # f32 [] of this cycle; 0 = no cycle yet
    mean: jax.Array  # f32 [] running mean of accepted tokens
    outcome: Outcome  # of the last cycle
    frontier: jax.Array  # [W] f32 scores of the newest level's best nodes
    confidence: jax.Array  # f32 [] own probability of the newest level's best node


@struct.dataclass
class TierParams:
    """EMA tiers: A settings, from few levels to many."""

    levels: jax.Array  # [A] i32, rising
    size: jax.Array  # [A] i32 indices into config.sizes
    start: jax.Array  # i32 [] the first tier
    share: jax.Array  # f32 [] of the newest cycle in the running mean
    every: jax.Array  # i32 [] cycles between two changes
    warm_up: jax.Array  # i32 [] cycles before the first change
    up: jax.Array  # f32 [] go up if mean > levels - 0.5 + up
    down: jax.Array  # f32 [] go down if mean <= levels of the tier below - 0.5 + down


@struct.dataclass
class TierState:
    """Of EMA tiers."""

    tier: jax.Array  # i32 []; -1 = no cycle yet
    mean: jax.Array  # f32 [] running mean of accepted tokens
    cycles: jax.Array  # i32 [] done
    accepted: jax.Array  # i32 [] in the last cycle


def frontier_mass(score_WW: jax.Array) -> jax.Array:
    """Log of the probability mass of a level's W best nodes, which the next pass would read."""
    return jax.nn.logsumexp(jax.lax.top_k(score_WW.reshape(-1), score_WW.shape[0])[0])


@functools.cache
def mass_rule() -> Controller:
    """DDD, dynamic depth decoding (arXiv 2409.00142); params are `MassParams`."""

    def keep_drafting(params: MassParams, state: tuple[()], view: LevelView) -> jax.Array:
        asked = params.checked[view.levels - 1]
        low = frontier_mass(view.score) < params.threshold
        return (view.levels < params.most) & ~(asked & low)

    return _fixed_size(keep_drafting)


@functools.cache
def entropy_rule() -> Controller:
    """SVIP (arXiv 2411.18462), as its code and LTD have it; params are `EntropyParams`.

    The entropy is that of the draft's distribution which the newest level's best node is from. By
    Pinsker's inequality 1 - sqrt(scale * entropy) bounds the chance that it is accepted.
    """

    def keep_drafting(params: EntropyParams, state: tuple[()], view: LevelView) -> jax.Array:
        row = jnp.argmax(view.score) // view.score.shape[0]
        doubt = jnp.sqrt(params.scale * jnp.maximum(view.entropy[row], 0))
        return (view.levels < params.most) & ~(doubt > params.threshold)

    return _fixed_size(keep_drafting)


@functools.cache
def gamma_rule(config: CycleConfig) -> Controller:
    """GammaTune and GammaTune+ (arXiv 2504.00030); params are `GammaParams`.

    With the last cycle's accepted A of its drafted levels L:

        A = L    levels <- min(levels + step, most), the mean stays
        A < L    mean <- clip((1 - share) mean + share A, least, most), levels <- ceil(mean)
    """

    def init() -> GammaState:
        zero, none = jnp.float32(0), jnp.int32(0)
        frontier_W = jnp.zeros(config.beam_width, jnp.float32)
        return GammaState(zero, zero, Outcome(none, none, none), frontier_W, zero)

    def notice(params: GammaParams, state: GammaState, view: LevelView) -> GammaState:
        planned = _next_gamma(params, state)
        is_first = view.levels == 1
        keep_old = lambda new, old: jnp.where(is_first, new, old)
        above_W = jnp.where(is_first, 0.0, state.frontier)  # the root's score is 0
        best, width = jnp.argmax(view.score), config.beam_width
        return state.replace(
            levels=keep_old(planned.levels, state.levels),
            mean=keep_old(planned.mean, state.mean),
            frontier=jax.lax.top_k(view.score.reshape(-1), width)[0],
            confidence=jnp.exp(jnp.max(view.score) - above_W[best // width]),
        )

    def keep_drafting(params: GammaParams, state: GammaState, view: LevelView) -> jax.Array:
        return (view.levels < state.levels) & (state.confidence >= params.confidence)

    return _fixed_size(keep_drafting)._replace(
        init=init, notice=notice, update=lambda state, outcome: state.replace(outcome=outcome)
    )


def _next_gamma(params: GammaParams, state: GammaState) -> GammaState:
    """Levels and mean of the cycle that begins."""
    accepted = state.outcome.accepted.astype(jnp.float32)
    is_full = state.outcome.accepted == state.outcome.levels
    blend = (1 - params.share) * state.mean + params.share * accepted
    mean = jnp.where(is_full, state.mean, jnp.clip(blend, params.least, params.most))
    grown = jnp.minimum(state.levels + params.step, params.most)
    levels = jnp.where(is_full, grown, jnp.maximum(jnp.ceil(mean - ROUNDING), 1))
    fresh = state.levels == 0
    return state.replace(
        levels=jnp.where(fresh, params.start, levels), mean=jnp.where(fresh, params.start, mean)
    )


@functools.cache
def tier_rule() -> Controller:
    """SGLang's adaptive speculation over (levels, size) tiers; params are `TierParams`."""

    def init() -> TierState:
        return TierState(jnp.int32(-1), jnp.float32(0), jnp.int32(0), jnp.int32(0))

    def notice(params: TierParams, state: TierState, view: LevelView) -> TierState:
        planned = _next_tier(params, state)
        return jax.tree.map(lambda new, old: jnp.where(view.levels == 1, new, old), planned, state)

    return Controller(
        init=init,
        keep_drafting=lambda params, state, view: view.levels < params.levels[state.tier],
        choose_size=lambda params, state, view: params.size[state.tier],
        update=lambda state, outcome: state.replace(
            accepted=outcome.accepted, cycles=state.cycles + 1
        ),
        notice=notice,
    )


def _next_tier(params: TierParams, state: TierState) -> TierState:
    """Tier and mean of the cycle that begins."""
    fresh = state.tier < 0
    tier = jnp.where(fresh, params.start, state.tier)
    before = jnp.where(fresh, params.levels[tier] - 1.0, state.mean)
    mean = (1 - params.share) * before + params.share * state.accepted
    mean = jnp.where(fresh, before, mean)
    done = state.cycles - params.warm_up
    may_change = ~fresh & (done > 0) & (done % params.every == 0)
    below = params.levels[jnp.maximum(tier - 1, 0)]
    goes_down = (tier > 0) & (mean <= below - 0.5 + params.down)
    goes_up = (tier + 1 < params.levels.shape[0]) & (mean > params.levels[tier] - 0.5 + params.up)
    change = jnp.where(goes_down, -1, jnp.where(goes_up, 1, 0))
    return state.replace(tier=tier + jnp.where(may_change, change, 0), mean=mean)


def _fixed_size(keep_drafting) -> Controller:
    """A rule that only stops drafting, over the size in its params."""
    return Controller(
        init=lambda: (),
        keep_drafting=keep_drafting,
        choose_size=lambda params, state, view: params.size,
        update=lambda state, outcome: state,
    )
