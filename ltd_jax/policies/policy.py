"""Controllers: whatever chooses `levels` and `size`, as pure functions over their own state.

Baselines are controllers, not forks of the decoder. What a controller decides with (`params`) and
what it remembers (`state`) are pytrees, so one compiled cycle serves every setting of a controller.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig

NO_NODE = -jnp.inf  # score of a place without a node


@struct.dataclass
class LevelView:
    """What there is to see after a draft pass; the compiler drops what a controller never reads.

    Row r of the newest level is what the draft said after the r-th best node of the level above; at
    level 1 all rows are the root's, and only slot 0 holds nodes.
    """

    score: jax.Array  # [W, W] f32 cumulative log-probabilities of the newest level, -inf = no node
    levels: jax.Array  # i32 [] draft passes done in this cycle, >= 1
    length: jax.Array  # i32 [] committed tokens before the root
    entropy: jax.Array  # [W] f32 nats, of the draft's distribution at each row
    hidden: jax.Array | None  # [W, E] the draft's outputs at the rows; None = not recorded
    root_entropy: jax.Array  # f32 [] nats, of the target's distribution that the root came from
    parent: jax.Array  # [W] i32, slot * W + child of the row's node in the level above


@struct.dataclass
class TreeView:
    """What there is to see when drafting has stopped."""

    score: jax.Array  # [D, W, W] f32 cumulative log-probabilities, -inf = no node
    levels: jax.Array  # i32 []
    length: jax.Array  # i32 []
    entropy: jax.Array  # [D, W] f32 nats, of the draft's distribution at each row; 0 = no row
    root_entropy: jax.Array  # f32 [] nats, of the target's distribution that the root came from
    parent: jax.Array  # [D, W] i32, slot * W + child of each row's node in the level above


@struct.dataclass
class Outcome:
    """What a cycle gave."""

    levels: jax.Array  # i32 []
    size: jax.Array  # i32 [] index into config.sizes
    accepted: jax.Array  # i32 []


class Controller(NamedTuple):
    """Pure functions; `params` is any pytree, `state` starts as `init()` for every sequence."""

    init: Callable[[], Any]
    keep_drafting: Callable[[Any, Any, LevelView], jax.Array]  # params, state, view -> bool []
    choose_size: Callable[[Any, Any, TreeView], jax.Array]  # -> i32 [], index into config.sizes
    update: Callable[[Any, Outcome], Any]  # state, outcome -> state
    notice: Callable[[Any, Any, LevelView], Any] | None = None
    """params, state, view -> state: what to remember of a draft pass, before `keep_drafting`."""
    rank: Callable[[Any, Any, TreeView], jax.Array] | None = None
    """params, state, view -> f32 [D, W, W]: what nodes are selected by, in place of their scores.

    -inf leaves a node out; no child may rank above its parent. Where a size is larger than the
    number of nodes that are left, fewer are verified.
    """


def noticed(controller: Controller, params: Any, state: Any, view: LevelView) -> Any:
    """The controller's state after it saw a draft pass."""
    return state if controller.notice is None else controller.notice(params, state, view)


def ranked(controller: Controller, params: Any, state: Any, view: TreeView) -> jax.Array:
    """What nodes are selected by, f32 [D, W, W]."""
    return view.score if controller.rank is None else controller.rank(params, state, view)


def reads_root_entropy(
    controller: Controller, params: Any, state: Any, level: LevelView, tree: TreeView
) -> bool:
    """Whether any decision depends on `root_entropy`; found by tracing, nothing is computed.

    The other fields of the views need no such question: the compiler sees that they are not read.
    This one crosses from a compiled program to the next, where the compiler cannot see that.
    """

    def decide(root_entropy: jax.Array, params: Any, state: Any, level: LevelView, tree: TreeView):
        level = level.replace(root_entropy=root_entropy)
        state = noticed(controller, params, state, level)
        keep = controller.keep_drafting(params, state, level)
        tree = tree.replace(root_entropy=root_entropy)
        size = controller.choose_size(params, state, tree)
        return state, keep, size, ranked(controller, params, state, tree)

    traced = jax.make_jaxpr(decide)(level.root_entropy, params, state, level, tree).jaxpr
    read = [*traced.outvars, *(var for equation in traced.eqns for var in equation.invars)]
    return any(var is traced.invars[0] for var in read)


@struct.dataclass
class ConstantParams:
    """A fixed setting; traced, so that all constants share one compiled cycle."""

    levels: jax.Array  # i32 []
    size: jax.Array  # i32 [] index into config.sizes


@functools.cache
def constant() -> Controller:
    """The same levels and size in every cycle (EAGLE-3's way); params are `ConstantParams`.

    Always the same object, so that what was compiled with it is found again.
    """
    return Controller(
        init=lambda: (),
        keep_drafting=lambda params, state, view: view.levels < params.levels,
        choose_size=lambda params, state, view: params.size,
        update=lambda state, outcome: state,
    )


def constant_params(levels: int, size: int, config: CycleConfig) -> ConstantParams:
    """Parameters of `constant` for a number of levels and a size of `config.sizes`.

    Raises:
      ValueError: the config has no such levels or size.
    """
    if not 1 <= levels <= config.max_levels:
        raise ValueError(f"levels must lie in 1..{config.max_levels}, not {levels}.")
    if size not in config.sizes:
        raise ValueError(f"size {size} is not one of the compiled sizes {config.sizes}.")
    return ConstantParams(jnp.int32(levels), jnp.int32(config.sizes.index(size)))


@struct.dataclass
class Overruled:
    """What a controller decides with, and the setting that holds whatever it says."""

    own: Any  # the controller's parameters
    setting: ConstantParams
    holds: jax.Array  # bool []; traced, so that the compiler cannot leave a decision out


@functools.cache
def overruled(controller: Controller) -> Controller:
    """Decides everything as the controller does, then does as told; params are `Overruled`.

    Its cycles draft, verify and accept what the constant's do, and cost the decisions more.
    """

    def told(constant: jax.Array, params: Overruled, own: jax.Array) -> jax.Array:
        return jnp.where(params.holds, constant, own)

    def rank(params: Overruled, state: Any, view: TreeView) -> jax.Array:
        return told(view.score, params, ranked(controller, params.own, state, view))

    return controller._replace(
        keep_drafting=lambda params, state, view: told(
            view.levels < params.setting.levels,
            params,
            controller.keep_drafting(params.own, state, view),
        ),
        choose_size=lambda params, state, view: told(
            params.setting.size, params, controller.choose_size(params.own, state, view)
        ),
        notice=lambda params, state, view: noticed(controller, params.own, state, view),
        rank=None if controller.rank is None else rank,
    )
