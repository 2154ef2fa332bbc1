"""Frozen settings of the models: targets of the Llama and Qwen families, and their drafts.

Users import them from config.py, beside the settings of every other stage.
"""

import dataclasses
from typing import Any

LEAST_LAYERS = 7  # of a target in which EAGLE-3's default feature layers are distinct


def told(config: Any) -> dict[str, Any]:
    """What a config says beyond its defaults: a field of a later version changes nothing."""
    values = {field: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {field.name: value for field, value in values.items() if value != field.default}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama-3.1's frequency scaling (`rope_scaling` of its config.json)."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """One Llama- or Qwen3-family decoder; the families differ only by these fields."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layer_count: int
    head_count: int
    kv_head_count: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool = False
    attention_bias: bool = False
    qk_norm: bool = False
    # What the draft reads: the stream entering these three layers (EAGLE-3), or with () the last
    # norm's output (Griffin). (0, 0, 0) = EAGLE-3's default for layer_count.
    feature_layers: tuple[int, ...] = (0, 0, 0)

    def __post_init__(self) -> None:
        if self.head_count % self.kv_head_count:
            raise ValueError(
                f"head_count {self.head_count} is not a multiple of kv_head_count "
                f"{self.kv_head_count}; grouped-query attention needs whole groups."
            )
        if self.feature_layers == (0, 0, 0):
            if self.layer_count < LEAST_LAYERS:
                raise ValueError(
                    f"A target of {self.layer_count} layers has no three distinct EAGLE-3 feature "
                    "layers (2, n//2, n-3); say by --feature-layers which ones the draft reads."
                )
            default = (2, self.layer_count // 2, self.layer_count - 3)
            object.__setattr__(self, "feature_layers", default)
        if self.feature_layers:
            low, mid, high = self.feature_layers
            if not 0 <= low < mid < high <= self.layer_count:
                raise ValueError(
                    f"feature_layers {self.feature_layers} must rise and lie in "
                    f"0..{self.layer_count}."
                )

    @property
    def feature_size(self) -> int:
        """Width of a token's feature: the three streams side by side, or the last state alone."""
        return max(len(self.feature_layers), 1) * self.hidden_size


@dataclasses.dataclass(frozen=True)
class DraftConfig:
    """One EAGLE-3 draft: a single Llama layer over [embedding, fused target features]."""

    vocab_size: int
    draft_vocab_size: int
    hidden_size: int
    target_hidden_size: int
    intermediate_size: int
    head_count: int
    kv_head_count: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_before_residual: bool = False  # the residual is the normed feature, not the raw one
    norm_before_fc: bool = False  # one norm over the three target features together
    norm_each_feature: bool = False  # "fc_norm": one norm for each of them
    norm_output: bool = False  # the next level reads the normed output (EAGLE-3.1)

    def __post_init__(self) -> None:
        if self.draft_vocab_size > self.vocab_size:
            raise ValueError(
                f"draft_vocab_size {self.draft_vocab_size} is larger than vocab_size "
                f"{self.vocab_size}."
            )
        if self.norm_before_fc and self.norm_each_feature:
            raise ValueError("norm_before_fc and fc_norm exclude each other.")

    @property
    def fuse_norms(self) -> int:
        """Norms over the target's features before they are fused: none, one, or one of each."""
        return 3 if self.norm_each_feature else int(self.norm_before_fc)

    @property
    def feature_count(self) -> int:
        """Layers of the target that the draft reads."""
        return 3


@dataclasses.dataclass(frozen=True)
class GriffinConfig:
    """One Griffin draft (arXiv 2502.11018): it reads the target's last state and has its head."""

    vocab_size: int
    hidden_size: int  # the target's, too
    intermediate_size: int
    head_count: int
    kv_head_count: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = False  # "qkv_bias", of drafts for Qwen2

    @property
    def draft_vocab_size(self) -> int:
        """The target's vocabulary."""
        return self.vocab_size

    @property
    def target_hidden_size(self) -> int:
        """Width of the state that it reads."""
        return self.hidden_size

    @property
    def feature_count(self) -> int:
        """Layers of the target that the draft reads: none, but its last state."""
        return 0


AnyDraftConfig = DraftConfig | GriffinConfig
