"""Model settings from the `config.json` of a Hugging Face style folder.

Enters: a folder. Leaves: a `TargetConfig`; drafts build on `Settings` too (draft_config.py). All
errors are `UserError`s that name the file and the field.
"""
# DOC """The settings of a draft folder, in any of the public dialects of EAGLE-3, or of Griffin.
# DOC
# DOC Enters: `config.json` as EAGLE, AngelSlim, SpecForge (flat), ModelOpt (flags in `eagle_config`) or
# DOC speculators (`transformer_layer_config`) write it. Leaves: a `DraftConfig`, the target's feature
# DOC layers where the draft names them, and what a person should know about both. A Griffin draft's
# DOC file says nothing that a one-layer Llama's would not; its tensors' names tell (draft_folder.py).
# DOC """

import dataclasses
from pathlib import Path
from typing import Any

from ltd_jax.config import (
    LEAST_LAYERS,
    AnyDraftConfig,
    DraftConfig,
    GriffinConfig,
    RopeScaling,
    TargetConfig,
)
from ltd_jax.files import UserError
from ltd_jax.models.hf.tensors import read_json

TARGET_FAMILIES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


def target_config(folder: Path) -> TargetConfig:
    """The target's settings; UserError for families and fields that we do not have."""
    settings = Settings(folder)
    architecture = settings.architecture()
    if architecture not in TARGET_FAMILIES:
        raise UserError(
            f"{settings.path} names the architecture {architecture}; known targets are "
            f"{', '.join(TARGET_FAMILIES)}."
        )
    family = TARGET_FAMILIES[architecture]
    settings.refuse(("mlp_bias", "use_sliding_window"))
    if family != "qwen2" and settings.fields.get("attention_bias"):
        raise UserError(
            f"{settings.path} asks for attention_bias, which is known of Qwen2 only (other "
            "families then have one behind attention, too)."
        )
    shared = settings.shared()
    even_head_dim(settings.path, shared["head_dim"])
    layers = settings.whole("num_hidden_layers")
    try:
        return TargetConfig(
            **shared,
            layer_count=layers,
            feature_layers=(0, 0, 0) if layers >= LEAST_LAYERS else (),
            rope_scaling=settings.rope_scaling(),
            tie_embeddings=bool(settings.fields.get("tie_word_embeddings", False)),
            attention_bias=family == "qwen2",
            qk_norm=family == "qwen3",
        )
    except ValueError as error:
        raise settings.wrong(error) from error


def even_head_dim(path: Path, head_dim: int) -> None:
    """Raises UserError for an odd head_dim."""
    if head_dim % 2:
        raise UserError(
            f"{path} makes head_dim {head_dim}; rotary embedding turns channels in pairs."
        )


