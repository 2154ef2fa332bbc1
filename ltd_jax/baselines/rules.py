"""The compared methods that learn nothing: policies that stop drafting by a rule (paper Sec. 5).

A method's fields are its settings, its defaults the published ones for the paper's cycle of at most
12 levels; all settings of a method share one compiled cycle. `published` scales them to a cycle: of
D levels one of L takes ceil(L * D / 12), and sizes are EAGLE-3's. Thresholds are not scaled: they
are probabilities or nats. Sources are in `catalogue`.

    DDD          stop after some levels when the newest frontier's probability mass is low
    SVIP         stop when the draft's distribution behind the best new node is too flat
    GammaTune    as many levels as a running mean of accepted tokens asks for
    Tiers        one of a few settings, up and down by a running mean with hysteresis
"""

import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import (
    PAPER_EAGLE3,
    LevelView,
    Outcome,
    Policy,
    TreeView,
    check_size,
    eagle3_default,
    size_index,
)

PAPER_LEVELS = 12  # most levels of the compared methods (Sec. 5)
ROUNDING = 1e-6  # 0.8 * 7 + 0.2 * 2 lies a hair above 6 in floating point; a ceil must not see it
CHECKS = 16  # DDD's checks are filled up to a multiple of it


def scale_levels(levels: int, config: CycleConfig) -> int:
    """A source's number of levels for a cycle of fewer levels."""
    scaled = math.ceil(levels * config.max_levels / PAPER_LEVELS)
    return min(max(scaled, 1), config.max_levels)


def size_for(nodes: float, config: CycleConfig) -> int:
    """The smallest size of at least so many nodes, or the largest there is."""
    return next((size for size in config.sizes if size >= nodes), config.sizes[-1])


def require(
    name: str, value: Any, *, least: float, most: float = math.inf, whole: bool = False
) -> None:
    """Raises UserError where a setting's number lies outside a range, or is not whole."""
    if least <= value <= most and not (whole and value % 1 != 0):
        return
    kind = "a whole number" if whole else "a number"
    upper = "" if most == math.inf else f" and at most {most:g}"
    raise UserError(f"{name} is {float(value):g} but must be {kind} of at least {least:g}{upper}.")


@struct.dataclass(kw_only=True)
class FixedSize(Policy):
    """The base of methods that only stop drafting: at most so many levels, always one size."""

    most_levels: jax.Array | int = PAPER_LEVELS
    size: jax.Array | int = PAPER_EAGLE3.size

    @classmethod
    def published(cls, config: CycleConfig, **settings: Any) -> Self:
        """The published settings: all levels of a cycle and EAGLE-3's size, if not given."""
        shape = {"most_levels": config.max_levels, "size": eagle3_default(config).size}
        return cls(**shape | settings)

    def check(self, config: CycleConfig) -> None:
        require("most_levels", self.most_levels, least=1, most=config.max_levels, whole=True)
        check_size(self.size, config)

    def choose_size(self, history: Any, view: TreeView, config: CycleConfig) -> jax.Array:
        return size_index(self.size, config)


@struct.dataclass(kw_only=True)
class DDD(FixedSize):
    """Dynamic depth decoding (arXiv 2409.00142): checks the frontier's mass after some levels.

    Stops after one of them where log(mass of the frontier) < threshold.
    """

    threshold: jax.Array | float = -0.3  # nats
    checks: Any = (5, 7, 9)  # [C] i32 levels

    @classmethod
    def published(cls, config: CycleConfig, **settings: Any) -> Self:
        """Of LTD's comparison, scaled."""
        checks = tuple(dict.fromkeys(scale_levels(levels, config) for levels in (5, 7, 9)))
        return super().published(config, checks=checks, **settings)

    def check(self, config: CycleConfig) -> None:
        super().check(config)
        for levels in self.checks:
            require("checks", levels, least=1, most=config.max_levels, whole=True)

    def traced(self) -> Self:
        """With its checks as an array, the last one repeated: all settings share one program."""
        checks_C = np.asarray(self.checks, np.int32)
        filled_C = np.pad(checks_C, (0, -len(checks_C) % CHECKS), mode="edge")
        return super().traced().replace(checks=jnp.asarray(filled_C))

    def keep_drafting(self, history: Any, view: LevelView, config: CycleConfig) -> jax.Array:
        is_checked = jnp.any(jnp.asarray(self.checks) == view.levels)
        is_low = jax.nn.logsumexp(frontier(view.log_prob)) < self.threshold
        return (view.levels < self.most_levels) & ~(is_checked & is_low)


