"""Profiling a device: the latency table of one pair, from the very functions that decode.

Whole cycles of every (levels, size) are timed as decoding runs them: the next one is dispatched
before the last one's tokens are read. All settings share one compiled program and are visited in
random order, several times, each between two runs of plain decoding: the median of its ratio to
them is kept, which a drift of the device's speed leaves alone. A cycle's time is the time to draft
its levels plus the time to verify its size (Eq. 1), so the table is the sum of two curves that fits
all settings best: noise is averaged over all settings that share their levels or their size. Every
level after the first is the same pass of the same rows, so from the second on levels are a straight
line; the first is apart, since after one level the draft's cache is extended by few rows. Single
levels would be known no better than what a level takes: visits differ by a tenth of a cycle and
more.

Two more things are timed. What deciding costs, inside the compiled cycle: cycles of a policy that
decides everything and is then forced to do what a constant does are timed in turns with cycles of
that constant. What a policy looks at and no constant computes, the draft's entropy for one, counts
as its own. And the components, drafting and verifying, each compiled alone only to be timed, for
the report's split of a cycle.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.cycle import expand, step, verify
from ltd_jax.cycle.prefill import check_tokens, prefill, with_history
from ltd_jax.cycle.step import Cycles, CycleState, PlainState, PlainSteps
from ltd_jax.cycle.tree import DraftTree
from ltd_jax.cycle.verify import VerifyResult
from ltd_jax.files import ResumableStore, UserError
from ltd_jax.models.pair import Model, Pair
from ltd_jax.policies import networks
from ltd_jax.policies.policy import Constant, Forced, Policy
from ltd_jax.presets import EMBEDDED_POLICY
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """The length of a measurement.

    One context is enough: attention reads every slot of the caches, filled or not, so a cycle's
    time depends on how many slots there are (`CycleConfig.context`) and not on where it starts.
    """

    contexts: tuple[int, ...] = (64,)  # tokens before the root
    cycles: int = 8  # in a row, per visit of a setting; rounded up to whole calls
    visits: int = 6  # of every setting at every context
    policy_visits: int = 100  # pairs of visits, with and without the policies, at most
    seed: int = 0  # of the order of visits

    def __post_init__(self) -> None:
        for name in ("cycles", "visits", "policy_visits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)} but must be at least 1.")
        is_rising = list(self.contexts) == sorted(set(self.contexts))
        if not self.contexts or not is_rising or self.contexts[0] < 1:
            raise ValueError(f"contexts {self.contexts} must be distinct, ascending and positive.")


POLICY_SECONDS = 30.0  # after which `FEWEST_POLICY_VISITS` are enough
FEWEST_POLICY_VISITS = 10
VISITS_SHARE = 0.7  # of a measurement's time; the rest are decisions and parts of a cycle


class CycleTimer:
    """Times cycles and plain steps of one pair at a context, as decoding runs them.

    Args:
      context: tokens before the root; the state is reset to them before every visit.
      cycles: in a row, per visit; rounded up to whole calls.

    Raises:
      UserError: the context does not fit the pair's, or a model's logits are no finite numbers.
    """

    def __init__(self, pair: Pair, context: int, cycles: int) -> None:
        self.pair, self.context = pair, context
        self.calls = math.ceil(cycles / pair.config.cycle.cycles_per_call)
        self.stops = pair.put(jnp.full_like(pair.stops, -1))  # decoding's program, and no text ends
        prompt_T = np.arange(context, dtype=np.int32) % pair.config.target.vocab_size
        self.state = prefill(pair, prompt_T)
        check_tokens(pair, (int(self.state.root),))

    def cycle_seconds(self, policy: Policy) -> float:
        """Seconds of one cycle of a policy."""
        policy = self.pair.put(policy.traced())
        state = with_history(self.pair, policy, self.reset_state())
        run = partial(step.run_cycles, self.pair.model, policy, self.stops)
        self.state, seconds = self.time(run, state)
        return seconds

    def plain_seconds(self) -> float:
        """Seconds of one autoregressive step."""
        state = self.reset_state()
        root, sampling = jax.tree.map(jnp.copy, (state.root, state.sampling))
        run = partial(step.run_plain, self.pair.model, self.stops)
        plain, seconds = self.time(run, PlainState(state.target_cache, root, sampling))
        self.state = state.replace(target_cache=plain.cache)
        return seconds

    def reset_state(self) -> CycleState:
        """The state with only the prompt committed; slots after it are overwritten."""
        length, before_root, one = self.pair.put(
            (jnp.int32(self.context), jnp.int32(self.context - 1), jnp.int32(1))
        )
        return self.state.replace(
            target_cache=self.state.target_cache.replace(length=length),
            draft_cache=self.state.draft_cache.replace(length=before_root),
            pending=self.state.pending.replace(count=one),
        )

    def time(self, run: Callable[[Any, jax.Array], Any], state: Any) -> tuple[Any, float]:
        """The state after some calls in a row and the seconds of one cycle or step in them.

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
        calls: list[Cycles | PlainSteps] = []
        for call in range(1, self.calls + 1):
            done = following
            state, following = run(state, done.left if call < self.calls else none)
            calls.append(jax.device_get(done))
        seconds = time.perf_counter() - started
        jax.device_get(following)
        count = sum(int(each.count) for each in calls)
        if count < self.calls * cycle.cycles_per_call:
            for each in calls:  # a missing token ends a text
                tokens = each.result.token if isinstance(each, Cycles) else each.token
                check_tokens(self.pair, tokens.reshape(-1).tolist())
            raise UserError(
                f"There is no room to time cycles after {self.context} tokens in a `context` of "
                f"{cycle.context}; measure at smaller `contexts`."
            )
        return state, seconds / count


