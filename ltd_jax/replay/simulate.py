"""A trace and a latency table on the device, and what a controller sees of them.

The views are those of live decoding (`cycle.expand`), read where the trace recorded them.
"""
# DOC """Cycles replayed from a trace: exact tokens, time from a measured table (paper Sec. 3.1).
# DOC
# DOC In goes a `Replay`, a trace and a latency table on the device; out come single cycles and the
# DOC totals of any controller over whole texts. Functions work on one position; callers `vmap`. Under
# DOC greedy decoding a cycle only decides how far along the fixed text the next one starts, so nothing
# DOC here is a model of decoding: it is a look-up.
# DOC """
# DOC """The same texts on other hardware: only what comes from the latency table changes."""
# DOC """The single cycles of a controller along replayed texts: where it stands and what it chooses.
# DOC
# DOC `cycles.run` gives totals; here are the cycles behind them, for pictures of what policies do.
# DOC """

import functools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import (
    ConstantParams,
    Controller,
    LevelView,
    Outcome,
    TreeView,
    constant,
    noticed,
)
from ltd_jax.replay import latency, sampled
from ltd_jax.replay import trace as traces
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.trace import Trace


@struct.dataclass
class Simulator:
    """A trace and a latency table on the device."""

    score: jax.Array  # [P, D, W, W] f32 cumulative log-probability, -inf = no node
    parent: jax.Array  # [P, D, W] i32, slot * W + child of each row's node in the level above
    entropy: jax.Array  # [P, D, W] f32 nats, of the draft's distribution at each row
    root_entropy: jax.Array  # [P] f32 nats, of the target's distribution that the root came from
    hidden: jax.Array | None  # [P, D, W, E] f16, the draft's outputs; None = not recorded
    path: jax.Array  # [P, D] i32, each level's node (slot * W + child) that agrees; -1 = none
    accepted: jax.Array  # [P, D, V] i8
    expected: jax.Array | None  # [P, D, V] f32 mean committed tokens; None = count the text's own
    remaining: jax.Array  # [P] i32 tokens of the text after this position, >= 1
    length: jax.Array  # [P] i32 tokens before the root
    context: jax.Array  # [P] i32 row of `seconds` at or below the position's length
    share: jax.Array  # [P] f32 weight of the row after `context`, in [0, 1]
    first: jax.Array  # [texts] i32 each text's first position
    task: jax.Array  # [texts] i32 index into the trace's provenance["tasks"]
    seconds: jax.Array  # [contexts, D, V] f32 of a whole cycle
    depth_seconds: jax.Array  # f32 [] of one decision of the depth policy
    size_seconds: jax.Array  # f32 [] of one decision of the size policy
    plain_seconds: jax.Array  # f32 [] of a plain decoding step, mean over positions


def build(
    trace: Trace, table: LatencyTable, config: CycleConfig, expected: bool = False
) -> Simulator:
    """Puts a trace and a table on the device.

    Args:
      expected: count what cycles commit on average over the target's draws instead of what they
        commit along the trace's own text; needs a trace with reach (replay/reach.py).

    Raises:
      UserError: the trace or the table was made with other levels, beam width or sizes, or without
        reach.
    """
    traces.check(trace, config)
    if table.sizes != config.sizes or table.max_levels != config.max_levels:
        raise UserError(
            f"The latency table has {table.max_levels} levels and sizes {table.sizes}, the cycle "
            f"{config.max_levels} and {config.sizes}; measure the latencies with this cycle."
        )
    context, share = latency.neighbours(table.contexts, trace.length)
    plain = latency.interpolate(table, table.plain_seconds, trace.length)
    return Simulator(
        score=jnp.asarray(trace.score),
        parent=jnp.asarray(trace.parent),
        entropy=jnp.asarray(trace.entropy),
        root_entropy=jnp.asarray(trace.root_entropy),
        hidden=None if trace.hidden is None else jnp.asarray(trace.hidden),
        path=jnp.asarray(traces.agreeing_path(trace)),
        accepted=jnp.asarray(traces.accepted(trace, config)),
        expected=jnp.asarray(sampled.expected(trace, config)) if expected else None,
        remaining=jnp.asarray(trace.remaining),
        length=jnp.asarray(trace.length),
        context=jnp.asarray(context),
        share=jnp.asarray(share, jnp.float32),
        first=jnp.asarray(trace.first),
        task=jnp.asarray(trace.task[trace.first]),
        seconds=jnp.asarray(table.cycle_seconds, jnp.float32),
        depth_seconds=jnp.float32(table.depth_seconds),
        size_seconds=jnp.float32(table.size_seconds),
        plain_seconds=jnp.float32(plain.mean()),
    )