def frontier(log_prob_WW: jax.Array) -> jax.Array:
    """f32 [W], falling: a level's W best nodes, which the next pass would read."""
    return jax.lax.top_k(log_prob_WW.reshape(-1), log_prob_WW.shape[0])[0]


def best_row(log_prob_WW: jax.Array) -> jax.Array:
    """i32 []: the row that a level's best node is from."""
    return jnp.argmax(log_prob_WW) // log_prob_WW.shape[0]


@struct.dataclass(kw_only=True)
class SVIP(FixedSize):
    """SVIP (arXiv 2411.18462), as its code and LTD have it: stops where the draft is unsure.

    Stops where sqrt(scale * entropy) > threshold, with the entropy of the draft's distribution that
    the newest level's best node is from. By Pinsker's inequality 1 - sqrt(scale * entropy) bounds
    the chance that it is accepted.
    """

    threshold: jax.Array | float = 0.3
    scale: jax.Array | float = 0.15  # per nat

    def check(self, config: CycleConfig) -> None:
        super().check(config)
        require("scale", self.scale, least=0)

    def keep_drafting(self, history: Any, view: LevelView, config: CycleConfig) -> jax.Array:
        entropy = view.entropy[best_row(view.log_prob)]
        doubt = jnp.sqrt(self.scale * jnp.maximum(entropy, 0))
        return (view.levels < self.most_levels) & ~(doubt > self.threshold)


@struct.dataclass
class GammaHistory:
    """What GammaTune remembers."""

    levels: jax.Array  # f32 [] of this cycle
    mean: jax.Array  # f32 [] running mean of accepted tokens
    frontier: jax.Array  # [W] f32 log-probabilities of the newest level's best nodes
    confidence: jax.Array  # f32 [] the newest level's best node's probability given its parent


