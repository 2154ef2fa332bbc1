"""Cycles replayed from a trace: exact tokens, time from a measured table (paper Sec. 3.1).

In goes a trace and a latency table, as one `Replay` on the device; out come single cycles and the
totals of any controller over whole texts. Functions work on one position; callers `vmap`. Under
greedy decoding a cycle only decides how far along the fixed text the next one starts, so nothing
here is a model of decoding: it is a look-up.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError
from ltd_jax.policies.controller import (
    ConstantParams,
    Controller,
    LevelView,
    Outcome,
    TreeView,
    constant,
)
from ltd_jax.replay import latency
from ltd_jax.replay import trace as traces
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.trace import Trace

_CONSTANT = constant()


@struct.dataclass
class Replay:
    """A trace and a latency table on the device."""

    score: jax.Array  # [P, D, W, W] f32 cumulative log-probability, -inf = no node
    accepted: jax.Array  # [P, D, V] i8
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
class _Walk:
    position: jax.Array
    over: jax.Array
    state: Any  # the controller's
    totals: Totals


def build(trace: Trace, table: LatencyTable, config: CycleConfig) -> Replay:
    """Puts a trace and a table on the device.

    Raises:
      UserError: the trace or the table was made with other levels, beam width or sizes.
    """
    traces.check(trace, config)
    if table.sizes != config.sizes or table.max_levels != config.max_levels:
        raise UserError(
            f"The latency table has {table.max_levels} levels and sizes {table.sizes}, the cycle "
            f"{config.max_levels} and {config.sizes}; measure the latencies with this cycle."
        )
    context, share = latency.neighbours(table.contexts, trace.length)
    plain = latency.interpolate(table, table.plain_seconds, trace.length)
    return Replay(
        score=jnp.asarray(trace.score),
        accepted=jnp.asarray(traces.accepted(trace, config)),
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


def outcome(
    replay: Replay, position: jax.Array, levels: jax.Array, size: jax.Array, learned: bool
) -> CycleOutcome:
    """The cycle at `position` with `levels` 1..D and `size`, an index into config.sizes.

    Args:
      learned: also count the time of the policies' own decisions: one of the size policy, and one
        of the depth policy after every level but the D-th, where there is nothing to decide.
    """
    row, share = replay.context[position], replay.share[position]
    row_after = jnp.minimum(row + 1, replay.seconds.shape[0] - 1)
    seconds = (1 - share) * replay.seconds[row, levels - 1, size]
    seconds += share * replay.seconds[row_after, levels - 1, size]
    if learned:
        decisions = jnp.minimum(levels, replay.score.shape[1] - 1)
        seconds += replay.size_seconds + replay.depth_seconds * decisions
    accepted = replay.accepted[position, levels - 1, size].astype(jnp.int32)
    committed = jnp.minimum(accepted + 1, replay.remaining[position])
    over = committed == replay.remaining[position]
    return CycleOutcome(accepted, committed, seconds, position + committed, over)


@partial(jax.jit, static_argnames=("config", "controller", "learned"))
def run(
    replay: Replay, config: CycleConfig, controller: Controller, params: Any, learned: bool
) -> Totals:
    """Every text from its first position to its end: what decoding with `controller` would give.

    Compiles once per controller object, so callers keep theirs.

    Returns:
      Totals of f32 [texts].
    """
    sizes_V = jnp.asarray(config.sizes, jnp.float32)

    def cycle(walk: _Walk) -> _Walk:
        levels = choose_levels(replay, walk.position, controller, params, walk.state)
        size = choose_size(replay, walk.position, levels, controller, params, walk.state)
        result = outcome(replay, walk.position, levels, size, learned)
        gained = Totals(result.committed, result.seconds, jnp.int32(1), levels, sizes_V[size])
        return _Walk(
            position=result.next_position,
            over=result.over,
            state=controller.update(walk.state, Outcome(levels, size, result.accepted)),
            totals=jax.tree.map(lambda total, gain: total + gain, walk.totals, gained),
        )

    def walk_text(first: jax.Array) -> Totals:
        totals = Totals(*[jnp.float32(0)] * 5)
        start = _Walk(first, jnp.bool_(False), controller.init(), totals)
        return jax.lax.while_loop(lambda walk: ~walk.over, cycle, start).totals

    return jax.vmap(walk_text)(replay.first)


def throughput(totals: Totals) -> jax.Array:
    """Tokens per second over all texts, both summed before dividing (Eq. 1)."""
    return totals.committed.sum(-1) / totals.seconds.sum(-1)


def constants(replay: Replay, config: CycleConfig) -> Totals:
    """`run` of every constant setting, no decision times; Totals of f32 [D, V, texts]."""
    sizes_V = jnp.arange(len(config.sizes))
    levels_D = jnp.arange(1, config.max_levels + 1)
    walk = partial(run, replay, config, _CONSTANT, learned=False)
    by_size = jax.vmap(lambda levels, size: walk(ConstantParams(levels, size)), (None, 0))
    return jax.vmap(by_size, (0, None))(levels_D, sizes_V)


def level_view(replay: Replay, position: jax.Array, levels: jax.Array) -> LevelView:
    return LevelView(replay.score[position, levels - 1], levels, replay.length[position])


def choose_levels(
    replay: Replay, position: jax.Array, controller: Controller, params: Any, state: Any
) -> jax.Array:
    """Levels until the first stop; asks after all passes at once, as one batch for the networks."""

    def keep(levels: jax.Array) -> jax.Array:
        return controller.keep_drafting(params, state, level_view(replay, position, levels))

    keep_D = jax.vmap(keep)(jnp.arange(1, replay.score.shape[1]))
    return 1 + jnp.cumprod(keep_D.astype(jnp.int32)).sum()


def choose_size(
    replay: Replay,
    position: jax.Array,
    levels: jax.Array,
    controller: Controller,
    params: Any,
    state: Any,
) -> jax.Array:
    score_DWW = replay.score[position]
    drafted_D11 = (jnp.arange(score_DWW.shape[0]) < levels)[:, None, None]
    score_DWW = jnp.where(drafted_D11, score_DWW, -jnp.inf)
    view = TreeView(score_DWW, levels, replay.length[position])
    return controller.choose_size(params, state, view)
