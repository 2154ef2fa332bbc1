"""Timing cycles and plain steps of one pair as decoding runs them, several calls in a row."""
# DOC """Drafting and verifying, each compiled alone, only to be timed: for the report's split of a cycle.
# DOC
# DOC In: a pair and the state of a sequence. Out: seconds by levels and by size. As in decoding, several
# DOC rounds share one program, so dispatching it is not counted to each.
# DOC """
# DOC """What deciding costs: seconds of a controller's own time, inside the compiled cycle.
# DOC
# DOC Cycles of a controller that decides everything and is then overruled are timed in turns with cycles
# DOC of the constant that does the same; differences at one level and at most levels tell a decision
# DOC after a draft pass from the rest. What a controller looks at and no constant computes, the draft's
# DOC entropy for one, counts as its own.
# DOC """
# DOC """Measuring a device: the latency table of one pair, from the very functions that decode.
# DOC
# DOC Whole cycles of every (levels, size) are timed as decoding runs them: the next one is dispatched
# DOC before the last one's tokens are read. All settings share one compiled program and are visited in
# DOC random order, several times, each between two runs of plain decoding: the median of its ratio to
# DOC them is kept, which a drift of the device's speed leaves alone. A cycle's time is the time to draft
# DOC its levels plus the time to verify its size (Eq. 1), so the table is the sum of two curves that fits
# DOC all settings best: noise is averaged over all settings that share their levels or their size. Every
# DOC level after the first is the same pass of the same rows, so from the second on levels are a straight
# DOC line; the first is apart, since after one level few rows have to catch up. Single levels would be
# DOC known no better than what a level takes: visits differ by a tenth of a cycle and more.
# DOC Drafting and verifying are also compiled alone, only to be timed, for the report's split.
# DOC """

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import PolicyConfig, describe_sampling
from ltd_jax.cycle import expand, step, verify
from ltd_jax.cycle.prefill import prefill
from ltd_jax.cycle.step import CycleState, PlainState
from ltd_jax.files import ResumableStore, UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.policy import Controller, Overruled
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator


class CycleTimer:
    """Times cycles of one pair at a context; the state is rewound before every visit."""

    def __init__(self, pair: Pair, controller: Controller, context: int, cycles: int) -> None:
        self.pair, self.controller, self.context = pair, controller, context
        self.calls = math.ceil(cycles / pair.config.cycle.cycles_per_call)
        self.stops = pair.put(jnp.full_like(pair.stops, -1))  # decoding's program, and no text ends
        prompt_T = np.arange(context, dtype=np.int32) % pair.config.target.vocab_size
        self.state = prefill(pair, controller, prompt_T)

    def beside(self, controller: Controller) -> "CycleTimer":
        """A clock of another controller, at the same place for as long."""
        cycles = self.calls * self.pair.config.cycle.cycles_per_call
        return CycleTimer(self.pair, controller, self.context, cycles)

    def cycle_seconds(self, params: Any) -> float:
        """Seconds of one cycle, as decoding runs them."""
        asked = (self.controller, self.stops, self.pair.put(params))
        run = partial(step.run_cycles, self.pair.params, self.pair.config, *asked)
        self.state, seconds = self.time(run, self.rewound())
        return seconds

    def plain_seconds(self) -> float:
        """Seconds of one autoregressive step, as decoding runs them."""
        state = self.rewound()
        run = partial(step.run_plain, self.pair.params.target, self.pair.config, self.stops)
        root, sampling = jax.tree.map(jnp.copy, (state.root, state.sampling))
        plain, seconds = self.time(run, PlainState(state.target_cache, root, sampling))
        self.state = state.replace(target_cache=plain.cache)
        return seconds

    def rewound(self) -> CycleState:
        """The state with only the prompt committed; slots behind it are overwritten."""
        state = self.state
        length, before, one = self.pair.put(
            (jnp.int32(self.context), jnp.int32(self.context - 1), jnp.int32(1))
        )
        return state.replace(
            target_cache=state.target_cache.replace(length=length),
            draft_cache=state.draft_cache.replace(length=before),
            pending=state.pending.replace(count=one),
        )

    def time(self, run: Callable[[Any, jax.Array], Any], state: Any) -> tuple[Any, float]:
        """The state behind some calls in a row and the seconds of one cycle or step in them.

        The clock starts when a first call, of one cycle, has ended while the next waits behind it;
        behind the last one, a call of no cycle is dispatched.
        """
        cycle = self.pair.config.cycle
        most = cycle.context - self.context - cycle.path_length
        first, none, room = self.pair.put((jnp.int32(1), jnp.int32(0), jnp.int32(most)))
        state, before = run(state, first)
        state, following = run(state, room)
        jax.device_get(before)
        started = time.perf_counter()
        count = 0
        for call in range(1, self.calls + 1):
            done = following
            state, following = run(state, done.left if call < self.calls else none)
            count += int(jax.device_get(done).count)
        seconds = time.perf_counter() - started
        jax.device_get(following)
        if count < self.calls * cycle.cycles_per_call:
            raise UserError(
                f"There is no room to time cycles behind {self.context} tokens in a context of "
                f"{cycle.context}; measure at a smaller one."
            )
        return state, seconds / count