@struct.dataclass(kw_only=True)
class GammaTune(FixedSize):
    """GammaTune (arXiv 2504.00030), and with a confidence above 0 GammaTune+.

    After a cycle that accepted A of its L drafted levels:

        A = L    levels <- min(levels + step, most_levels), the mean stays
        A < L    mean <- clip((1 - share) mean + share A, least_levels, most_levels)
                 levels <- ceil(mean)
    """

    start: jax.Array | int = 8  # levels of a text's first cycle
    share: jax.Array | float = 0.2  # of the newest cycle in the running mean
    step: jax.Array | float = 2.0  # levels more after a cycle in which every level was accepted
    least_levels: jax.Array | int = 4
    confidence: jax.Array | float = 0.0  # stop where the best new node's own probability is less

    @classmethod
    def published(cls, config: CycleConfig, **settings: Any) -> Self:
        """From half to 1.5 times EAGLE-3's levels (Sec. 5)."""
        start = eagle3_default(config).levels
        return super().published(
            config,
            start=start,
            step=float(scale_levels(2, config)),
            least_levels=-(-start // 2),
            most_levels=min(start + start // 2, config.max_levels),
            **settings,
        )

    def check(self, config: CycleConfig) -> None:
        super().check(config)
        require("start", self.start, least=1, most=config.max_levels, whole=True)
        require("least_levels", self.least_levels, least=0, most=config.max_levels, whole=True)
        require("share", self.share, least=0, most=1)
        require("step", self.step, least=0)
        require("confidence", self.confidence, least=0, most=1)

    def init_history(self, config: CycleConfig) -> GammaHistory:
        start, frontier_W = jnp.float32(self.start), jnp.zeros(config.beam_width, jnp.float32)
        return GammaHistory(start, start, frontier_W, jnp.float32(0))

    def observe_level(
        self, history: GammaHistory, view: LevelView, config: CycleConfig
    ) -> GammaHistory:
        above_W = jnp.where(view.levels == 1, 0.0, history.frontier)  # the root's is 0
        above = above_W[best_row(view.log_prob)]
        return history.replace(
            frontier=frontier(view.log_prob), confidence=jnp.exp(jnp.max(view.log_prob) - above)
        )

    def keep_drafting(
        self, history: GammaHistory, view: LevelView, config: CycleConfig
    ) -> jax.Array:
        return (view.levels < history.levels) & (history.confidence >= self.confidence)

    def update_history(
        self, history: GammaHistory, outcome: Outcome, config: CycleConfig
    ) -> GammaHistory:
        is_full = outcome.accepted == outcome.levels
        blend = (1 - self.share) * history.mean + self.share * outcome.accepted
        clipped = jnp.clip(blend, self.least_levels, self.most_levels)
        mean = jnp.where(is_full, history.mean, clipped)
        grown = jnp.minimum(history.levels + self.step, self.most_levels)
        fitting = jnp.maximum(jnp.ceil(mean - ROUNDING), 1)
        return history.replace(levels=jnp.where(is_full, grown, fitting), mean=mean)


@struct.dataclass
class TierHistory:
    """What the tiers remember."""

    tier: jax.Array  # i32 [] of this cycle
    mean: jax.Array  # f32 [] running mean of accepted tokens
    cycles: jax.Array  # i32 [] done


@struct.dataclass(kw_only=True)
class Tiers(Policy):
    """SGLang's adaptive speculation, over A tiers of levels and sizes.

    One tier up where mean > levels - 0.5 + up, one down where mean <= levels of the tier below
    - 0.5 + down.
    """

    levels: Any = (1, 3, 7)  # [A] i32, rising
    sizes: Any = (20, 20, 20)  # [A] i32, the paper's smallest that hold a chain of these levels
    start: jax.Array | int = 1  # the first tier
    share: jax.Array | float = 0.2  # of the newest cycle in the running mean
    every: jax.Array | int = 5  # cycles between two changes
    warm_up: jax.Array | int = 10  # cycles before the first change
    up: jax.Array | float = 0.0
    down: jax.Array | float = -0.25

    @classmethod
    def published(cls, config: CycleConfig) -> Self:
        """SGLang's, scaled; sizes hold a chain of the tier's levels."""
        levels = tuple(dict.fromkeys(scale_levels(count, config) for count in (1, 3, 7)))
        sizes = tuple(size_for(count, config) for count in levels)
        return cls(levels=levels, sizes=sizes, start=len(levels) // 2)

    def check(self, config: CycleConfig) -> None:
        for count in self.levels:
            require("levels", count, least=1, most=config.max_levels, whole=True)
        levels, sizes = [int(count) for count in self.levels], list(self.sizes)
        if len(levels) != len(sizes) or levels != sorted(set(levels)):
            raise UserError("levels must rise and have one size each, like levels=1/3,sizes=2/8.")
        if not (0 <= self.start < len(levels) and self.start % 1 == 0):
            raise UserError(
                f"start is {self.start:g} but the tiers are numbered 0 to {len(levels) - 1}."
            )
        for size in sizes:
            check_size(size, config)
        require("share", self.share, least=0, most=1)
        require("every", self.every, least=1, whole=True)
        require("warm_up", self.warm_up, least=0, whole=True)

    def init_history(self, config: CycleConfig) -> TierHistory:
        first = jnp.asarray(self.levels)[self.start]
        return TierHistory(jnp.int32(self.start), jnp.float32(first - 1.0), jnp.int32(0))

    def keep_drafting(
        self, history: TierHistory, view: LevelView, config: CycleConfig
    ) -> jax.Array:
        return view.levels < jnp.asarray(self.levels)[history.tier]

    def choose_size(self, history: TierHistory, view: TreeView, config: CycleConfig) -> jax.Array:
        return size_index(jnp.asarray(self.sizes)[history.tier], config)

    def update_history(
        self, history: TierHistory, outcome: Outcome, config: CycleConfig
    ) -> TierHistory:
        levels_A, tier, cycles = jnp.asarray(self.levels), history.tier, history.cycles + 1
        mean = (1 - self.share) * history.mean + self.share * outcome.accepted
        over = cycles - self.warm_up
        may_change = (over > 0) & (over % self.every == 0)
        below = levels_A[jnp.maximum(tier - 1, 0)]
        goes_down = (tier > 0) & (mean <= below - 0.5 + self.down)
        goes_up = (tier + 1 < levels_A.shape[0]) & (mean > levels_A[tier] - 0.5 + self.up)
        change = jnp.where(goes_down, -1, jnp.where(goes_up, 1, 0))
        return TierHistory(tier + jnp.where(may_change, change, 0), mean, cycles)