def level_view(replay: Simulator, position: jax.Array, levels: jax.Array) -> LevelView:
    """What a controller sees at a position after `levels` draft passes."""
    newest = (position, levels - 1)
    return LevelView(
        score=replay.score[newest],
        levels=levels,
        length=replay.length[position],
        entropy=replay.entropy[newest],
        hidden=None if replay.hidden is None else replay.hidden[newest].astype(jnp.float32),
        root_entropy=replay.root_entropy[position],
        parent=replay.parent[newest],
    )


def tree_view(replay: Simulator, position: jax.Array, levels: jax.Array) -> TreeView:
    """What a controller sees at a position of the tree of `levels` levels."""
    drafted_D = jnp.arange(replay.score.shape[1]) < levels
    return TreeView(
        score=jnp.where(drafted_D[:, None, None], replay.score[position], -jnp.inf),
        levels=levels,
        length=replay.length[position],
        entropy=jnp.where(drafted_D[:, None], replay.entropy[position], 0.0),
        root_entropy=replay.root_entropy[position],
        parent=jnp.where(drafted_D[:, None], replay.parent[position], 0),
    )


_CONSTANT = constant()


@struct.dataclass
class CycleOutcome:
    """What a cycle at one position gives."""

    accepted: jax.Array  # i32 []
    committed: jax.Array  # i32 [] accepted + 1, at most what remains of the text
    seconds: jax.Array  # f32 []
    next_position: jax.Array  # i32 [], means nothing where `over`
    over: jax.Array  # bool [] the text is over


@struct.dataclass
class Totals:
    """Sums over the cycles of a text; all f32, the last axis is the texts."""

    committed: jax.Array
    seconds: jax.Array
    cycles: jax.Array
    levels: jax.Array
    size: jax.Array  # verified nodes asked for


@struct.dataclass
class Drafted:
    """What a controller drafted."""

    levels: jax.Array  # i32 []
    state: Any  # the controller's, after it saw these levels


@struct.dataclass
class Taken:
    """A cycle and the choices that led to it."""

    result: CycleOutcome
    levels: jax.Array  # i32 []
    size: jax.Array  # i32 [] index into config.sizes
    state: Any  # the controller's, after the cycle


@struct.dataclass
class _RunState:
    position: jax.Array
    over: jax.Array
    state: Any  # the controller's
    totals: Totals


def cycle_outcome(
    replay: Simulator,
    position: jax.Array,
    levels: jax.Array,
    size: jax.Array,
    learned: bool,
    accepted: jax.Array | None = None,
) -> CycleOutcome:
    """The cycle at `position` with `levels` 1..D and `size`, an index into config.sizes.

    Args:
      accepted: i32 [], where nodes were not selected by their scores (`accepted_by_rank`).
      learned: also count the time of the policies' own decisions: one of the size policy, and one
        of the depth policy after every level; behind the D-th it is asked as well, and not heard.
    """
    row, share = replay.context[position], replay.share[position]
    row_after = jnp.minimum(row + 1, replay.seconds.shape[0] - 1)
    seconds = (1 - share) * replay.seconds[row, levels - 1, size]
    seconds += share * replay.seconds[row_after, levels - 1, size]
    if learned:
        seconds += replay.size_seconds + replay.depth_seconds * levels
    by_score = accepted is None
    if accepted is None:
        accepted = replay.accepted[position, levels - 1, size].astype(jnp.int32)
    committed = jnp.minimum(accepted + 1, replay.remaining[position])
    over = committed == replay.remaining[position]
    next_position = position + committed
    if replay.expected is not None and by_score:
        committed = replay.expected[position, levels - 1, size]
    return CycleOutcome(accepted, committed, seconds, next_position, over)


@partial(jax.jit, static_argnames=("config", "controller", "learned"))
def run(
    replay: Simulator, config: CycleConfig, controller: Controller, params: Any, learned: bool
) -> Totals:
    """Every text from its first position to its end: what decoding with `controller` would give.

    Compiles once per controller object, so callers keep theirs.

    Returns:
      Totals of f32 [texts].
    """
    sizes_V = jnp.asarray(config.sizes, jnp.float32)

    def cycle(walk: _RunState) -> _RunState:
        taken = take(replay, config, controller, params, walk.state, walk.position, learned)
        result, levels, size = taken.result, taken.levels, sizes_V[taken.size]
        gained = Totals(result.committed, result.seconds, jnp.int32(1), levels, size)
        return _RunState(
            position=result.next_position,
            over=result.over,
            state=taken.state,
            totals=jax.tree.map(lambda total, gain: total + gain, walk.totals, gained),
        )

    def walk_text(first: jax.Array) -> Totals:
        totals = Totals(*[jnp.float32(0)] * 5)
        start = _RunState(first, jnp.bool_(False), controller.init(), totals)
        return jax.lax.while_loop(lambda walk: ~walk.over, cycle, start).totals

    return jax.vmap(walk_text)(replay.first)


