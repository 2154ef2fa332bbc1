"""A trace and a latency table on the device, and what a controller sees of them.

The views are those of live decoding (`cycle.expand`), read where the trace recorded them.
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError
from ltd_jax.policies.controller import LevelView, TreeView
from ltd_jax.replay import latency, reach
from ltd_jax.replay import trace as traces
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.trace import Trace


@struct.dataclass
class Replay:
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


def build(trace: Trace, table: LatencyTable, config: CycleConfig, expected: bool = False) -> Replay:
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
    return Replay(
        score=jnp.asarray(trace.score),
        parent=jnp.asarray(trace.parent),
        entropy=jnp.asarray(trace.entropy),
        root_entropy=jnp.asarray(trace.root_entropy),
        hidden=None if trace.hidden is None else jnp.asarray(trace.hidden),
        path=jnp.asarray(traces.agreeing_path(trace)),
        accepted=jnp.asarray(traces.accepted(trace, config)),
        expected=jnp.asarray(reach.expected(trace, config)) if expected else None,
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


def level_view(replay: Replay, position: jax.Array, levels: jax.Array) -> LevelView:
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


def tree_view(replay: Replay, position: jax.Array, levels: jax.Array) -> TreeView:
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
