"""The contract of policies: whatever chooses `levels` and `size` (Sec. 4), as one frozen pytree.

A policy's settings and weights are its fields. Fields that are arrays or numbers are leaves, traced
when a policy is an argument of a compiled function; fields marked `static()` are part of the
program's identity and hash by value. So all settings of one kind of policy share one compiled
cycle, and equal policies find the same program again.

A policy is asked after every draft pass of a cycle and once before verifying. What it remembers
over passes and cycles of one text is its `history`, a pytree that the caller carries along:

    init_history -> [ observe_level -> keep_drafting ]* -> choose_size, priority -> update_history
                    after every draft pass                 once per cycle          once per cycle

All methods are pure functions of one sequence. Baselines are policies, not forks of the decoder.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError

NO_NODE = -jnp.inf  # log-probability of a place without a node


def static(**settings: Any) -> Any:
    """A field of a policy that is no leaf: hashable, part of what is compiled."""
    return struct.field(pytree_node=False, **settings)


@struct.dataclass
class LevelView:
    """What there is to see after a draft pass; the compiler drops what a policy never reads.

    Row r of the newest level is what the draft said after the r-th best node of the level above; at
    level 1 all rows are the root's, and only slot 0 holds nodes.
    """

    log_prob: jax.Array  # [W, W] f32 cumulative, of the newest level; -inf = no node
    levels: jax.Array  # i32 [] draft passes done in this cycle, >= 1
    length: jax.Array  # i32 [] committed tokens before the root
    entropy: jax.Array  # [W] f32 nats, of the draft's distribution at each row
    hidden: jax.Array | None  # [W, E] the draft's outputs at the rows; None = not recorded
    root_entropy: jax.Array  # f32 [] nats, of the target's distribution that the root came from
    parent: jax.Array  # [W] i32, slot * W + child of the row's node in the level above


@struct.dataclass
class TreeView:
    """What there is to see when drafting has stopped."""

    log_prob: jax.Array  # [D, W, W] f32 cumulative, -inf = no node
    levels: jax.Array  # i32 []
    length: jax.Array  # i32 []
    entropy: jax.Array  # [D, W] f32 nats, of the draft's distribution at each row; 0 = no row
    root_entropy: jax.Array  # f32 [] nats, of the target's distribution that the root came from
    parent: jax.Array  # [D, W] i32, slot * W + child of each row's node in the level above


@struct.dataclass
class Outcome:
    """What a cycle gave, as policies learn of it."""

    levels: jax.Array  # i32 []
    size_index: jax.Array  # i32 [] index into config.sizes
    accepted: jax.Array  # i32 []


@struct.dataclass
class Policy:
    """The base of all policies: drafts one level, chooses the smallest size, remembers nothing.

    Example, a policy of one's own that drafts while the best new node is likely:
      >>> import ltd_jax as ltd
      >>> from flax import struct
      >>> @struct.dataclass
      ... class WhileLikely(ltd.Policy):
      ...     threshold: float
      ...     def keep_drafting(self, history, view, config):
      ...         return view.log_prob.max() > self.threshold
      >>> pair = ltd.load()
      >>> steps = ltd.generate(pair, WhileLikely(threshold=-1.0), "import os", 8)
      >>> sum(len(step.tokens) for step in steps)
      8
    """

    @property
    def needs_root_entropy(self) -> bool:
        """Whether a decision reads `root_entropy`, which costs a sum over the vocabulary."""
        return False

    @property
    def is_constant(self) -> bool:
        """Whether every cycle gets the same levels and size, so that deciding takes no time."""
        return False

    def check(self, config: CycleConfig) -> None:
        """Raises UserError where a cycle lacks what the policy can choose."""

    def traced(self) -> "Policy":
        """The policy as compiled functions take it: leaves as arrays of one dtype each."""
        return jax.tree.map(_as_array, self)

    def init_history(self, config: CycleConfig) -> Any:
        """The history at the start of a text."""
        return ()

    def observe_level(self, history: Any, view: LevelView, config: CycleConfig) -> Any:
        """The history with what a draft pass showed, before `keep_drafting` is asked."""
        return history

    def keep_drafting(self, history: Any, view: LevelView, config: CycleConfig) -> jax.Array:
        """bool []: draft another level? At max_levels the answer is not heard."""
        return jnp.bool_(False)

    def choose_size(self, history: Any, view: TreeView, config: CycleConfig) -> jax.Array:
        """i32 []: index into config.sizes of the nodes that are verified."""
        return jnp.int32(0)

    def priority(self, history: Any, view: TreeView, config: CycleConfig) -> jax.Array:
        """f32 [D, W, W]: nodes are selected by the highest of these, by default their log_prob.

        -inf leaves a node out; no child may have a higher one than its parent. Where a size is
        larger than the number of nodes that are left, fewer are verified.
        """
        return view.log_prob

    def update_history(self, history: Any, outcome: Outcome, config: CycleConfig) -> Any:
        """The history after a cycle."""
        return history


def overrides(policy: Policy, method: str) -> bool:
    """Whether a policy's kind has its own version of a method, e.g. of `observe_level`."""
    return getattr(type(policy), method) is not getattr(Policy, method)