def take(
    replay: Simulator,
    config: CycleConfig,
    controller: Controller,
    params: Any,
    state: Any,
    position: jax.Array,
    learned: bool,
) -> Taken:
    """One cycle at a position, as a controller in a state chooses it."""
    drafted = draft(replay, position, controller, params, state)
    levels, state = drafted.levels, drafted.state
    size = choose_size(replay, position, levels, controller, params, state)
    accepted = None
    if controller.rank is not None:
        rank_DWW = controller.rank(params, state, tree_view(replay, position, levels))
        nodes = jnp.asarray(config.sizes, jnp.float32)[size]
        accepted = accepted_by_rank(replay, position, rank_DWW, nodes)
    result = cycle_outcome(replay, position, levels, size, learned, accepted)
    state = controller.update(state, Outcome(levels, size, result.accepted))
    return Taken(result, levels, size, state)


def accepted_by_rank(
    replay: Simulator, position: jax.Array, rank_DWW: jax.Array, size: jax.Array
) -> jax.Array:
    """Accepted tokens when the `size` nodes of highest rank are verified; i32 []."""
    path_D = replay.path[position]
    place_D = traces.beaten_by(rank_DWW, path_D).sum(axis=1)
    rank_DN = rank_DWW.reshape(rank_DWW.shape[0], -1)
    own_D = jnp.take_along_axis(rank_DN, path_D[:, None], axis=1)[:, 0]
    chosen_D = (path_D != traces.NO_NODE) & (own_D > -jnp.inf) & (place_D < size)
    return jnp.cumprod(chosen_D.astype(jnp.int32)).sum()


def throughput(totals: Totals) -> jax.Array:
    """Tokens per second over all texts, both summed before dividing (Eq. 1)."""
    return totals.committed.sum(-1) / totals.seconds.sum(-1)


def constants(replay: Simulator, config: CycleConfig) -> Totals:
    """`run` of every constant setting, no decision times; Totals of f32 [D, V, texts]."""
    sizes_V = jnp.arange(len(config.sizes))
    levels_D = jnp.arange(1, config.max_levels + 1)
    walk = partial(run, replay, config, _CONSTANT, learned=False)
    by_size = jax.vmap(lambda levels, size: walk(ConstantParams(levels, size)), (None, 0))
    return jax.vmap(by_size, (0, None))(levels_D, sizes_V)


def draft(
    replay: Simulator, position: jax.Array, controller: Controller, params: Any, state: Any
) -> Drafted:
    """Levels until the first stop.

    A controller that remembers nothing between two passes is asked after all of them at once, as
    one batch for its networks; another one pass after the other.
    """
    if controller.notice is None:
        return Drafted(choose_levels(replay, position, controller, params, state), state)

    def ask(drafted: Drafted) -> tuple[Any, jax.Array]:
        view = level_view(replay, position, drafted.levels)
        state = noticed(controller, params, drafted.state, view)
        return state, controller.keep_drafting(params, state, view)

    def grow(carry: tuple[Drafted, jax.Array]) -> tuple[Drafted, jax.Array]:
        drafted, _ = carry
        state, keep = ask(drafted)
        going = keep & (drafted.levels < replay.score.shape[1])
        return Drafted(drafted.levels + going, state), going

    start = (Drafted(jnp.int32(1), state), jnp.bool_(True))
    return jax.lax.while_loop(lambda carry: carry[1], grow, start)[0]


def choose_levels(
    replay: Simulator, position: jax.Array, controller: Controller, params: Any, state: Any
) -> jax.Array:
    """`draft` for a controller that remembers nothing between two passes."""

    def keep(levels: jax.Array) -> jax.Array:
        return controller.keep_drafting(params, state, level_view(replay, position, levels))

    keep_D = jax.vmap(keep)(jnp.arange(1, replay.score.shape[1]))
    return 1 + jnp.cumprod(keep_D.astype(jnp.int32)).sum()


def choose_size(
    replay: Simulator,
    position: jax.Array,
    levels: jax.Array,
    controller: Controller,
    params: Any,
    state: Any,
) -> jax.Array:
    """The size chosen at a position for the tree of `levels` levels; an index into config.sizes."""
    return controller.choose_size(params, state, tree_view(replay, position, levels))


