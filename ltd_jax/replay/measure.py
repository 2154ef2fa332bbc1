"""Measuring a device: the latency table of one pair, from the very functions that decode.

Whole cycles of every (levels, size) are timed as decoding runs them: the next one is dispatched
before the last one's tokens are read. All settings share one compiled program and are visited in
random order, several times, each between two runs of plain decoding: the median of its ratio to
them is kept, which a drift of the device's speed leaves alone. A cycle's time is the time to draft
its levels plus the time to verify its size (Eq. 1), so the table is the sum of two curves that fits
all settings best: noise is averaged over all settings that share their levels or their size. Every
level after the first is the same pass of the same rows, so from the second on levels are a straight
line; the first is apart, since after one level few rows have to catch up. Single levels would be
known no better than what a level takes: visits differ by a tenth of a cycle and more.
Drafting and verifying are also compiled alone, only to be timed, for the report's split.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import PolicyConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.errors import UserError
from ltd_jax.policies import controller as controllers
from ltd_jax.replay import overhead, parts
from ltd_jax.replay.clock import Clock
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.partial import Partial
from ltd_jax.sampling import described


@dataclasses.dataclass(frozen=True)
class MeasureConfig:
    """How long to measure.

    One context is enough: attention reads every slot of the caches, filled or not, so a cycle's
    time depends on how many slots there are (`CycleConfig.context`) and not on where it starts.
    """

    contexts: tuple[int, ...] = (64,)  # tokens before the root
    cycles: int = 8  # in a row, per visit of a setting; rounded up to whole calls
    visits: int = 6  # of every setting at every context
    policy_visits: int = 100  # pairs of visits, with and without the policies
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("cycles", "visits", "policy_visits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)} but must be at least 1.")
        rising = list(self.contexts) == sorted(set(self.contexts))
        if not self.contexts or not rising or self.contexts[0] < 1:
            raise ValueError(f"contexts {self.contexts} must be distinct, ascending and positive.")


class Subject(NamedTuple):
    """What is measured: a pair, what its table says of its origin, and where halves are kept.

    `partial_file` keeps what is measured at once, for a killed measurement to go on from; the
    caller deletes it when the table is saved.
    """

    pair: Pair
    provenance: dict[str, Any]
    partial_file: Path | None = None


def measure(
    subject: Subject,
    policy: PolicyConfig,
    config: MeasureConfig,
    progress: Callable[[float], None] = lambda share: None,
) -> LatencyTable:
    """The latency table of this device for a pair; `progress` gets the share that is done.

    Any text serves: of a cycle's time, only the catch-up pass depends on what is accepted, and that
    is timed as it comes.
    """
    return measure_in_turns([subject], policy, config, progress)[0]


def measure_in_turns(
    subjects: Sequence[Subject],
    policy: PolicyConfig,
    config: MeasureConfig,
    progress: Callable[[float], None] = lambda share: None,
) -> list[LatencyTable]:
    """The tables of several pairs, visited in turns: a drift of the device favours none of them."""
    clocks = [
        [
            Clock(each.pair, controllers.constant(), context, config.cycles)
            for context in config.contexts
        ]
        for each in subjects
    ]
    policies = {"policy": dataclasses.asdict(policy)}
    kept = [Partial(each.partial_file, identity(each.pair, config) | policies) for each in subjects]
    rounds = _whole_cycles(clocks, config, kept, progress)
    everything = zip(subjects, clocks, kept, rounds, strict=True)
    return [_table(*one, policy, config) for one in everything]


def _table(
    subject: Subject,
    clocks: list[Clock],
    kept: Partial,
    seconds: np.ndarray,
    policy: PolicyConfig,
    config: MeasureConfig,
) -> LatencyTable:
    """A pair's table from the seconds [visits, L, D, V, 2] of its visits; measures what is left."""
    median_LDV, plain_L = steady(seconds)
    try:
        cycle_LDV = fit_sum(median_LDV)
    except UserError:
        kept.forget()  # the same command measures anew
        raise
    misfit = float(np.median(np.abs(median_LDV / cycle_LDV - 1)))
    pair, sizes = subject.pair, subject.pair.config.cycle.sizes
    own = lambda: overhead.of_learned(clocks[0], policy, config.seed, config.policy_visits)
    depth_seconds, size_seconds = kept.entry("policies", own).tolist()
    alone = kept.entry("parts", lambda: np.concatenate(parts.seconds(pair, clocks[0].rewound())))
    draft_D, verify_V = np.split(alone, [pair.config.cycle.max_levels])
    rows = len(config.contexts)
    return LatencyTable(
        contexts=np.asarray(config.contexts, np.int32),
        sizes=sizes,
        cycle_seconds=cycle_LDV,
        draft_seconds=np.tile(draft_D, (rows, 1)),
        verify_seconds=np.tile(verify_V, (rows, 1)),
        plain_seconds=plain_L,
        depth_seconds=depth_seconds,
        size_seconds=size_seconds,
        provenance=subject.provenance | {"policy": dataclasses.asdict(policy), "misfit": misfit},
    )