ROUNDS = 8  # of a part in one program
TIMES = 9  # that the program runs; the median counts


def part_seconds(pair: Pair, state: CycleState) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of drafting [D] and of verifying [V]."""
    cycle, constant = pair.config.cycle, policy_module.constant()

    def draft(token, params, setting, pending, cache):
        pending = pending.replace(token=pending.token.at[0].set(token))
        return expand.expand(params, pair.config, constant, setting, (), pending, cache)[0].tree

    def check(token, params, tree, size, state):
        place = (tree, token, size, state.target_cache, state.sampling)
        return verify.verify(params, pair.config, *place).replace(sampling=None)

    draft_part, verify_part = in_a_row(draft), in_a_row(check)
    settings = [
        policy_module.constant_params(levels, cycle.sizes[0], cycle)
        for levels in range(1, cycle.max_levels + 1)
    ]
    draft_args = (state.pending, state.draft_cache)
    draft_D = [
        _median_seconds(draft_part, state.root, pair.params.draft, setting, *draft_args)
        for setting in settings
    ]
    tree = draft_part(state.root, pair.params.draft, settings[-1], *draft_args)
    verify_V = [
        _median_seconds(verify_part, state.root, pair.params.target, tree, jnp.int32(size), state)
        for size in range(len(cycle.sizes))
    ]
    return np.asarray(draft_D), np.asarray(verify_V)


def in_a_row(part: Callable[..., Any]) -> Callable[..., Any]:
    """A program of `ROUNDS` rounds of a part; it gives the last round's result.

    Args:
      part: of a token and other arguments, giving a struct with a field `token`. Every round starts
        from the first token of the one before, so none can be left out.
    """

    @jax.jit
    def run(token: jax.Array, *args: Any) -> Any:
        def again(_, before: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            result = part(before[0], *args)
            return result.token.reshape(-1)[0], result

        shapes = jax.eval_shape(part, token, *args)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(0, ROUNDS, again, (token, blank))[1]

    return run


def _median_seconds(program: Callable[..., Any], *args: Any) -> float:
    """Median seconds of one of the rounds of a program."""
    jax.block_until_ready(program(*args))
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        jax.block_until_ready(program(*args))
        seconds.append((time.perf_counter() - started) / ROUNDS)
    return float(np.median(seconds))


class Overhead(NamedTuple):
    """Seconds of a controller's own time."""

    depth_seconds: float  # of a decision after a draft pass, with what is remembered of it
    size_seconds: float  # of the rest of a cycle's decisions


FREE = Overhead(0.0, 0.0)


def with_overhead(replay: Simulator, overhead: Overhead) -> Simulator:
    """The replay whose decisions cost so much; `cycles.run` counts them with `learned=True`."""
    return replay.replace(
        depth_seconds=jnp.float32(overhead.depth_seconds),
        size_seconds=jnp.float32(overhead.size_seconds),
    )


def time_learned(bare: CycleTimer, policy: PolicyConfig, seed: int, visits: int) -> Overhead:
    """What two policies of some widths cost, in the very program that decodes with them.

    Args:
      bare: a clock of the constant controller, which says where and how long.
      visits: pairs of visits, with and without decisions, at either number of levels.
    """
    cycle = bare.pair.config.cycle
    params = networks.init_learned(jax.random.key(seed), cycle, policy)
    least, most = (networks.forced(params, end, _probe_size(bare)) for end in ("least", "most"))
    return _decision_seconds(
        bare, bare.beside(networks.learned(cycle, policy)), least, most, visits
    )


def time_decisions(bare: CycleTimer, controller: Controller, params: Any, visits: int) -> Overhead:
    """What the decisions of any controller cost; arguments as of `of_learned`."""
    if controller is policy_module.constant():
        return FREE
    least, most = (Overruled(params, setting, jnp.bool_(True)) for setting in _constants(bare))
    return _decision_seconds(
        bare, bare.beside(policy_module.overruled(controller)), least, most, visits
    )


def _decision_seconds(
    bare: CycleTimer, ours: CycleTimer, least: Any, most: Any, visits: int
) -> Overhead:
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


def _constants(bare: CycleTimer) -> list[policy_module.ConstantParams]:
    """One level and most levels, with the size of `_size`."""
    cycle = bare.pair.config.cycle
    size = cycle.sizes[_probe_size(bare)]
    return [policy_module.constant_params(levels, size, cycle) for levels in (1, cycle.max_levels)]


def _probe_size(bare: CycleTimer) -> int:
    """The index of the size that all these cycles verify: the least with a tree."""
    return min(1, len(bare.pair.config.cycle.sizes) - 1)


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
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


def profile(
    subject: Subject,
    policy: PolicyConfig,
    config: ProfileConfig,
    progress: Callable[[float], None] = lambda share: None,
) -> LatencyTable:
    """The latency table of this device for a pair; `progress` gets the share that is done.

    Any text serves: of a cycle's time, only the catch-up pass depends on what is accepted, and that
    is timed as it comes.
    """
    return profile_in_turns([subject], policy, config, progress)[0]