class Settings:
    """The fields of one config.json, each checked as it is read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.json"
        self.fields = read_json(self.path)

    def shared(self) -> dict[str, Any]:
        """What targets and drafts both have, as arguments of their configs."""
        heads, hidden = self.whole("num_attention_heads"), self.whole("hidden_size")
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
        return {
            "vocab_size": self.whole("vocab_size"),
            "hidden_size": hidden,
            "intermediate_size": self.whole("intermediate_size"),
            "head_count": heads,
            "kv_head_count": self.whole("num_key_value_heads", heads),
            "head_dim": self.whole("head_dim", max(hidden // heads, 1)),
            "rms_norm_eps": self.number(self.fields, "rms_norm_eps", 1e-6),
            "rope_theta": self.rope_theta(),
        }

    def architecture(self) -> str | None:
        """The model class that the file names."""
        named = self.fields.get("architectures")
        named = named[0] if isinstance(named, list) and named else named
        return named if isinstance(named, str) else None

    def refuse(self, switches: tuple[str, ...]) -> None:
        """UserError where one of these fields is set: the model would be another one."""
        for name in switches:
            if self.fields.get(name):
                raise UserError(f"{self.path} asks for {name}, which is not known here.")

    def whole(self, name: str, default: int | None = None) -> int:
        """A number of things, >= 1; the default where the field is missing or null."""
        value = self.fields.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"{self.path} has no whole number >= 1 as {name}; the model cannot be built "
                "without it."
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

    def rope_theta(self) -> float:
        """The rotary base."""
        return self.rope_theta_and_place()[0]

    def rope_theta_and_place(self) -> tuple[float, str | None]:
        """The rotary base and the field it is from; newer folders keep it in an object."""
        own = self.number(self.fields, "rope_theta", 0.0)
        if own:
            return own, "rope_theta"
        for name in ("rope_parameters", "rope_scaling"):
            inner = self.number(self.nested(name), "rope_theta", 0.0)
            if inner:
                return inner, name
        return 10_000.0, None

    def rope_scaling(self) -> RopeScaling | None:
        """Llama-3.1's scaling, None for none; UserError for other kinds."""
        found = self.nested("rope_scaling") or self.nested("rope_parameters")
        kind = found.get("rope_type") or found.get("type") or "default"
        if kind == "default":
            return None
        if kind != "llama3":
            raise UserError(
                f"{self.path} asks for rope_scaling of type {kind!r}; only 'llama3' is known."
            )
        return RopeScaling(
            factor=self.number(found, "factor"),
            low_frequency_factor=self.number(found, "low_freq_factor"),
            high_frequency_factor=self.number(found, "high_freq_factor"),
            original_context=int(self.number(found, "original_max_position_embeddings")),
        )

    def nested(self, name: str) -> dict[str, Any]:
        """An object of the file; {} where it is missing or null."""
        value = self.fields.get(name) or {}
        if not isinstance(value, dict):
            raise UserError(f"{self.path} has no object as {name}; copy the file again.")
        return value

    def wrong(self, error: ValueError) -> UserError:
        """What a config says about its own fields, with the file it came from."""
        return error if isinstance(error, UserError) else UserError(f"{self.path}: {error}")


LATENT_ATTENTION = ("kv_lora_rank", "q_lora_rank")  # fields of drafts with another kind of layer
DEFAULT_ROPE_THETA = 10_000.0
LAYER_IDS = "eagle_aux_hidden_state_layer_ids"


@dataclasses.dataclass(frozen=True)
class DraftSettings:
    """What a draft folder says."""

    config: AnyDraftConfig
    feature_layers: tuple[int, ...] | None  # the stream entering them; None = not named
    remarks: tuple[str, ...]  # sentences


def draft_settings(
    folder: Path, target: TargetConfig, rope_theta: float | None = None
) -> DraftSettings:
    """The draft's settings, for a given target.

    Args:
      rope_theta: wins over what the file says.

    Raises:
      UserError: a field is missing or wrong, the draft is of another kind, or no pair with the
        target.
    """
    settings = Settings(folder)
    flatten(settings)
    refuse_others(settings)
    shared = settings.shared()
    theta, about_rope = rope_base(settings, rope_theta)
    layers, about_layers = feature_layers(settings, target)
    flag = lambda name: bool(settings.fields.get(name, False))
    try:
        config = DraftConfig(
            **shared | {"rope_theta": theta},
            draft_vocab_size=settings.whole("draft_vocab_size", shared["vocab_size"]),
            target_hidden_size=target_width(settings, shared["vocab_size"], target),
            rope_scaling=settings.rope_scaling(),
            norm_before_residual=flag("norm_before_residual"),
            norm_before_fc=flag("norm_before_fc"),
            norm_each_feature=flag("fc_norm"),
            norm_output=flag("norm_output"),
        )
    except ValueError as error:
        raise settings.wrong(error) from error
    return DraftSettings(config, layers, (about_rope, about_layers))


def griffin_settings(
    folder: Path, target: TargetConfig, rope_theta: float | None = None
) -> DraftSettings:
    """A Griffin draft's settings, for a given target; errors as `draft_settings`."""
    settings = Settings(folder)
    refuse_others(settings)
    shared = settings.shared()
    for field, own, wanted in (
        ("vocab_size", shared["vocab_size"], target.vocab_size),
        ("hidden_size", shared["hidden_size"], target.hidden_size),
    ):
        refuse_strangers(settings, field, own, wanted)
    theta, place = settings.rope_theta_and_place()
    source = f"from {place} of {settings.path}" if place else f"{settings.path} names none"
    if rope_theta is not None:
        theta, source = rope_theta, "as asked for"
    config = GriffinConfig(
        **shared | {"rope_theta": theta},
        rope_scaling=settings.rope_scaling(),
        attention_bias=bool(settings.fields.get("qkv_bias", False)),
    )
    about = "A Griffin draft: it reads the target's last state, and the target's head reads it."
    return DraftSettings(config, (), (about, f"The draft's RoPE base is {theta:g}, {source}."))