def profile(
    pair: Pair,
    widths: PolicyConfig = EMBEDDED_POLICY,
    config: ProfileConfig = ProfileConfig(),
    store: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> LatencyTable:
    """The latency table of this device for a pair: what every (levels, size) costs here.

    Any text serves: of a cycle's time, only the draft's extension depends on what is accepted, and
    that is timed as it comes.

    Args:
      widths: of the learned policies whose decisions are timed.
      store: a JSON file that keeps what is measured at once, for a killed measurement to go on
        from; the caller deletes it when the table is saved.
      progress: called with the share that is done.

    Raises:
      UserError: there is no room for cycles after a context, or the device is too busy.

    Example:
      >>> import ltd_jax as ltd
      >>> from ltd_jax.replay.profile import ProfileConfig
      >>> small = ltd.CycleConfig(beam_width=2, max_levels=2, sizes=(2, 4), context=96)
      >>> quick = ProfileConfig(cycles=1, visits=3, policy_visits=1)
      >>> table = ltd.profile(ltd.load(cycle=small), config=quick)
      >>> table.cycle_seconds.shape  # contexts, levels, sizes
      (1, 2, 2)
    """
    return profile_in_turns([pair], widths, config, [store], progress)[0]


def profile_in_turns(
    pairs: Sequence[Pair],
    widths: PolicyConfig,
    config: ProfileConfig,
    stores: Sequence[Path | None],
    progress: Callable[[float], None] = lambda share: None,
) -> list[LatencyTable]:
    """The tables of several pairs, visited in turns: a drift of the device favours none of them.

    Args:
      stores: a JSON file for every pair, or None; else as of `profile`.
    """
    timers = [
        [CycleTimer(pair, context, config.cycles) for context in config.contexts] for pair in pairs
    ]
    widths_said = {"policy": dataclasses.asdict(widths)}
    kept = [
        ResumableStore(path, profile_identity(pair, config) | widths_said)
        for pair, path in zip(pairs, stores, strict=True)
    ]
    progress(0.0)  # compiling comes first
    seconds = _visit_in_turns(timers, kept, config, lambda share: progress(VISITS_SHARE * share))
    tables = []
    for timers_of_pair, store, seconds_of_pair in zip(timers, kept, seconds, strict=True):
        tables.append(_table(timers_of_pair[0], store, seconds_of_pair, widths, config))
        progress(VISITS_SHARE + (1 - VISITS_SHARE) * len(tables) / len(pairs))
    return tables


def profile_identity(pair: Pair, config: ProfileConfig) -> dict[str, Any]:
    """JSON that two halves of a measurement must have in common."""
    return pair.record | {"jax": jax.__version__, "measure": dataclasses.asdict(config)}


def _visit_in_turns(
    timers: Sequence[Sequence[CycleTimer]],
    stores: Sequence[ResumableStore],
    config: ProfileConfig,
    progress: Callable[[float], None],
) -> list[np.ndarray]:
    """Seconds of every pair in all visits, [visits, L, D, V, 2] as `remove_drift` takes them."""
    for timer in itertools.chain.from_iterable(timers):
        timer.cycle_seconds(Constant(1, timer.pair.config.cycle.sizes[0]))  # compiles, warms up
        timer.plain_seconds()
    visits: list[list[np.ndarray]] = [[] for _ in timers]
    turns = list(np.ndindex(config.visits, len(config.contexts), len(timers)))
    for done, (visit, row, index) in enumerate(turns, 1):
        timer = timers[index][row]
        random = np.random.default_rng([config.seed, visit, row])
        name = f"visit {visit} at {timer.context}"
        visits[index].append(stores[index].entry(name, partial(_visit, timer, random)))
        progress(done / len(turns))
    leading = (config.visits, len(config.contexts))
    return [np.stack(of_pair).reshape(*leading, *of_pair[0].shape) for of_pair in visits]


def _visit(timer: CycleTimer, random: np.random.Generator) -> np.ndarray:
    """Every setting once, in random order: seconds of a cycle, and of plain steps around it."""
    cycle = timer.pair.config.cycle
    seconds = np.zeros((cycle.max_levels, len(cycle.sizes), 2))
    before = timer.plain_seconds()
    for level, size_index in random.permutation(list(np.ndindex(seconds.shape[:2]))).tolist():
        cycle_seconds = timer.cycle_seconds(Constant(level + 1, cycle.sizes[size_index]))
        after = timer.plain_seconds()
        seconds[level, size_index] = cycle_seconds, (before + after) / 2
        before = after
    return seconds


def _table(
    timer: CycleTimer,
    store: ResumableStore,
    seconds: np.ndarray,
    widths: PolicyConfig,
    config: ProfileConfig,
) -> LatencyTable:
    """A pair's table from the seconds [visits, L, D, V, 2] of its visits; measures what is left."""
    median_LDV, plain_L = remove_drift(seconds)
    try:
        cycle_LDV = fit_sum(median_LDV)
    except UserError:
        store.forget()  # the same command measures anew
        raise
    misfit = float(np.median(np.abs(median_LDV / cycle_LDV - 1)))
    cycle, rows = timer.pair.config.cycle, len(config.contexts)
    policy = networks.init(jax.random.key(config.seed), cycle, widths)
    decisions = partial(time_decisions, timer, policy, config.policy_visits)
    overhead = Overhead(*store.entry("policies", decisions).tolist())
    draft_D = store.entry("drafting alone", partial(time_drafting, timer))
    verify_V = store.entry("verifying alone", partial(time_verifying, timer))
    origin = timer.pair.environment | timer.pair.record
    return LatencyTable(
        contexts=np.asarray(config.contexts, np.int32),
        sizes=cycle.sizes,
        cycle_seconds=cycle_LDV,
        draft_seconds=np.tile(draft_D, (rows, 1)),
        verify_seconds=np.tile(verify_V, (rows, 1)),
        plain_seconds=plain_L,
        depth_seconds=overhead.depth_seconds,
        size_seconds=overhead.size_seconds,
        provenance=origin | {"policy": dataclasses.asdict(widths), "misfit": misfit},
    )


def remove_drift(seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of cycles [L, D, V] and of plain steps [L] at the device's median speed.

    Args:
      seconds: [visits, L, D, V, 2] of a cycle, and of a plain step at the same moment.
    """
    plain_L = np.median(seconds[..., 1], axis=(0, 2, 3))
    ratio_LDV = np.median(seconds[..., 0] / seconds[..., 1], axis=0)
    return ratio_LDV * plain_L[:, None, None], plain_L


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


class Overhead(NamedTuple):
    """Seconds of a policy's own time."""

    depth_seconds: float  # of a decision after a draft pass, with what is remembered of it
    size_seconds: float  # of the rest of a cycle's decisions


FREE = Overhead(0.0, 0.0)


def time_decisions(timer: CycleTimer, policy: Policy, visits: int) -> Overhead:
    """Seconds that a policy's decisions take in the program that decodes with it.

    Differences to a constant at one level and at most levels tell a decision after a draft pass
    from the rest.

    Args:
      timer: says where and how long.
      visits: pairs of visits, with and without decisions, at either number of levels, at most;
        medians of their differences count. Where a cycle is slow, decisions are a small share of
        it, and half a minute of visits tells enough.

    Raises:
      UserError: the policy does not fit the pair's cycle.
    """
    cycle = timer.pair.config.cycle
    policy.check(cycle)
    if policy.is_constant:
        return FREE
    size = cycle.sizes[min(1, len(cycle.sizes) - 1)]  # the least with a tree
    constants = [Constant(1, size), Constant(cycle.max_levels, size)]
    forced = [Forced(policy.traced(), constant) for constant in constants]
    timer.cycle_seconds(forced[0])  # compiles
    pairs: list[list[float]] = []
    started = time.perf_counter()
    while len(pairs) < visits:
        is_long = time.perf_counter() - started > POLICY_SECONDS
        if is_long and len(pairs) >= FEWEST_POLICY_VISITS:
            break
        pairs.append(
            [
                timer.cycle_seconds(deciding) - timer.cycle_seconds(constant)
                for deciding, constant in zip(forced, constants, strict=True)
            ]
        )  # both ends in turns: a drift of the device hits them alike
    extra = np.maximum(np.median(pairs, axis=0), 0.0).tolist()
    passes = max(cycle.max_levels - 1, 1)  # decisions after one: D against 1
    depth_seconds = max((extra[1] - extra[0]) / passes, 0.0)
    return Overhead(depth_seconds, max(extra[0] - depth_seconds, 0.0))


def with_overhead(simulator: Simulator, overhead: Overhead) -> Simulator:
    """The simulator whose decisions cost so much, where `run` charges them."""
    return simulator.replace(
        depth_seconds=jnp.float32(overhead.depth_seconds),
        size_seconds=jnp.float32(overhead.size_seconds),
    )


ROUNDS = 8  # of a component in one program
TIMES = 9  # that the program runs; the median counts


def time_drafting(timer: CycleTimer) -> list[float]:
    """Seconds of drafting alone, by levels [D]."""
    cycle, state = timer.pair.config.cycle, timer.reset_state()
    constants = [_constant(cycle, levels) for levels in range(1, cycle.max_levels + 1)]
    return [
        _median_seconds(_draft_rounds, state.root, timer.pair.model, constant, state)
        for constant in constants
    ]


def time_verifying(timer: CycleTimer) -> list[float]:
    """Seconds of verifying alone, by size [V]."""
    model, cycle, state = timer.pair.model, timer.pair.config.cycle, timer.reset_state()
    tree = _draft_rounds(state.root, model, _constant(cycle, cycle.max_levels), state)
    return [
        _median_seconds(_verify_rounds, state.root, model, tree, jnp.int32(size_index), state)
        for size_index in range(len(cycle.sizes))
    ]


def _constant(cycle: CycleConfig, levels: int) -> Policy:
    return Constant(levels, cycle.sizes[0]).traced()


def in_a_row(part: Callable[..., Any]) -> Callable[..., Any]:
    """A program of `ROUNDS` rounds of a part; it gives the last round's result.

    As in decoding, several rounds share one program, so dispatching it is not counted to each.

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


def _draft(token: jax.Array, model: Model, constant: Policy, state: CycleState) -> DraftTree:
    pending = state.pending.replace(token=state.pending.token.at[0].set(token))
    expansion, _ = expand.expand(model, constant, (), pending, state.draft_cache)
    return expansion.tree


def _verify(
    token: jax.Array, model: Model, tree: DraftTree, size_index: jax.Array, state: CycleState
) -> VerifyResult:
    result = verify.verify(model, tree, token, size_index, state.target_cache, state.sampling)
    return result.replace(sampling=None)


_draft_rounds, _verify_rounds = in_a_row(_draft), in_a_row(_verify)