def profile_in_turns(
    subjects: Sequence[Subject],
    policy: PolicyConfig,
    config: ProfileConfig,
    progress: Callable[[float], None] = lambda share: None,
) -> list[LatencyTable]:
    """The tables of several pairs, visited in turns: a drift of the device favours none of them."""
    clocks = [
        [
            CycleTimer(each.pair, policy_module.constant(), context, config.cycles)
            for context in config.contexts
        ]
        for each in subjects
    ]
    policies = {"policy": dataclasses.asdict(policy)}
    kept = [
        ResumableStore(each.partial_file, profile_identity(each.pair, config) | policies)
        for each in subjects
    ]
    rounds = _whole_cycles(clocks, config, kept, progress)
    everything = zip(subjects, clocks, kept, rounds, strict=True)
    return [_table(*one, policy, config) for one in everything]


def _table(
    subject: Subject,
    clocks: list[CycleTimer],
    kept: ResumableStore,
    seconds: np.ndarray,
    policy: PolicyConfig,
    config: ProfileConfig,
) -> LatencyTable:
    """A pair's table from the seconds [visits, L, D, V, 2] of its visits; measures what is left."""
    median_LDV, plain_L = remove_drift(seconds)
    try:
        cycle_LDV = fit_sum(median_LDV)
    except UserError:
        kept.forget()  # the same command measures anew
        raise
    misfit = float(np.median(np.abs(median_LDV / cycle_LDV - 1)))
    pair, sizes = subject.pair, subject.pair.config.cycle.sizes
    own = lambda: time_learned(clocks[0], policy, config.seed, config.policy_visits)
    depth_seconds, size_seconds = kept.entry("policies", own).tolist()
    alone = kept.entry("parts", lambda: np.concatenate(part_seconds(pair, clocks[0].rewound())))
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
    by_levels = linear_in_levels(seconds_LDV.mean(axis=2))[:, :, None]
    by_size = seconds_LDV.mean(axis=1, keepdims=True)
    fitted = by_levels + by_size - seconds_LDV.mean(axis=(1, 2), keepdims=True)
    if fitted.min() <= 0:
        raise UserError(
            "The times of some cycles contradict each other, so this device was too busy to be "
            "measured; give the same command again when it is quiet."
        )
    return fitted


def linear_in_levels(by_levels_LD: np.ndarray) -> np.ndarray:
    """Seconds [L, D] by levels with those from the second on as the line that fits them best."""
    later = by_levels_LD[:, 1:]
    if later.shape[1] < 2:
        return by_levels_LD
    place = np.arange(later.shape[1]) - (later.shape[1] - 1) / 2
    slope = np.maximum(later @ place / (place @ place), 0.0)  # no pass takes less than no time
    line = later.mean(axis=1, keepdims=True) + slope[:, None] * place
    return np.concatenate([by_levels_LD[:, :1], line], axis=1)


def profile_identity(pair: Pair, config: ProfileConfig) -> dict[str, Any]:
    """What two halves of a measurement must have in common, as JSON."""
    return {
        "fingerprint": pair.fingerprint,
        "device": pair.device,
        "dtype": jnp.dtype(pair.dtype).name,
        "jax": jax.__version__,
        "cycle": dataclasses.asdict(pair.config.cycle),
        "sampling": describe_sampling(pair.config.sampling),
        "measure": dataclasses.asdict(config),
    }


def remove_drift(seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of cycles [L, D, V] and of plain steps [L] at the device's median speed.

    Args:
      seconds: [visits, L, D, V, 2] of a cycle, and of a plain step at the same moment.
    """
    plain_L = np.median(seconds[..., 1], axis=(0, 2, 3))
    ratio_LDV = np.median(seconds[..., 0] / seconds[..., 1], axis=0)
    return ratio_LDV * plain_L[:, None, None], plain_L


def _whole_cycles(
    clocks: list[list[CycleTimer]],
    config: ProfileConfig,
    kept: list[ResumableStore],
    progress: Callable[[float], None],
) -> list[np.ndarray]:
    """What all visits gave each pair: seconds [visits, L, D, V, 2], see `steady`.

    Args:
      clocks: of every pair, one per context.
    """
    for clock in (each for of_pair in clocks for each in of_pair):  # compile and warm up
        cycle = clock.pair.config.cycle
        clock.cycle_seconds(policy_module.constant_params(1, cycle.sizes[0], cycle))
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


def _visit(clock: CycleTimer, random: np.random.Generator) -> np.ndarray:
    """Every setting once, in random order: seconds of a cycle, and of plain steps around it."""
    cycle = clock.pair.config.cycle
    seconds = np.zeros((cycle.max_levels, len(cycle.sizes), 2))
    before = clock.plain_seconds()
    for level, size in random.permutation(list(np.ndindex(seconds.shape[:2]))).tolist():
        params = policy_module.constant_params(level + 1, cycle.sizes[size], cycle)
        cycle_seconds, after = clock.cycle_seconds(params), clock.plain_seconds()
        seconds[level, size] = cycle_seconds, (before + after) / 2
        before = after
    return seconds
