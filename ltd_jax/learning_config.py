"""Frozen settings of the policies and of how they learn; users import them from config.py.

Numbers of the paper carry their section or table in a comment.
"""

import dataclasses
from typing import Any, Literal

Reward = Literal["paper", "renewal", "accepted", "time"]
Learning = Literal["coadapt", "joint", "exact"]


def _must_be_positive(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)} but must be at least 1.")


@dataclasses.dataclass(frozen=True)
class ObservationConfig:
    """What the two policies see; the defaults are the paper's (Eq. 3: P + D + L of Table 6)."""

    nodes: bool = True  # P: every probability, of the newest level (depth) or of the tree (size)
    best: int = 0  # so many of the highest of these probabilities, sorted; 0 = none
    expected: bool = False  # their sum over the best nodes of every size: expected tokens
    entropy: bool = False  # E, of the draft at every row of the newest level or of the tree
    certainty: bool = False  # entropy of the target where the root came from
    hidden: int = 0  # H, so many channels of the draft's output, for the depth policy alone
    levels: bool = True  # D
    length: bool = True  # L
    recent: bool = False  # running means of what the cycles before this one accepted

    def __post_init__(self) -> None:
        if self.best < 0 or self.hidden < 0:
            raise ValueError(f"best {self.best} and hidden {self.hidden} are counts; give >= 0.")
        if not any(value for name, value in vars(self).items() if name != "hidden"):
            raise ValueError("The size policy sees nothing; switch on another part than hidden.")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """What the two policies see, and the widths of their actors and critics (ReLU, paper A.2)."""

    size_actor: tuple[int, ...] = (1024, 256)
    size_critic: tuple[int, ...] = (1024, 256)
    depth_actor: tuple[int, ...] = (1024,)
    depth_critic: tuple[int, ...] = (1024, 256)
    observation: ObservationConfig = ObservationConfig()


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation; defaults are the paper's (A.3) or Stable-Baselines3's."""

    total_steps: int = 100_000
    environments: int = 16
    rollout: int = 2048  # decisions per update, over all environments (A.3)
    minibatch: int = 256  # A.3
    epochs: int = 20  # A.3
    learning_rate: float = 1e-3  # A.3
    warmup: float = 0.01  # share of total_steps with rising rate, then linear decay to 0 (A.3)
    gamma: float = 0.9  # size 0.9, depth 0.999 (A.3)
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01  # A.3
    value: float = 0.5
    max_gradient_norm: float = 0.5
    adam_eps: float = 1e-5

    def __post_init__(self) -> None:
        _must_be_positive(self, "total_steps", "environments", "rollout", "epochs")
        if self.minibatch < 2:
            raise ValueError("minibatch must be >= 2: advantages are normalised within it.")
        if self.rollout % self.environments or self.rollout % self.minibatch:
            raise ValueError(
                f"rollout {self.rollout} must be a multiple of environments {self.environments} "
                f"and of minibatch {self.minibatch}."
            )

    @property
    def updates(self) -> int:
        """Updates of a whole training: as many rollouts as cover total_steps."""
        return -(-self.total_steps // self.rollout)


@dataclasses.dataclass(frozen=True)
class ExactConfig:
    """Exact gradients of the expected reward: every choice is weighed, none has to be tried."""

    updates: int = 120
    environments: int = 256  # texts walked side by side
    cycles: int = 8  # of each walk per update
    steps: int = 24  # gradient steps per update
    minibatch: int = 1024  # places, out of environments * cycles
    learning_rate: float = 5e-3  # falls to 0
    weight_decay: float = 1e-2
    entropy: float = 0.6  # tokens per nat, falls to 0

    def __post_init__(self) -> None:
        _must_be_positive(self, "updates", "environments", "cycles", "steps", "minibatch")
        if self.minibatch > self.environments * self.cycles:
            raise ValueError(
                f"minibatch {self.minibatch} is larger than the {self.environments} environments "
                f"times {self.cycles} cycles that it is drawn from."
            )


@dataclasses.dataclass(frozen=True)
class LearningConfig:
    """How policies learn: the paper's schedule (Sec. 4), jointly, or with exact gradients."""

    learning: Learning = "coadapt"
    size: PPOConfig = PPOConfig(total_steps=100_000, gamma=0.9)
    depth: PPOConfig = PPOConfig(total_steps=1_000_000, gamma=0.999)
    joint: PPOConfig = PPOConfig(total_steps=500_000, gamma=0.5)  # counts cycles, not decisions
    exact: ExactConfig = ExactConfig()
    alternations: int = 3  # Iter1 size, Iter2 depth, Iter3 size
    depth_stage_size: int | None = None
    """nodes verified while the depth policy learns alone (the paper: 60); None = best constant's"""
    reward: Reward = "paper"
    validate_every: int = 10  # updates between two validations
    seed: int = 0

    def __post_init__(self) -> None:
        _must_be_positive(self, "validate_every")
        if self.alternations < 0:
            raise ValueError(f"alternations is {self.alternations} but must not be negative.")


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """One of the compared classifiers: binary cross-entropy, AdamW, as many yes as no (Sec. 5)."""

    width: int
    epochs: int
    learning_rate: float
    batch: int = 256
    examples: int = 200_000  # at most, after balancing
