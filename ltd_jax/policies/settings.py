"""Settings of the compared methods: numbers under keys, and how a source's numbers are scaled.

Numbers of levels in a source are for at most 12 levels (Sec. 5); a cycle of fewer levels D takes
ceil(levels * D / 12), and EAGLE-3's own levels and size of the embedded pair. Thresholds are not
scaled: they are probabilities or nats.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from flax import struct

from ltd_jax import presets
from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError

Setting = dict[str, tuple[float, ...]]
PAPER_LEVELS = 12  # cap of the dynamic-depth methods (Sec. 5)


@struct.dataclass
class Costs:
    """Of a latency table: seconds as a sum of drafting and verifying (Eq. 1)."""

    contexts: np.ndarray  # [L]
    draft_seconds: np.ndarray  # [L, D]
    verify_seconds: np.ndarray  # [L, V]
    plain_seconds: float


class Parts(NamedTuple):
    """What some methods need beside their numbers; None = not given."""

    heads: dict[str, Any] | None = None  # by classifier: Linen variables
    widths: dict[str, int] | None = None  # by classifier
    power: np.ndarray | None = None  # [D] calibration of path probabilities
    costs: Costs | None = None


def scaled(levels: int, config: CycleConfig) -> int:
    """A source's number of levels for a cycle of fewer levels."""
    return min(max(1, math.ceil(levels * config.max_levels / PAPER_LEVELS)), config.max_levels)


def eagle3(config: CycleConfig) -> tuple[int, int]:
    """EAGLE-3's fixed levels and size, the nearest ones that a cycle has."""
    is_full = config.max_levels >= presets.PAPER_EAGLE3[0]
    own = presets.PAPER_EAGLE3 if is_full else (presets.EAGLE3_LEVELS, presets.EAGLE3_SIZE)
    return min(own[0], config.max_levels), nearest(config, own[1])


def nearest(config: CycleConfig, size: float) -> int:
    """The compiled size nearest to a number of nodes."""
    return min(config.sizes, key=lambda known: (abs(known - size), known))


def at_least(config: CycleConfig, size: float) -> int:
    """The smallest compiled size of at least so many nodes, or the largest there is."""
    return next((known for known in config.sizes if known >= size), config.sizes[-1])


def some_sizes(config: CycleConfig) -> list[int]:
    """Five sizes from the smallest tree to the largest, evenly among the compiled ones."""
    known = [size for size in config.sizes if size > 0] or [0]
    return [known[round(place)] for place in np.linspace(0, len(known) - 1, 5)]


def size_index(config: CycleConfig, size: float) -> int:
    """Where a size stands in `config.sizes`; UserError for one that is not compiled."""
    if size not in config.sizes:
        raise UserError(f"size {size:g} is not one of the compiled sizes {config.sizes}.")
    return config.sizes.index(int(size))