def fit_sum(seconds_LDV: np.ndarray) -> np.ndarray:
    """The least-squares fit draft[L, D] + verify[L, V] of seconds [L, D, V], of each context alone.

    draft rises in a straight line from the second level on.

    Raises:
      UserError: a fitted cycle would take no time, which no quiet machine gives.
    """
    by_levels = straight(seconds_LDV.mean(axis=2))[:, :, None]
    by_size = seconds_LDV.mean(axis=1, keepdims=True)
    fitted = by_levels + by_size - seconds_LDV.mean(axis=(1, 2), keepdims=True)
    if fitted.min() <= 0:
        raise UserError(
            "The times of some cycles contradict each other, so this device was too busy to be "
            "measured; give the same command again when it is quiet."
        )
    return fitted


def straight(by_levels_LD: np.ndarray) -> np.ndarray:
    """Seconds [L, D] by levels with those from the second on as the line that fits them best."""
    later = by_levels_LD[:, 1:]
    if later.shape[1] < 2:
        return by_levels_LD
    place = np.arange(later.shape[1]) - (later.shape[1] - 1) / 2
    slope = np.maximum(later @ place / (place @ place), 0.0)  # no pass takes less than no time
    line = later.mean(axis=1, keepdims=True) + slope[:, None] * place
    return np.concatenate([by_levels_LD[:, :1], line], axis=1)


def identity(pair: Pair, config: MeasureConfig) -> dict[str, Any]:
    """What two halves of a measurement must have in common, as JSON."""
    return {
        "fingerprint": pair.fingerprint,
        "device": pair.device,
        "dtype": jnp.dtype(pair.dtype).name,
        "jax": jax.__version__,
        "cycle": dataclasses.asdict(pair.config.cycle),
        "sampling": described(pair.config.sampling),
        "measure": dataclasses.asdict(config),
    }


def steady(seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of cycles [L, D, V] and of plain steps [L] at the device's median speed.

    Args:
      seconds: [visits, L, D, V, 2] of a cycle, and of a plain step at the same moment.
    """
    plain_L = np.median(seconds[..., 1], axis=(0, 2, 3))
    ratio_LDV = np.median(seconds[..., 0] / seconds[..., 1], axis=0)
    return ratio_LDV * plain_L[:, None, None], plain_L


def _whole_cycles(
    clocks: list[list[Clock]],
    config: MeasureConfig,
    kept: list[Partial],
    progress: Callable[[float], None],
) -> list[np.ndarray]:
    """What all visits gave each pair: seconds [visits, L, D, V, 2], see `steady`.

    Args:
      clocks: of every pair, one per context.
    """
    for clock in (each for of_pair in clocks for each in of_pair):  # compile and warm up
        cycle = clock.pair.config.cycle
        clock.cycle_seconds(controllers.constant_params(1, cycle.sizes[0], cycle))
        clock.plain_seconds()
    rounds: list[list[np.ndarray]] = [[] for _ in clocks]
    turns = list(np.ndindex(config.visits, len(config.contexts), len(clocks)))
    for done, (visit, row, index) in enumerate(turns, 1):
        clock = clocks[index][row]
        random = np.random.default_rng([config.seed, visit, row])
        name = f"visit {visit} at {clock.context}"
        rounds[index].append(kept[index].entry(name, partial(_visit, clock, random)))
        progress(done / len(turns))
    leading = (config.visits, len(config.contexts))
    return [np.stack(each).reshape(*leading, *each[0].shape) for each in rounds]


def _visit(clock: Clock, random: np.random.Generator) -> np.ndarray:
    """Every setting once, in random order: seconds of a cycle, and of plain steps around it."""
    cycle = clock.pair.config.cycle
    seconds = np.zeros((cycle.max_levels, len(cycle.sizes), 2))
    before = clock.plain_seconds()
    for level, size in random.permutation(list(np.ndindex(seconds.shape[:2]))).tolist():
        params = controllers.constant_params(level + 1, cycle.sizes[size], cycle)
        cycle_seconds, after = clock.cycle_seconds(params), clock.plain_seconds()
        seconds[level, size] = cycle_seconds, (before + after) / 2
        before = after
    return seconds
