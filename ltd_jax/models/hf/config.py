"""config.json of Hugging Face style folders, read and written.

Targets: Llama, Qwen2 and Qwen3 as transformers writes them. Drafts: EAGLE-3 as EAGLE, AngelSlim,
SpecForge (flat), ModelOpt (flags in `eagle_config`) or speculators (`transformer_layer_config`)
write it. A Griffin draft's file says nothing that a one-layer Llama's would not; its tensors' names
tell (weights.py). All errors are `UserError`s that name the file and the field.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ltd_jax import files
from ltd_jax.config import (
    LEAST_LAYERS,
    AnyDraftConfig,
    DraftConfig,
    GriffinConfig,
    TargetConfig,
)
from ltd_jax.files import UserError
from ltd_jax.models.hf import rope
from ltd_jax.models.hf.rope import RopeFields
from ltd_jax.models.hf.tensors import read_json

TARGET_FAMILIES = {  # whether attention has biases, and norms of queries and keys
    "LlamaForCausalLM": (False, False),
    "Qwen2ForCausalLM": (True, False),
    "Qwen3ForCausalLM": (False, True),
}
LATENT_ATTENTION = ("kv_lora_rank", "q_lora_rank")  # fields of drafts with another kind of layer
LAYER_IDS = "eagle_aux_hidden_state_layer_ids"
# Names in config.json by the fields of our configs.
COUNT_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "head_count": "num_attention_heads",
    "kv_head_count": "num_key_value_heads",
    "head_dim": "head_dim",
}
NORM_NAMES = {  # the norms that later trainers of EAGLE-3 drafts added or moved
    "norm_before_residual": "norm_before_residual",
    "norm_before_fc": "norm_before_fc",
    "norm_each_feature": "fc_norm",
    "norm_output": "norm_output",
}


class Settings:
    """The fields of one config.json, each checked as it is read; those that are null are left out.

    What ModelOpt and speculators keep in objects of their own is lifted to the top.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.json"
        self.fields = read_json(self.path)
        given = {name: value for name, value in self.fields.items() if value is not None}
        layer = self.nested("transformer_layer_config")
        self.fields = layer | given | self.nested("eagle_config")

    def shared(self) -> dict[str, Any]:
        """The fields that targets and drafts both have, as arguments of their configs."""
        activation = self.fields.get("hidden_act") or "silu"
        if activation != "silu":
            raise UserError(
                f"{self.path} asks for hidden_act {activation!r}; only 'silu' is known."
            )
        quantised = self.nested("quantization_config")
        if quantised:
            raise UserError(
                f"{self.path} says that the weights are quantised "
                f"({quantised.get('quant_method', 'quantization_config')}); give the unquantised "
                "model."
            )
        heads, hidden = self.count("num_attention_heads"), self.count("hidden_size")
        defaults = {"kv_head_count": heads, "head_dim": max(hidden // heads, 1)}
        return {
            "rms_norm_eps": self.number(self.fields, "rms_norm_eps", 1e-6),
        } | {field: self.count(name, defaults.get(field)) for field, name in COUNT_NAMES.items()}

    def architecture(self) -> str | None:
        """The model class that the file names."""
        name = self.fields.get("architectures")
        name = name[0] if isinstance(name, list) and name else name
        return name if isinstance(name, str) else None

    def refuse(self, *switches: str) -> None:
        """UserError where one of these fields is set: the model would be another one."""
        for name in switches:
            if self.fields.get(name):
                raise UserError(f"{self.path} asks for {name}, which is not known here.")

    def count(self, name: str, default: int | None = None) -> int:
        """A number of things, >= 1; the default where the field is missing or null."""
        value = self.fields.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"{self.path} has no integer >= 1 as {name}; the model cannot be built without it."
            )
        return value

    def number(self, fields: dict[str, Any], name: str, default: float | None = None) -> float:
        """A number >= 0 of the file or of one of its objects."""
        value = fields.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e30:
            raise UserError(
                f"{self.path} has no number >= 0 as {name}; the model cannot be built without it."
            )
        return float(value)

    def nested(self, name: str) -> dict[str, Any]:
        """An object of the file; {} where it is missing or null."""
        value = self.fields.get(name) or {}
        if not isinstance(value, dict):
            raise UserError(f"{self.path} has no object as {name}; copy the file again.")
        return value


def target_config(folder: Path) -> TargetConfig:
    """The target's settings; UserError for families and fields that we do not have."""
    settings = Settings(folder)
    architecture = settings.architecture()
    if architecture not in TARGET_FAMILIES:
        raise UserError(
            f"{settings.path} names the architecture {architecture}; known targets are "
            f"{', '.join(TARGET_FAMILIES)}."
        )
    is_biased, is_normed = TARGET_FAMILIES[architecture]
    settings.refuse("mlp_bias", "use_sliding_window")
    if not is_biased and settings.fields.get("attention_bias"):
        raise UserError(
            f"{settings.path} asks for attention_bias, which is known of Qwen2 only (other "
            "families then have one behind attention, too)."
        )
    shared = settings.shared()
    check_head_dim(settings.path, shared["head_dim"])
    turning = rope.read(settings.path, settings.fields, shared["head_dim"])
    layers = settings.count("num_hidden_layers")
    with files.user_errors(settings.path):
        config = TargetConfig(
            **shared,
            **turning.as_config,
            longest_text=rope.longest_scaled(settings.path, settings.fields, turning),
            layer_count=layers,
            feature_layers=(0, 0, 0) if layers >= LEAST_LAYERS else (),
            tie_embeddings=bool(settings.fields.get("tie_word_embeddings", False)),
            attention_bias=is_biased,
            qk_norm=is_normed,
        )
    rope.refuse_faults(settings.path, config)
    return config


def target_doubts(folder: Path) -> list[str]:
    """Sentences where fields of a target's config.json contradict each other."""
    settings = Settings(folder)
    return list(rope.doubts(settings.path, settings.fields))


def check_head_dim(path: Path, head_dim: int) -> None:
    """Raises UserError for an odd head_dim."""
    if head_dim % 2:
        raise UserError(
            f"{path} makes head_dim {head_dim}; rotary embedding turns channels in pairs."
        )


@dataclasses.dataclass(frozen=True)
class DraftSettings:
    """The settings of a draft folder."""

    config: AnyDraftConfig
    feature_layers: tuple[int, ...] | None  # the stream entering them; None = not named
    remarks: tuple[str, ...]  # sentences for a person


def draft_settings(
    folder: Path, target: TargetConfig, rope_theta: float | None = None, is_griffin: bool = False
) -> DraftSettings:
    """The settings of an EAGLE-3 or Griffin draft, for a given target.

    Args:
      rope_theta: wins over what the file says.

    Raises:
      UserError: a field is missing or wrong, the draft is of another kind, or no pair with the
        target.
    """
    settings = Settings(folder)
    _check_kind(settings)
    shared = settings.shared()
    width_name = "hidden_size" if is_griffin else "target_hidden_size"
    width = settings.count(width_name, target.hidden_size)
    for name, value, wanted in (
        ("vocab_size", shared["vocab_size"], target.vocab_size),
        (width_name, width, target.hidden_size),
    ):
        if value != wanted:
            raise UserError(
                f"{settings.path} has {name} {value} but the target asks for {wanted}; draft and "
                "target are not a pair."
            )
    turning, unread = rope.read_for_draft(settings.path, settings.fields, shared["head_dim"])
    turning, about_rope = _rope_base(settings, turning, rope_theta, is_griffin)
    shared |= turning.as_config
    about_rope += f" {unread}" if unread else ""
    has = lambda name: bool(settings.fields.get(name))
    if is_griffin:
        about = "A Griffin draft: it reads the target's last state, and the target's head reads it."
        griffin = GriffinConfig(**shared, attention_bias=has("qkv_bias"))
        return DraftSettings(griffin, (), (about, about_rope))
    layers, about_layers = feature_layers(settings, target)
    shared |= {field: has(name) for field, name in NORM_NAMES.items()}
    vocab_size = settings.count("draft_vocab_size", target.vocab_size)
    with files.user_errors(settings.path):
        config = DraftConfig(**shared, draft_vocab_size=vocab_size, target_hidden_size=width)
    return DraftSettings(config, layers, (about_rope, about_layers))


def _check_kind(settings: Settings) -> None:
    """UserError for drafts that are not one Llama layer over three features or one."""
    fields, path = settings.fields, settings.path
    latent = [name for name in LATENT_ATTENTION if fields.get(name)]
    if latent:
        name = settings.architecture() or "a draft without architectures"
        raise UserError(f"{path}: {name} has latent attention ({latent[0]}), which is not known.")
    if settings.count("num_hidden_layers", 1) != 1:
        raise UserError(
            f"{path} has {fields['num_hidden_layers']} layers; an EAGLE-3 or Griffin draft has one."
        )
    if fields.get("use_aux_hidden_state") is False:
        raise UserError(f"{path} reads one target feature (EAGLE-2); only EAGLE-3 is known.")
    settings.refuse("attention_bias", "mlp_bias")


def _rope_base(
    settings: Settings, turning: RopeFields, override: float | None, is_griffin: bool
) -> tuple[RopeFields, str]:
    """The draft's rotary settings and the reason for their base."""
    theta, field = turning.theta, turning.source
    reason = f"from {field} of {settings.path}" if field else f"{settings.path} names none"
    if override is not None:
        theta, reason = override, "as asked for"
    elif not is_griffin and theta != rope.DEFAULT_THETA:
        reason += f"; most trainers ignored the field, so try {rope.DEFAULT_THETA:g} too"
    turning = dataclasses.replace(turning, theta=theta)
    return turning, f"The draft's RoPE base is {theta:g}, {reason}."


def feature_layers(
    settings: Settings, target: TargetConfig
) -> tuple[tuple[int, int, int] | None, str]:
    """The layers that the draft names, as those that the stream enters; and how they were read."""
    names = settings.fields.get(LAYER_IDS)
    N = target.layer_count
    if names is None and not target.feature_layers:
        return None, f"The draft names no feature layers, and {N} layers have no default ones."
    if names is None:
        return None, f"Features enter layers {target.feature_layers} of {N}: the draft names none."
    is_whole = isinstance(names, list) and all(type(layer) is int for layer in names)
    if not is_whole or len(names) != 3:
        raise UserError(f"{settings.path} has no three integers as {LAYER_IDS}.")
    low, mid, high = names
    if names == [1, N // 2 - 1, N - 4]:
        layers = (low + 1, mid + 1, high + 1)
        return layers, f"Features enter layers {layers} of {N}: {names} are layers they leave."
    return (low, mid, high), f"Features enter layers {tuple(names)} of {N}, as {LAYER_IDS} says."


def fields_of(
    config: TargetConfig | AnyDraftConfig, dtype: Any, others: dict[str, Any]
) -> dict[str, Any]:
    """The config.json of a target or a draft.

    EAGLE's own loader wants the draft's embedding where `target_hidden_size` is named, so it is
    named only where the widths differ.

    Args:
      others: fields that we do not read.

    Raises:
      UserError: no known family has a target's biases and norms.
    """
    fields = {"max_position_embeddings": 2048} | others
    fields |= {name: getattr(config, field) for field, name in COUNT_NAMES.items()}
    fields |= {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": config.layer_count,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        **rope.fields_of(config),
        "torch_dtype": np.dtype(dtype).name,
    }
    if isinstance(config, GriffinConfig):
        return fields | ({"qkv_bias": True} if config.attention_bias else {})
    if isinstance(config, TargetConfig):
        names = {parts: name for name, parts in TARGET_FAMILIES.items()}
        architecture = names.get((config.attention_bias, config.qk_norm))
        if architecture is None:
            raise UserError("No known family has both attention biases and q/k norms.")
        return fields | {
            "architectures": [architecture],
            "model_type": architecture.removesuffix("ForCausalLM").lower(),
            "tie_word_embeddings": config.tie_embeddings,
        }
    fields |= {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": config.draft_vocab_size,
    }
    if config.hidden_size != config.target_hidden_size:
        fields["target_hidden_size"] = config.target_hidden_size
    return fields | {name: True for field, name in NORM_NAMES.items() if getattr(config, field)}
