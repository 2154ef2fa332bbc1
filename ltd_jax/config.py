"""Frozen settings of every stage.

All classes are hashable, so they may be static arguments of jitted functions. Variants are made
with `dataclasses.replace`. Numbers of the paper carry their section or table in a comment; named
instances are in presets.py. The models' classes stand in model_config.py, the learning settings in
learning_config.py; both are names of this module, too.
"""

import dataclasses

from ltd_jax.learning_config import ExactConfig as ExactConfig
from ltd_jax.learning_config import HeadConfig as HeadConfig
from ltd_jax.learning_config import Learning as Learning
from ltd_jax.learning_config import LearningConfig as LearningConfig
from ltd_jax.learning_config import ObservationConfig as ObservationConfig
from ltd_jax.learning_config import PolicyConfig as PolicyConfig
from ltd_jax.learning_config import PPOConfig as PPOConfig
from ltd_jax.learning_config import Reward as Reward
from ltd_jax.model_config import AnyDraftConfig, TargetConfig
from ltd_jax.model_config import DraftConfig as DraftConfig
from ltd_jax.model_config import GriffinConfig as GriffinConfig
from ltd_jax.model_config import RopeScaling as RopeScaling
from ltd_jax.sampling import GREEDY, SamplingConfig


@dataclasses.dataclass(frozen=True)
class CycleConfig:
    """Shapes of one draft-and-verify cycle; every field names another compiled program."""

    beam_width: int = 8
    max_levels: int = 8
    sizes: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    context: int = 512  # most tokens (prompt and generated) of one sequence
    prefill_chunk: int = 64  # tokens per prefill pass
    cycles_per_call: int = 4  # cycles, or plain steps, between two visits of the host
    short_catch_ups: tuple[int, ...] = ()  # rows of catch-up passes for short paths

    def __post_init__(self) -> None:
        for name in ("sizes", "short_catch_ups"):  # lists where read from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("beam_width", "max_levels", "prefill_chunk", "cycles_per_call"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)} but must be at least 1.")
        if self.context < 2:
            raise ValueError(f"context is {self.context} but must be at least 2.")
        if self.max_levels >= self.context:
            raise ValueError(
                f"max_levels {self.max_levels} must be less than the context of {self.context}."
            )
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 0:
            raise ValueError(f"sizes {self.sizes} must be distinct, ascending and not negative.")
        rows = self.short_catch_ups
        if list(rows) != sorted(set(rows)) or any(row < 1 for row in rows):
            raise ValueError(f"short_catch_ups {rows} must be distinct, ascending and positive.")
        if self.sizes[-1] > self.node_count:
            raise ValueError(
                f"size {self.sizes[-1]} is larger than the {self.node_count} slots of a tree with "
                f"beam_width {self.beam_width} and max_levels {self.max_levels}."
            )

    @property
    def node_count(self) -> int:
        """Slots of the dense tree, D * W * W (level 1 uses only W of its W * W)."""
        return self.max_levels * self.beam_width**2

    @property
    def path_length(self) -> int:
        """Most tokens one cycle can commit: every level accepted, plus the target's own token."""
        return self.max_levels + 1

    @property
    def catch_up_rows(self) -> tuple[int, ...]:
        """Rows of all catch-up passes that are compiled, ascending; the last holds every path."""
        short = (rows for rows in self.short_catch_ups if rows < self.path_length)
        return (*short, self.path_length)

    @property
    def target_slots(self) -> int:
        """Cache slots of the target: the context and room for what is appended behind its end."""
        return self.context + max(self.path_length, self.prefill_chunk)

    @property
    def draft_slots(self) -> int:
        """Cache slots of the draft: the context and room for a padded catch-up or prefill pass."""
        return self.context + max(self.path_length, self.prefill_chunk)

    @property
    def tree_rows(self) -> int:
        """Uncommitted draft rows of one tree: a pass of W rows for every level after the first.

        With one level no such pass is made, but its shapes are compiled.
        """
        return max(self.max_levels - 1, 1) * self.beam_width


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """A target, its draft and the shapes of their cycle: the static side of what is compiled."""

    target: TargetConfig
    draft: AnyDraftConfig
    cycle: CycleConfig
    sampling: SamplingConfig = GREEDY
    devices: int = 1  # that weights and caches are split over (models/split.py)

    def __post_init__(self) -> None:
        if len(self.target.feature_layers) != self.draft.feature_count:
            raise ValueError(
                f"The target gives feature_layers {self.target.feature_layers} but the draft reads "
                f"{self.draft.feature_count} layers: three of EAGLE-3, () of Griffin."
            )
        if self.draft.vocab_size != self.target.vocab_size:
            raise ValueError(
                f"The draft speaks of {self.draft.vocab_size} token ids and the target of "
                f"{self.target.vocab_size}; they are not a pair."
            )
        if self.draft.target_hidden_size != self.target.hidden_size:
            raise ValueError(
                f"The draft reads features of width {self.draft.target_hidden_size} but the target "
                f"is {self.target.hidden_size} wide; they are not a pair."
            )
        if self.draft.draft_vocab_size < self.cycle.beam_width:
            raise ValueError(
                f"beam_width {self.cycle.beam_width} is larger than the draft's vocabulary of "
                f"{self.draft.draft_vocab_size}."
            )