def with_latency(replay: Simulator, table: LatencyTable, config: CycleConfig) -> Simulator:
    """A replay under another table; what was recorded is shared, not copied.

    Raises:
      UserError: the table was made with other levels or sizes.
    """
    if table.sizes != config.sizes or table.max_levels != config.max_levels:
        raise UserError(
            f"The latency table has {table.max_levels} levels and sizes {table.sizes}, the cycle "
            f"{config.max_levels} and {config.sizes}; fit the table to this cycle."
        )
    length_P = np.asarray(replay.length)
    context_P, share_P = latency.neighbours(table.contexts, length_P)
    plain_P = latency.interpolate(table, table.plain_seconds, length_P)
    return replay.replace(
        context=jnp.asarray(context_P),
        share=jnp.asarray(share_P, jnp.float32),
        seconds=jnp.asarray(table.cycle_seconds, jnp.float32),
        depth_seconds=jnp.float32(table.depth_seconds),
        size_seconds=jnp.float32(table.size_seconds),
        plain_seconds=jnp.float32(plain_P.mean()),
    )


OVER = -1


class CycleList(NamedTuple):
    """All cycles of all texts, in order; i32 [cycles] each."""

    position: Any
    levels: Any
    size: Any  # index into config.sizes
    accepted: Any


class _Place(NamedTuple):
    position: jax.Array
    over: jax.Array
    state: Any  # the controller's


def list_cycles(
    replay: Simulator, config: CycleConfig, controller: Controller, params: Any
) -> CycleList:
    """Every text from its first position to its end."""
    steps = int(np.asarray(replay.remaining).max())  # every cycle commits a token
    found = jax.device_get(_list_cycles(replay, config, controller, params, steps))
    return CycleList(*(part[found.position >= 0] for part in found))


def follow(replay: Simulator, levels_P: np.ndarray, size_P: np.ndarray) -> CycleList:
    """The cycles of given choices: levels and index of the size at every position."""
    accepted_PDV, remaining_P = np.asarray(replay.accepted), np.asarray(replay.remaining)
    visited = []
    for first in np.asarray(replay.first):
        position, end = int(first), int(first + remaining_P[first])
        while position < end:
            visited.append(position)
            accepted = accepted_PDV[position, levels_P[position] - 1, size_P[position]]
            position += int(accepted) + 1
    place = np.asarray(visited, np.int32)
    levels, size = levels_P[place], size_P[place]
    return CycleList(place, levels, size, accepted_PDV[place, levels - 1, size].astype(np.int32))


def totals_of(replay: Simulator, config: CycleConfig, found: CycleList) -> Totals:
    """Sums over the cycles of every text, no decision times; as `cycles.run` gives them."""
    result = _outcomes(replay, found.position, found.levels, found.size)
    text = np.searchsorted(np.asarray(replay.first), found.position, side="right") - 1
    sizes = np.asarray(config.sizes)[found.size]
    one = np.ones(len(text))
    add = functools.partial(np.bincount, text, minlength=len(replay.first))
    parts = (result.committed, result.seconds, one, found.levels, sizes)
    return Totals(*(jnp.asarray(add(np.asarray(part)), "float32") for part in parts))


@jax.jit
def _outcomes(
    replay: Simulator, position_C: jax.Array, levels_C: jax.Array, size_C: jax.Array
) -> CycleOutcome:
    outcome = functools.partial(cycle_outcome, replay, learned=False)
    return jax.vmap(outcome)(position_C, levels_C, size_C)


@functools.partial(jax.jit, static_argnames=("config", "controller", "steps"))
def _list_cycles(
    replay: Simulator, config: CycleConfig, controller: Controller, params: Any, steps: int
) -> CycleList:
    """Fields [texts, steps]; position -1 = the text is over."""

    def cycle(carry: _Place, _: None) -> tuple[_Place, CycleList]:
        position = carry.position
        taken = take(replay, config, controller, params, carry.state, position, False)
        result = taken.result
        place = jnp.where(carry.over, OVER, position)
        found = CycleList(place, taken.levels, taken.size, result.accepted)
        after = jnp.where(result.over, position, result.next_position)
        return _Place(after, carry.over | result.over, taken.state), found

    def text(first: jax.Array) -> CycleList:
        start = _Place(first, jnp.bool_(False), controller.init())
        return jax.lax.scan(cycle, start, None, length=steps)[1]

    return jax.vmap(text)(replay.first)


def choice_entropy(values: np.ndarray) -> float:
    """Nats of how often each value is chosen; 0 = always the same one."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(max(-(share * np.log(share)).sum(), 0.0))