@struct.dataclass
class Constant(Policy):
    """The same levels and size in every cycle (EAGLE-3's way).

    Example:
      >>> Constant(levels=4, size=8).is_constant
      True
    """

    levels: jax.Array | int
    size: jax.Array | int  # drafted nodes that are verified, one of config.sizes

    @property
    def is_constant(self) -> bool:
        return True

    def check(self, config: CycleConfig) -> None:
        if not 1 <= self.levels <= config.max_levels:
            raise UserError(f"levels must lie in 1..{config.max_levels}, not {self.levels}.")
        check_size(self.size, config)

    def keep_drafting(self, history: Any, view: LevelView, config: CycleConfig) -> jax.Array:
        return view.levels < self.levels

    def choose_size(self, history: Any, view: TreeView, config: CycleConfig) -> jax.Array:
        return size_index(self.size, config)


PAPER_EAGLE3 = Constant(levels=8, size=60)  # Sec. 5
EMBEDDED_EAGLE3 = Constant(levels=5, size=16)  # scaled to the embedded pair, not tuned


def eagle3_default(config: CycleConfig) -> Constant:
    """EAGLE-3's fixed levels and size, the nearest ones that a cycle has.

    The paper's where the cycle has as many levels, else the embedded pair's; of two sizes that are
    equally near the smaller.

    Example:
      >>> eagle3_default(CycleConfig(max_levels=12, sizes=tuple(range(0, 241, 20))))
      Constant(levels=8, size=60)
    """
    is_full = config.max_levels >= PAPER_EAGLE3.levels
    wanted = PAPER_EAGLE3 if is_full else EMBEDDED_EAGLE3
    nearest = min(config.sizes, key=lambda size: (abs(size - wanted.size), size))
    return Constant(min(wanted.levels, config.max_levels), nearest)


@struct.dataclass
class Mixed(Policy):
    """One policy's levels with another policy's sizes."""

    depth: Policy
    size: Policy

    @property
    def needs_root_entropy(self) -> bool:
        return self.depth.needs_root_entropy or self.size.needs_root_entropy

    def check(self, config: CycleConfig) -> None:
        self.depth.check(config)
        self.size.check(config)

    def init_history(self, config: CycleConfig) -> Any:
        return self.depth.init_history(config), self.size.init_history(config)

    def keep_drafting(self, history: Any, view: LevelView, config: CycleConfig) -> jax.Array:
        return self.depth.keep_drafting(history[0], view, config)

    def choose_size(self, history: Any, view: TreeView, config: CycleConfig) -> jax.Array:
        return self.size.choose_size(history[1], view, config)

    def update_history(self, history: Any, outcome: Outcome, config: CycleConfig) -> Any:
        depth, size = self.depth, self.size
        return (
            depth.update_history(history[0], outcome, config),
            size.update_history(history[1], outcome, config),
        )


@struct.dataclass
class Forced(Policy):
    """Decides everything as a policy does, then does what a constant says.

    Its cycles draft, verify and accept what the constant's do, and cost the decisions more: so the
    time of a policy's decisions is measured in the very program that decodes.
    """

    policy: Policy
    constant: Constant
    holds: jax.Array | bool = True  # traced, so that the compiler cannot leave a decision out

    @property
    def needs_root_entropy(self) -> bool:
        return self.policy.needs_root_entropy

    def check(self, config: CycleConfig) -> None:
        self.policy.check(config)
        self.constant.check(config)

    def init_history(self, config: CycleConfig) -> Any:
        return self.policy.init_history(config)

    def observe_level(self, history: Any, view: LevelView, config: CycleConfig) -> Any:
        return self.policy.observe_level(history, view, config)

    def keep_drafting(self, history: Any, view: LevelView, config: CycleConfig) -> jax.Array:
        own = self.policy.keep_drafting(history, view, config)
        return jnp.where(self.holds, self.constant.keep_drafting((), view, config), own)

    def choose_size(self, history: Any, view: TreeView, config: CycleConfig) -> jax.Array:
        own = self.policy.choose_size(history, view, config)
        return jnp.where(self.holds, self.constant.choose_size((), view, config), own)

    def priority(self, history: Any, view: TreeView, config: CycleConfig) -> jax.Array:
        own = self.policy.priority(history, view, config)
        return jnp.where(self.holds, view.log_prob, own)

    def update_history(self, history: Any, outcome: Outcome, config: CycleConfig) -> Any:
        return self.policy.update_history(history, outcome, config)


def size_index(size: jax.Array | int, config: CycleConfig) -> jax.Array:
    """i32 []: where a number of nodes stands in config.sizes; `check_size` says whether it does."""
    return jnp.argmax(jnp.asarray(config.sizes) == size).astype(jnp.int32)


def check_size(size: Any, config: CycleConfig) -> None:
    """Raises UserError for a size that is not compiled."""
    if size not in config.sizes:
        raise UserError(f"size {float(size):g} is not one of the compiled sizes {config.sizes}.")


def _as_array(leaf: Any) -> Any:
    """Numbers as f32, i32 or bool arrays, whatever they were given as."""
    if isinstance(leaf, jax.Array) and not leaf.weak_type:
        return leaf
    array = np.asarray(leaf)
    dtype = {"f": jnp.float32, "i": jnp.int32, "u": jnp.int32, "b": jnp.bool_}[array.dtype.kind]
    return jnp.asarray(array, dtype)
