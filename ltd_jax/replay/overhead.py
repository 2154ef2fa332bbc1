"""What deciding costs: seconds of a controller's own time, inside the compiled cycle.

Cycles of a controller that decides everything and is then overruled are timed in turns with cycles
of the constant that does the same; differences at one level and at most levels tell a decision
after a draft pass from the rest. What a controller looks at and no constant computes, the draft's
entropy for one, counts as its own.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import PolicyConfig
from ltd_jax.policies import controller as controllers
from ltd_jax.policies import networks
from ltd_jax.policies.controller import Controller, Overruled
from ltd_jax.replay.clock import Clock
from ltd_jax.replay.cycles import Replay


class Overhead(NamedTuple):
    """Seconds of a controller's own time."""

    depth_seconds: float  # of a decision after a draft pass, with what is remembered of it
    size_seconds: float  # of the rest of a cycle's decisions


FREE = Overhead(0.0, 0.0)


def with_overhead(replay: Replay, overhead: Overhead) -> Replay:
    """The replay whose decisions cost so much; `cycles.run` counts them with `learned=True`."""
    return replay.replace(
        depth_seconds=jnp.float32(overhead.depth_seconds),
        size_seconds=jnp.float32(overhead.size_seconds),
    )


def of_learned(bare: Clock, policy: PolicyConfig, seed: int, visits: int) -> Overhead:
    """What two policies of some widths cost, in the very program that decodes with them.

    Args:
      bare: a clock of the constant controller, which says where and how long.
      visits: pairs of visits, with and without decisions, at either number of levels.
    """
    cycle = bare.pair.config.cycle
    params = networks.init_learned(jax.random.key(seed), cycle, policy)
    least, most = (networks.forced(params, end, _size(bare)) for end in ("least", "most"))
    return _measure(bare, bare.beside(networks.learned(cycle, policy)), least, most, visits)


def of_controller(bare: Clock, controller: Controller, params: Any, visits: int) -> Overhead:
    """What the decisions of any controller cost; arguments as of `of_learned`."""
    if controller is controllers.constant():
        return FREE
    least, most = (Overruled(params, setting, jnp.bool_(True)) for setting in _constants(bare))
    return _measure(bare, bare.beside(controllers.overruled(controller)), least, most, visits)


def _measure(bare: Clock, ours: Clock, least: Any, most: Any, visits: int) -> Overhead:
    """Medians over pairs of visits of two clocks; `least` and `most` decide as `_constants` do."""
    ends = list(zip((least, most), _constants(bare), strict=True))
    ours.cycle_seconds(least)  # compiles
    pairs = [
        [ours.cycle_seconds(params) - bare.cycle_seconds(setting) for params, setting in ends]
        for _ in range(visits)
    ]  # both ends in turns: a drift of the device hits them alike
    extra = np.maximum(np.median(pairs, axis=0), 0.0).tolist()
    decisions = max(bare.pair.config.cycle.max_levels - 1, 1)  # after a pass: D against 1
    depth_seconds = max((extra[1] - extra[0]) / decisions, 0.0)
    return Overhead(depth_seconds, max(extra[0] - depth_seconds, 0.0))


def _constants(bare: Clock) -> list[controllers.ConstantParams]:
    """One level and most levels, with the size of `_size`."""
    cycle = bare.pair.config.cycle
    size = cycle.sizes[_size(bare)]
    return [controllers.constant_params(levels, size, cycle) for levels in (1, cycle.max_levels)]


def _size(bare: Clock) -> int:
    """The index of the size that all these cycles verify: the least with a tree."""
    return min(1, len(bare.pair.config.cycle.sizes) - 1)