def target_width(settings: Settings, vocab_size: int, target: TargetConfig) -> int:
    """The width of the features that the draft reads; UserError unless the target is its own."""
    width = settings.whole("target_hidden_size", target.hidden_size)
    for field, own, wanted in (
        ("vocab_size", vocab_size, target.vocab_size),
        ("target_hidden_size", width, target.hidden_size),
    ):
        refuse_strangers(settings, field, own, wanted)
    return width


def refuse_strangers(settings: Settings, field: str, own: int, wanted: int) -> None:
    """UserError unless draft and target have the same number."""
    if own != wanted:
        raise UserError(
            f"{settings.path} has {field} {own} but the target asks for {wanted}; draft and "
            "target are not a pair."
        )


def flatten(settings: Settings) -> None:
    """Lifts what ModelOpt and speculators keep in objects of their own to the top."""
    inner = settings.nested("transformer_layer_config")
    own = {name: value for name, value in settings.fields.items() if value is not None}
    settings.fields = inner | own | settings.nested("eagle_config")


def refuse_others(settings: Settings) -> None:
    """UserError for drafts that are not one Llama layer over three features."""
    fields, path = settings.fields, settings.path
    found = [name for name in LATENT_ATTENTION if fields.get(name)]
    named = settings.architecture() or "a draft without architectures"
    if found:
        raise UserError(f"{path}: {named} has latent attention ({found[0]}), which is not known.")
    if settings.whole("num_hidden_layers", 1) != 1:
        raise UserError(
            f"{path} has {fields['num_hidden_layers']} layers; an EAGLE-3 or Griffin draft has one."
        )
    if fields.get("use_aux_hidden_state") is False:
        raise UserError(f"{path} reads one target feature (EAGLE-2); only EAGLE-3 is known.")
    settings.refuse(("attention_bias", "mlp_bias"))


def rope_base(settings: Settings, override: float | None) -> tuple[float, str]:
    """The draft's rotary base and the reason for it."""
    if override is not None:
        return override, f"The draft's RoPE base is {override:g}, as asked for."
    theta, place = settings.rope_theta_and_place()
    if place is None:
        return DEFAULT_ROPE_THETA, (
            f"The draft's RoPE base is {DEFAULT_ROPE_THETA:g}: {settings.path} names none."
        )
    doubt = (
        ""
        if theta == DEFAULT_ROPE_THETA
        else f"; most trainers ignored the field, so try {DEFAULT_ROPE_THETA:g} too"
    )
    return theta, f"The draft's RoPE base is {theta:g}, from {place} of {settings.path}{doubt}."


def feature_layers(
    settings: Settings, target: TargetConfig
) -> tuple[tuple[int, int, int] | None, str]:
    """The layers that the draft names, as those that the stream enters; and how they were read."""
    named = settings.fields.get(LAYER_IDS)
    N = target.layer_count
    if named is None and not target.feature_layers:
        return None, f"The draft names no feature layers, and {N} layers have no default ones."
    if named is None:
        return None, f"Features enter layers {target.feature_layers} of {N}: the draft names none."
    whole = isinstance(named, list) and all(type(layer) is int for layer in named)
    if not whole or len(named) != 3:
        raise UserError(f"{settings.path} has no three whole numbers as {LAYER_IDS}.")
    low, mid, high = named
    if named == [1, N // 2 - 1, N - 4]:
        layers = (low + 1, mid + 1, high + 1)
        return layers, f"Features enter layers {layers} of {N}: {named} are layers they leave."
    return (low, mid, high), f"Features enter layers {tuple(named)} of {N}, as {LAYER_IDS} says."
