"""Cycles replayed from a trace: exact tokens, time from a measured table (paper Sec. 3.1).

In goes a `Replay`, a trace and a latency table on the device; out come single cycles and the
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
from ltd_jax.policies.controller import ConstantParams, Controller, Outcome, constant, noticed
from ltd_jax.replay import trace as traces
from ltd_jax.replay.views import Replay, build, level_view, tree_view

__all__ = ["Replay", "build", "level_view", "tree_view"]  # of views, for readers of cycles

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
class _Walk:
    position: jax.Array
    over: jax.Array
    state: Any  # the controller's
    totals: Totals


def outcome(
    replay: Replay,
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
    replay: Replay, config: CycleConfig, controller: Controller, params: Any, learned: bool
) -> Totals:
    """Every text from its first position to its end: what decoding with `controller` would give.

    Compiles once per controller object, so callers keep theirs.

    Returns:
      Totals of f32 [texts].
    """
    sizes_V = jnp.asarray(config.sizes, jnp.float32)

    def cycle(walk: _Walk) -> _Walk:
        taken = take(replay, config, controller, params, walk.state, walk.position, learned)
        result, levels, size = taken.result, taken.levels, sizes_V[taken.size]
        gained = Totals(result.committed, result.seconds, jnp.int32(1), levels, size)
        return _Walk(
            position=result.next_position,
            over=result.over,
            state=taken.state,
            totals=jax.tree.map(lambda total, gain: total + gain, walk.totals, gained),
        )

    def walk_text(first: jax.Array) -> Totals:
        totals = Totals(*[jnp.float32(0)] * 5)
        start = _Walk(first, jnp.bool_(False), controller.init(), totals)
        return jax.lax.while_loop(lambda walk: ~walk.over, cycle, start).totals

    return jax.vmap(walk_text)(replay.first)


def take(
    replay: Replay,
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
    result = outcome(replay, position, levels, size, learned, accepted)
    state = controller.update(state, Outcome(levels, size, result.accepted))
    return Taken(result, levels, size, state)


def accepted_by_rank(
    replay: Replay, position: jax.Array, rank_DWW: jax.Array, size: jax.Array
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


def constants(replay: Replay, config: CycleConfig) -> Totals:
    """`run` of every constant setting, no decision times; Totals of f32 [D, V, texts]."""
    sizes_V = jnp.arange(len(config.sizes))
    levels_D = jnp.arange(1, config.max_levels + 1)
    walk = partial(run, replay, config, _CONSTANT, learned=False)
    by_size = jax.vmap(lambda levels, size: walk(ConstantParams(levels, size)), (None, 0))
    return jax.vmap(by_size, (0, None))(levels_D, sizes_V)


def draft(
    replay: Replay, position: jax.Array, controller: Controller, params: Any, state: Any
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
    replay: Replay, position: jax.Array, controller: Controller, params: Any, state: Any
) -> jax.Array:
    """`draft` for a controller that remembers nothing between two passes."""

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
    """The size chosen at a position for the tree of `levels` levels; an index into config.sizes."""
    return controller.choose_size(params, state, tree_view(replay, position, levels))
