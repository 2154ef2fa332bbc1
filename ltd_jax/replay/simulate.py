"""The simulator: recorded texts decoded again by any policy (trace-driven simulation, no model).

In go a trace and a latency table; out come single cycles, the totals of whole texts, lists of
cycles. Under greedy decoding a cycle only decides how far along the fixed text the next one starts,
so nothing here is a model of decoding: tokens are looked up in the trace, exactly, and seconds in
the table. What policies see are the views of live decoding (`cycle.expand`), read where the trace
recorded them. Functions work on one position; callers `vmap`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import (
    NO_NODE,
    Constant,
    LevelView,
    Outcome,
    Policy,
    TreeView,
    overrides,
)
from ltd_jax.replay import latency
from ltd_jax.replay import trace as traces
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.trace import Trace


@struct.dataclass(kw_only=True)
class Simulator:
    """A trace under a latency table, on the device.

    Example:
      >>> import ltd_jax as ltd
      >>> pair = ltd.load()
      >>> trace = ltd.record(pair, ["import os"], new_tokens=8)
      >>> table = ltd.LatencyTable.find("epyc-2-cores-embedded", pair.config.cycle)
      >>> simulator = ltd.Simulator.of(trace, table, pair.config.cycle)
      >>> len(simulator.accepted)  # positions
      7
    """

    log_prob: jax.Array  # [P, D, W, W] f32 cumulative, -inf = no node
    parent: jax.Array  # [P, D, W] i32, slot * W + child of each row's node in the level above
    entropy: jax.Array  # [P, D, W] f32 nats, of the draft's distribution at each row
    root_entropy: jax.Array  # [P] f32 nats, of the target's distribution that the root came from
    hidden: jax.Array | None  # [P, D, W, E] f16, the draft's outputs; None = not recorded
    path: jax.Array  # [P, D] i32, each level's node (slot * W + child) that agrees; -1 = none
    accepted: jax.Array  # [P, D, V] i8
    expected: jax.Array | None  # [P, D, V] f32 mean committed tokens; None = count the text's own
    tokens_left: jax.Array  # [P] i32 tokens of the text after this position, >= 1
    length: jax.Array  # [P] i32 tokens before the root
    seconds: jax.Array  # [P, D, V] f32 of a whole cycle
    text_start: jax.Array  # [texts] i32 each text's first position
    task: jax.Array  # [texts] i32 index into the trace's provenance["tasks"]
    depth_seconds: jax.Array  # f32 [] of one decision of the depth policy
    size_seconds: jax.Array  # f32 [] of one decision of the size policy
    plain_seconds: jax.Array  # f32 [] of a plain decoding step, mean over positions
    config: CycleConfig = struct.field(pytree_node=False)

    @staticmethod
    def of(trace: Trace, table: LatencyTable, config: CycleConfig | None = None) -> "Simulator":
        """The simulator of a trace and a table; `config` is by default the cycle of the table.

        Raises:
          UserError: the two were made with different cycles, or the table does not say its own.
        """
        if config is None:
            if "cycle" not in table.provenance:
                raise UserError("The latency table does not say its cycle; give `config`.")
            config = CycleConfig(**table.provenance["cycle"])
        return build(trace, table, config)


_NOT_OF_POSITIONS = ("text_start", "task", "depth_seconds", "size_seconds", "plain_seconds")


def build(
    trace: Trace, table: LatencyTable, config: CycleConfig, expected: bool = False
) -> Simulator:
    """Puts a trace and a table on the device.

    Args:
      expected: count what cycles commit on average over the target's draws instead of what they
        commit along the trace's own text; needs a trace with acceptance probabilities.

    Raises:
      UserError: the trace or the table was made with other levels, beam width or sizes, or the
        trace lacks acceptance probabilities.
    """
    traces.check(trace, config)
    _require_grid(table, config, remedy="measure the latencies with this cycle")
    return Simulator(
        log_prob=jnp.asarray(trace.log_prob),
        parent=jnp.asarray(trace.parent),
        entropy=jnp.asarray(trace.entropy),
        root_entropy=jnp.asarray(trace.root_entropy),
        hidden=None if trace.hidden is None else jnp.asarray(trace.hidden),
        path=jnp.asarray(traces.agreeing_path(trace)),
        accepted=jnp.asarray(traces.accepted(trace, config)),
        expected=jnp.asarray(traces.expected(trace, config)) if expected else None,
        tokens_left=jnp.asarray(trace.tokens_left),
        length=jnp.asarray(trace.length),
        text_start=jnp.asarray(trace.text_start),
        task=jnp.asarray(trace.task[trace.text_start]),
        config=config,
        **_times(table, trace.length),
    )


def with_latency(simulator: Simulator, table: LatencyTable) -> Simulator:
    """The same texts on other hardware; what was recorded is shared, not copied.

    Raises:
      UserError: the table was made with other levels or sizes.
    """
    _require_grid(table, simulator.config, remedy="fit the table to this cycle")
    return simulator.replace(**_times(table, np.asarray(simulator.length)))


def _require_grid(table: LatencyTable, config: CycleConfig, *, remedy: str) -> None:
    if table.sizes != config.sizes or table.max_levels != config.max_levels:
        raise UserError(
            f"The latency table has {table.max_levels} levels and sizes {table.sizes}, the cycle "
            f"{config.max_levels} and {config.sizes}; {remedy}."
        )


def _times(table: LatencyTable, length_P: np.ndarray) -> dict[str, jax.Array]:
    """The fields of a simulator that come from a table."""
    row_P, share_P = latency.neighbours(table.contexts, length_P)
    table_LDV = jnp.asarray(table.cycle_seconds, jnp.float32)
    plain_P = latency.interpolate(table, table.plain_seconds, length_P)
    return {
        "seconds": _interpolate(table_LDV, row_P, jnp.asarray(share_P, jnp.float32)),
        "depth_seconds": jnp.float32(table.depth_seconds),
        "size_seconds": jnp.float32(table.size_seconds),
        "plain_seconds": jnp.float32(plain_P.mean()),
    }


@jax.jit
def _interpolate(table_LDV: jax.Array, row_P: jax.Array, share_P: jax.Array) -> jax.Array:
    """Seconds [P, D, V] between a table's row and the one after it.

    Compiled, since a processor's fused multiply-add rounds otherwise than two steps of numpy.
    """
    share_P11 = share_P[:, None, None]
    after_P = jnp.minimum(row_P + 1, table_LDV.shape[0] - 1)
    return (1 - share_P11) * table_LDV[row_P] + share_P11 * table_LDV[after_P]


def take_texts(simulator: Simulator, texts: Sequence[int]) -> Simulator:
    """A simulator of some of the texts, in the given order; `plain_seconds` stays that of all.

    Args:
      texts: their indices, at least one.
    """
    start, left_P = np.asarray(simulator.text_start), np.asarray(simulator.tokens_left)
    chosen = np.asarray(texts, np.int32)
    counts = left_P[start[chosen]]
    rows = np.concatenate([start[text] + np.arange(left_P[start[text]]) for text in chosen])
    taken = {
        name: leaf[rows]
        for name, leaf in vars(simulator).items()
        if isinstance(leaf, jax.Array) and name not in _NOT_OF_POSITIONS
    }
    first = np.append(0, np.cumsum(counts)[:-1]).astype(np.int32)
    return simulator.replace(**taken, text_start=jnp.asarray(first), task=simulator.task[chosen])


def level_view(simulator: Simulator, position: jax.Array, levels: jax.Array) -> LevelView:
    """What a policy sees at a position after `levels` draft passes."""
    newest = (position, levels - 1)
    hidden = simulator.hidden
    return LevelView(
        log_prob=simulator.log_prob[newest],
        levels=levels,
        length=simulator.length[position],
        entropy=simulator.entropy[newest],
        hidden=None if hidden is None else hidden[newest].astype(jnp.float32),
        root_entropy=simulator.root_entropy[position],
        parent=simulator.parent[newest],
    )


def tree_view(simulator: Simulator, position: jax.Array, levels: jax.Array) -> TreeView:
    """What a policy sees at a position of the tree of `levels` levels."""
    drafted_D = jnp.arange(simulator.config.max_levels) < levels
    return TreeView(
        log_prob=jnp.where(drafted_D[:, None, None], simulator.log_prob[position], NO_NODE),
        levels=levels,
        length=simulator.length[position],
        entropy=jnp.where(drafted_D[:, None], simulator.entropy[position], 0.0),
        root_entropy=simulator.root_entropy[position],
        parent=jnp.where(drafted_D[:, None], simulator.parent[position], 0),
    )


@struct.dataclass
class CycleOutcome:
    """What a cycle at one position gives."""

    accepted: jax.Array  # i32 []
    committed: jax.Array  # [] accepted + 1, at most what is left of the text; f32 where expected
    seconds: jax.Array  # f32 []
    next_position: jax.Array  # i32 [], means nothing where `over`
    over: jax.Array  # bool [] the text is over


def cycle_outcome(
    simulator: Simulator,
    position: jax.Array,
    levels: jax.Array,
    size_index: jax.Array,
    *,
    charge_decisions: bool,
    accepted: jax.Array | None = None,
) -> CycleOutcome:
    """The cycle at `position` with `levels` 1..D and the size at an index into config.sizes.

    Args:
      charge_decisions: also count the time of the policies' own decisions: one of the size policy,
        and one of the depth policy after every level; after the D-th it is asked, and not heard.
      accepted: i32 [], where nodes were not selected by log_prob (`accepted_by_priority`).
    """
    chosen = (position, levels - 1, size_index)
    seconds = simulator.seconds[chosen]
    if charge_decisions:
        seconds += simulator.size_seconds + simulator.depth_seconds * levels
    by_log_prob = accepted is None
    if accepted is None:
        accepted = simulator.accepted[chosen].astype(jnp.int32)
    left = simulator.tokens_left[position]
    committed = jnp.minimum(accepted + 1, left)
    over = committed == left
    next_position = position + committed
    if simulator.expected is not None and by_log_prob:
        committed = simulator.expected[chosen]
    return CycleOutcome(accepted, committed, seconds, next_position, over)


def accepted_by_priority(
    simulator: Simulator, position: jax.Array, priority_DWW: jax.Array, size: jax.Array
) -> jax.Array:
    """Accepted tokens when the `size` nodes of highest priority are verified; i32 []."""
    path_D = simulator.path[position]
    rank_D = traces.beaten_by(priority_DWW, path_D).sum(axis=1)
    priority_DN = priority_DWW.reshape(priority_DWW.shape[0], -1)
    on_path_D = jnp.take_along_axis(priority_DN, path_D[:, None], axis=1)[:, 0]
    chosen_D = (path_D != traces.NO_NODE) & (on_path_D > NO_NODE) & (rank_D < size)
    return jnp.cumprod(chosen_D.astype(jnp.int32)).sum()


@struct.dataclass
class Cycle:
    """One cycle, and the choices that led to it."""

    levels: jax.Array  # i32 []
    size_index: jax.Array  # i32 []
    outcome: CycleOutcome
    history: Any  # the policy's, after the cycle


def take_cycle(
    simulator: Simulator,
    policy: Policy,
    position: jax.Array,
    history: Any,
    *,
    charge_decisions: bool,
) -> Cycle:
    """The cycle at a position, as a policy with a history chooses it."""
    config = simulator.config
    levels, history = draft(simulator, policy, position, history)
    view = tree_view(simulator, position, levels)
    size_index = policy.choose_size(history, view, config)
    accepted = None
    if overrides(policy, "priority"):
        priority_DWW = policy.priority(history, view, config)
        size = jnp.asarray(config.sizes, jnp.float32)[size_index]
        accepted = accepted_by_priority(simulator, position, priority_DWW, size)
    outcome = cycle_outcome(
        simulator,
        position,
        levels,
        size_index,
        charge_decisions=charge_decisions,
        accepted=accepted,
    )
    told = Outcome(levels, size_index, outcome.accepted)
    return Cycle(levels, size_index, outcome, policy.update_history(history, told, config))


def draft(
    simulator: Simulator, policy: Policy, position: jax.Array, history: Any
) -> tuple[jax.Array, Any]:
    """Levels until the policy's first stop, and its history after it saw them.

    A policy that remembers nothing between two passes is asked after all of them at once, as one
    batch for its networks; another one pass after the other.
    """
    config = simulator.config
    if not overrides(policy, "observe_level"):
        return choose_levels(simulator, policy, position, history), history

    def grow(carry: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, Any]:
        _, levels, history = carry
        view = level_view(simulator, position, levels)
        history = policy.observe_level(history, view, config)
        going = policy.keep_drafting(history, view, config) & (levels < config.max_levels)
        return going, levels + going, history

    start = (jnp.bool_(True), jnp.int32(1), history)
    _, levels, history = jax.lax.while_loop(lambda carry: carry[0], grow, start)
    return levels, history


def choose_levels(
    simulator: Simulator, policy: Policy, position: jax.Array, history: Any
) -> jax.Array:
    """`draft` for a policy that remembers nothing between two passes."""

    def keep(levels: jax.Array) -> jax.Array:
        view = level_view(simulator, position, levels)
        return policy.keep_drafting(history, view, simulator.config)

    keep_D = jax.vmap(keep)(jnp.arange(1, simulator.config.max_levels))
    return 1 + jnp.cumprod(keep_D.astype(jnp.int32)).sum()


@struct.dataclass
class Totals:
    """Sums over the cycles of a text; all f32, the last axis is the texts."""

    committed: jax.Array
    seconds: jax.Array
    cycles: jax.Array
    levels: jax.Array
    size: jax.Array  # verified nodes asked for


@struct.dataclass
class _Walk:
    position: jax.Array
    over: jax.Array
    history: Any
    collected: Any


def walk(
    simulator: Simulator,
    decide: Callable[[jax.Array, Any], Cycle],
    history: Any,
    collect: Callable[[Any, jax.Array, Cycle], Any],
    start: Any,
) -> Any:
    """Decodes every text from its first position to its end, cycle after cycle.

    Args:
      decide: position, history -> the cycle there.
      history: at the start of every text.
      collect: what was collected so far, the position, the cycle there -> what is collected then.
      start: what is collected before the first cycle.

    Returns:
      what was collected, with a leading axis [texts].
    """

    def step(walk: _Walk) -> _Walk:
        cycle = decide(walk.position, walk.history)
        collected = collect(walk.collected, walk.position, cycle)
        return _Walk(cycle.outcome.next_position, cycle.outcome.over, cycle.history, collected)

    def walk_text(first: jax.Array) -> Any:
        begin = _Walk(first, jnp.bool_(False), history, start)
        return jax.lax.while_loop(lambda walk: ~walk.over, step, begin).collected

    return jax.vmap(walk_text)(simulator.text_start)


def walk_totals(
    simulator: Simulator, decide: Callable[[jax.Array, Any], Cycle], history: Any
) -> Totals:
    """The sums over the cycles of a `walk`, f32 [texts]."""
    sizes_V = jnp.asarray(simulator.config.sizes, jnp.float32)

    def add(totals: Totals, position: jax.Array, cycle: Cycle) -> Totals:
        outcome, size = cycle.outcome, sizes_V[cycle.size_index]
        gained = Totals(outcome.committed, outcome.seconds, jnp.int32(1), cycle.levels, size)
        return jax.tree.map(lambda total, gain: total + gain, totals, gained)

    return walk(simulator, decide, history, add, Totals(*[jnp.float32(0)] * 5))


def run(simulator: Simulator, policy: Policy, *, charge_decisions: bool = True) -> Totals:
    """Every text from its first position to its end: what decoding with a policy would give.

    Policies of one kind and shape share one program. Under `vmap`, or inside another program, a
    policy's numbers are traced and were checked by whoever chose them.

    Args:
      charge_decisions: also count the time of the policy's own decisions.

    Returns:
      Totals of f32 [texts].

    Raises:
      UserError: the policy chooses what the cycle lacks.
    """
    return _run(simulator, _traced(simulator, policy), charge_decisions=charge_decisions)


def _traced(simulator: Simulator, policy: Policy) -> Policy:
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(policy)):
        policy.check(simulator.config)
    return policy.traced()


@partial(jax.jit, static_argnames="charge_decisions")
def _run(simulator: Simulator, policy: Policy, *, charge_decisions: bool) -> Totals:
    choose = partial(take_cycle, simulator, policy, charge_decisions=charge_decisions)
    return walk_totals(simulator, choose, policy.init_history(simulator.config))


def constants(simulator: Simulator) -> Totals:
    """`run` of every constant setting, no decision times; Totals of f32 [D, V, texts]."""
    sizes_V = jnp.asarray(simulator.config.sizes)
    levels_D = jnp.arange(1, simulator.config.max_levels + 1)
    one = lambda levels, size: run(simulator, Constant(levels, size), charge_decisions=False)
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(levels_D, sizes_V)


@jax.jit
def follow(simulator: Simulator, levels_P: jax.Array, size_index_P: jax.Array) -> Totals:
    """Totals, f32 [texts], of choices that are given for every position; no decision times."""

    def choose(position: jax.Array, history: Any) -> Cycle:
        levels, size_index = levels_P[position], size_index_P[position]
        outcome = cycle_outcome(simulator, position, levels, size_index, charge_decisions=False)
        return Cycle(levels, size_index, outcome, history)

    return walk_totals(simulator, choose, ())


def throughput(totals: Totals) -> jax.Array:
    """Tokens per second over all texts, both summed before dividing (Eq. 1)."""
    return totals.committed.sum(-1) / totals.seconds.sum(-1)


def mean_of_tasks(simulator: Simulator, summed: ArrayLike, over: ArrayLike) -> np.ndarray:
    """Two quantities of texts, summed over each task and divided, and the mean over tasks, f64.

    Args:
      summed, over: [..., texts], such as committed tokens and seconds.
    """
    task = np.asarray(simulator.task)
    by_task = [
        np.asarray(summed, np.float64)[..., task == one].sum(-1)
        / np.asarray(over, np.float64)[..., task == one].sum(-1)
        for one in np.unique(task)
    ]
    return np.mean(by_task, axis=0)


class CycleList(NamedTuple):
    """All cycles of all texts, in order (numpy, on the host); i32 [cycles] each."""

    position: Any
    levels: Any
    size_index: Any
    accepted: Any


def list_cycles(simulator: Simulator, policy: Policy) -> CycleList:
    """The single cycles that `run` sums up, of every text from its first position to its end.

    Raises:
      UserError: the policy chooses what the cycle lacks.
    """
    most = int(np.asarray(simulator.tokens_left).max())  # every cycle commits a token
    cycles = jax.device_get(_list_cycles(simulator, _traced(simulator, policy), most=most))
    return CycleList(*(field[cycles.position >= 0] for field in cycles))


@partial(jax.jit, static_argnames="most")
def _list_cycles(simulator: Simulator, policy: Policy, *, most: int) -> CycleList:
    """Fields [texts, most]; position -1 = the text was over before."""

    def append(rows: CycleList, position: jax.Array, cycle: Cycle) -> CycleList:
        count = (rows.position >= 0).sum()
        row = CycleList(position, cycle.levels, cycle.size_index, cycle.outcome.accepted)
        return jax.tree.map(lambda rows, value: rows.at[count].set(value), rows, row)

    choose = partial(take_cycle, simulator, policy, charge_decisions=False)
    none = CycleList(*[jnp.full((most,), -1, jnp.int32)] * 4)
    return walk(simulator, choose, policy.init_history(simulator.config), append, none)


def choice_entropy(values: np.ndarray) -> float:
    """Nats of how often each value is chosen; 0 = always the same one."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(max(-(share * np.log(share)).sum(), 0.0))
