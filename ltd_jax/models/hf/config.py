"""config.json of Hugging Face style folders, read and written.

Targets: Llama, Qwen2 and Qwen3 as transformers writes them. Drafts: EAGLE-3 as EAGLE, AngelSlim,
SpecForge (flat), ModelOpt (flags in `eagle_config`) or speculators (`transformer_layer_config`)
write it. A Griffin draft's file says nothing that a one-layer Llama's would not; its tensors' names
tell (weights.py). Where tensors say otherwise they are believed (`Settings.believe`, evidence.py),
and a doubt says what was overruled. All errors are `UserError`s that name the file and the field.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltd_jax import files
from ltd_jax import text as texts
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

TARGET_FAMILIES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
BIASED, NORMED = "Qwen2ForCausalLM", "Qwen3ForCausalLM"  # always: q, k and v; queries and keys
MOST_OF_ANYTHING = 2**31 - 1  # of what the file counts
MOST = {"num_hidden_layers": 10_000}
ACTIVATIONS = ("silu", "swish")  # two names of one function
SLIDING_WINDOW, FULL_LAYERS = 4096, 28  # transformers' defaults where Qwen's files say nothing
LAYER_KINDS = ("full_attention", "sliding_attention")
PADDING_SHARE = 0.05  # of a vocabulary, by which a draft's may be shorter or longer
LATENT_ATTENTION = ("kv_lora_rank", "q_lora_rank")  # fields of drafts with another kind of layer
LAYER_IDS = "eagle_aux_hidden_state_layer_ids"
LAYER_ID_NAMES = (LAYER_IDS, "aux_hidden_state_layer_ids", "layer_ids")
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


UNQUANTISED = "give the unquantised model"


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


class Settings:
    """The fields of one config.json, each checked as it is read; those that are null are left out.

    What ModelOpt and speculators keep in objects of their own is lifted to the top.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.json"
        self.fields: dict[str, Any] = read_json(self.path)
        layer, flags = self.nested("transformer_layer_config"), self.nested("eagle_config")
        self.is_speculators = bool(layer) or "speculators_model_type" in self.fields
        self.model_type = layer.get("model_type") or self.fields.get("model_type")
        named = {*layer, *self.fields, *flags}
        given = [_without_nulls(part) for part in (layer, self.fields, flags)]
        self.fields = given[0] | given[1] | given[2]
        self.nulls = named - set(self.fields)
        self.remarks: list[str] = []  # sentences about how it was read
        self.doubts: list[str] = []  # likewise, about what was overruled, or read one of two ways

    def believe(self, name: str, value: int) -> None:
        """Takes a field's value from the tensors; what is no integer is left for its reader."""
        given = self.fields.get(name)
        if value < 1:
            return  # of a tensor without rows, which its reader refuses
        if given is None or (texts.is_integer(given) and given != value):
            self.fields[name] = value
        if texts.is_integer(given) and given != value:
            self.doubts.append(
                f"{name} is {value} in the weights beside {self.path}, which says {given}; the "
                "weights are believed."
            )

    def shared(self) -> dict[str, Any]:
        """The fields that targets and drafts both have, as arguments of their configs."""
        activation = self.fields.get("hidden_act") or ACTIVATIONS[0]
        if activation not in ACTIVATIONS:
            raise UserError(
                f"{self.path} asks for hidden_act {activation!r}; only 'silu' is known."
            )
        heads, hidden = self.count("num_attention_heads"), self.count("hidden_size")
        defaults = {"kv_head_count": heads, "head_dim": max(hidden // heads, 1)}
        shared: dict[str, Any] = {
            "rms_norm_eps": self.number(self.fields, "rms_norm_eps", 1e-6),
        } | {field: self.count(name, defaults.get(field)) for field, name in COUNT_NAMES.items()}
        check_head_dim(self.path, shared["head_dim"])
        return shared

    def quantised(self) -> str | None:
        """What says that the weights are quantised, in this file or beside it; None = nothing."""
        for name in ("quantization_config", "compression_config", "quantization"):
            found = self.nested(name)
            if found:
                return f"{self.path} ({found.get('quant_method', name)})"
        path = self.path.with_name("hf_quant_config.json")
        inner = texts.read_settings(path).get("quantization")
        algorithm = inner.get("quant_algo") if isinstance(inner, dict) else None
        return f"{path} ({algorithm})" if algorithm else None

    def truth(self, name: str) -> bool:
        """A field that is true or false; False where it is missing or null."""
        value = self.fields.get(name, False)
        if value not in (True, False):
            raise UserError(f"{self.path} says neither true nor false as {name}; correct it.")
        return bool(value)

    def architecture(self) -> str | None:
        """The model class that the file names."""
        name = self.fields.get("architectures")
        name = name[0] if isinstance(name, list) and name else name
        return name if isinstance(name, str) else None

    def refuse(self, *switches: str) -> None:
        """UserError where one of these fields is set: the model would be another one."""
        for name in switches:
            if self.truth(name):
                raise UserError(f"{self.path} asks for {name}, which is not known here.")

    def count(self, name: str, default: int | None = None) -> int:
        """A number of things, >= 1; the default where the field is missing or null."""
        value = self.fields.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"{self.path} has no integer >= 1 as {name}; the model cannot be built without it."
            )
        if value > MOST.get(name, MOST_OF_ANYTHING):
            raise UserError(f"{self.path} says {name} {value}, which no model has; correct it.")
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


def target_config(source: Path | Settings, found: Mapping[str, Any] | None = None) -> TargetConfig:
    """The target's settings; UserError for families and fields that we do not have.

    Args:
      source: the folder, or its settings where tensors overruled them.
      found: fields of the config that its tensors tell (evidence.py).
    """
    settings = source if isinstance(source, Settings) else Settings(source)
    architecture = settings.architecture()
    if architecture not in TARGET_FAMILIES:
        raise UserError(
            f"{settings.path} names the architecture {architecture}; known targets are "
            f"{', '.join(TARGET_FAMILIES)}."
        )
    quantised = settings.quantised()
    if quantised:
        raise UserError(f"{quantised} says that the weights are quantised; {UNQUANTISED}.")
    settings.refuse("mlp_bias")
    shared = settings.shared()
    turning = rope.read(settings.path, settings.fields, shared["head_dim"])
    settings.doubts += rope.doubts(settings.path, settings.fields)
    layers = settings.count("num_hidden_layers")
    has_biases = settings.truth("attention_bias")
    fields: dict[str, Any] = {
        "tie_embeddings": settings.truth("tie_word_embeddings"),
        "attention_bias": has_biases or architecture == BIASED,
        "output_bias": has_biases and architecture != BIASED,
        "qk_norm": architecture == NORMED,
    }
    if architecture.startswith("Qwen"):
        fields |= sliding(settings, layers, is_qwen=True)
    elif settings.truth("use_sliding_window"):
        settings.doubts.append(
            f"{settings.path} asks for use_sliding_window, which transformers does not do in "
            f"{architecture}; every token sees all before it."
        )
    with files.user_errors(settings.path):
        config = TargetConfig(
            **shared,
            **turning.as_config,
            **fields | dict(found or {}),
            longest_text=rope.longest_scaled(settings.path, settings.fields, turning),
            layer_count=layers,
            feature_layers=(0, 0, 0) if layers >= LEAST_LAYERS else (),
        )
    rope.refuse_faults(settings.path, config)
    return config


def sliding(settings: Settings, layers: int, *, is_qwen: bool) -> dict[str, Any]:
    """The fields of a config that say which layers see only the latest tokens, and how many.

    As transformers reads them: Qwen's files switch it with use_sliding_window, and the layers from
    max_window_layers on slide where layer_types does not say. In other files layer_types alone
    says it, as vLLM and speculators read drafts.
    """
    if is_qwen and not settings.truth("use_sliding_window"):
        return {}
    kinds = settings.fields.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or any(kind not in LAYER_KINDS for kind in kinds):
            raise UserError(
                f"{settings.path} names other layer_types than {' and '.join(LAYER_KINDS)}, which "
                "are not known here."
            )
        if len(kinds) < layers:
            raise UserError(
                f"{settings.path} names {len(kinds)} layer_types for {layers} layers; correct it."
            )
        chosen = tuple(layer for layer in range(layers) if kinds[layer] == LAYER_KINDS[1])
    elif is_qwen:
        first = settings.fields.get("max_window_layers", FULL_LAYERS)
        if not texts.is_integer(first) or first < 0:
            raise UserError(f"{settings.path} has no integer >= 0 as max_window_layers.")
        chosen = tuple(range(first, layers))
    else:
        chosen = ()
    if not chosen or "sliding_window" in settings.nulls:
        return {}
    window = settings.count("sliding_window", SLIDING_WINDOW if is_qwen else None)
    return {"sliding_window": window, "sliding_layers": chosen}


def check_head_dim(path: Path, head_dim: int) -> None:
    """Raises UserError for an odd head_dim."""
    if head_dim % 2:
        raise UserError(
            f"{path} makes head_dim {head_dim}; rotary embedding turns channels in pairs."
        )


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """The settings of a target folder."""

    config: TargetConfig
    doubts: tuple[str, ...]  # sentences for a person


@dataclasses.dataclass(frozen=True)
class DraftSettings:
    """The settings of a draft folder."""

    config: AnyDraftConfig
    feature_layers: tuple[int, ...] | None  # the stream entering them; None = not named
    remarks: tuple[str, ...]  # sentences for a person
    doubts: tuple[str, ...]  # likewise, about what was overruled or read one of two ways


def draft_settings(
    source: Path | Settings,
    target: TargetConfig,
    rope_theta: float | None = None,
    is_griffin: bool = False,
    found: Mapping[str, Any] | None = None,
) -> DraftSettings:
    """The settings of an EAGLE-3 or Griffin draft, for a given target.

    Args:
      source: the folder, or its settings where tensors overruled them.
      rope_theta: wins over what the file says.
      found: fields of the config that its tensors tell (evidence.py); None = there are no tensors.

    Raises:
      UserError: a field is missing or wrong, the draft is of another kind, or no pair with the
        target.
    """
    settings = source if isinstance(source, Settings) else Settings(source)
    _check_kind(settings, is_griffin)
    quantised = settings.quantised()
    if quantised and found is None:
        raise UserError(f"{quantised} says that the weights are quantised; {UNQUANTISED}.")
    if quantised:
        settings.doubts.append(
            f"{quantised} says that the weights are quantised, but they are plain numbers and are "
            "read as such."
        )
    shared = settings.shared()
    width_name = "hidden_size" if is_griffin else "target_hidden_size"
    width = settings.count(width_name, target.hidden_size)
    if width != target.hidden_size:
        raise UserError(
            f"{settings.path} has {width_name} {width} but the target asks for "
            f"{target.hidden_size}; draft and target are not a pair."
        )
    _check_vocabulary(settings, shared["vocab_size"], target.vocab_size)
    shared["vocab_size"] = target.vocab_size
    turning, unread = rope.read_for_draft(settings.path, settings.fields, shared["head_dim"])
    turning, about_rope = _rope_base(settings, turning, rope_theta, is_griffin)
    shared |= turning.as_config
    about_rope += f" {unread}" if unread else ""
    if is_griffin:
        about = "A Griffin draft: it reads the target's last state, and the target's head reads it."
        fields = {"attention_bias": settings.truth("qkv_bias")} | dict(found or {})
        with files.user_errors(settings.path):
            griffin = GriffinConfig(**shared, **fields)
        config, unturned = rope.plain_if_faulty(settings.path, griffin)
        return DraftSettings(config, (), (about, about_rope, *unturned), tuple(settings.doubts))
    fields, layers, remarks = _eagle3_fields(settings, target, found)
    with files.user_errors(settings.path):
        eagle3 = DraftConfig(**shared, **fields, target_hidden_size=width)
    config, unturned = rope.plain_if_faulty(settings.path, eagle3)
    said = (about_rope, *remarks, *unturned)
    return DraftSettings(config, layers, said, tuple(settings.doubts))


def _eagle3_fields(
    settings: Settings, target: TargetConfig, found: Mapping[str, Any] | None
) -> tuple[dict[str, Any], tuple[int, ...] | None, list[str]]:
    """The fields that only an EAGLE-3 draft has, its feature layers, and remarks."""
    layers, about_layers = feature_layers(settings, target)
    remarks = [about_layers, *settings.remarks]
    layer_count = settings.count("num_hidden_layers", 1)
    biased = settings.truth("attention_bias")
    fields: dict[str, Any] = {field: settings.truth(name) for field, name in NORM_NAMES.items()} | {
        "draft_vocab_size": settings.count("draft_vocab_size", target.vocab_size),
        "layer_count": layer_count,
        "feature_count": 3 if layers is None else len(layers),
        "attention_bias": biased,
        "output_bias": biased,
        "qk_norm": str(settings.model_type).startswith("qwen3") and settings.is_speculators,
    }
    is_qwen = str(settings.model_type).startswith("qwen")
    fields |= sliding(settings, layer_count, is_qwen=is_qwen) | dict(found or {})
    if fields.get("sliding_layers"):
        remarks.append(
            f"Layers {fields['sliding_layers']} of the draft see the latest "
            f"{fields['sliding_window']} tokens."
        )
    if layers is None and fields["feature_count"] != 3:
        remarks[0] = (
            f"The draft reads {fields['feature_count']} layers of the target and names none: say "
            "them in `feature_layers`."
        )
    if layers is not None and len(layers) != fields["feature_count"]:
        raise UserError(
            f"{settings.path} names {len(layers)} layers in {LAYER_IDS} but the weights read "
            f"{fields['feature_count']}; correct the file."
        )
    return fields, layers, remarks


def _check_vocabulary(settings: Settings, size: int, wanted: int) -> None:
    """UserError for a draft of another vocabulary; a doubt for one that is padded otherwise."""
    if abs(size - wanted) > PADDING_SHARE * wanted:
        raise UserError(
            f"{settings.path} has vocab_size {size} but the target asks for {wanted}; draft and "
            "target are not a pair."
        )
    if size != wanted:
        settings.doubts.append(
            f"The draft in {settings.path.parent} knows {size} tokens and the target {wanted}; "
            "those that both know are taken for the same."
        )


def _check_kind(settings: Settings, is_griffin: bool) -> None:
    """UserError for drafts that are no Llama layers over features of the target."""
    fields, path = settings.fields, settings.path
    latent = [name for name in LATENT_ATTENTION if fields.get(name)]
    if latent:
        name = settings.architecture() or "a draft without architectures"
        raise UserError(f"{path}: {name} has latent attention ({latent[0]}), which is not known.")
    kind = fields.get("speculators_model_type", "eagle3")
    if kind != "eagle3":
        raise UserError(f"{path} is of a {kind!r} draft; only EAGLE-3 and Griffin are known.")
    if is_griffin and settings.count("num_hidden_layers", 1) != 1:
        layers = fields["num_hidden_layers"]
        raise UserError(f"{path} has {layers} layers; a Griffin draft has one.")
    if fields.get("use_aux_hidden_state") is False:
        raise UserError(f"{path} reads one target feature (EAGLE-2); only EAGLE-3 is known.")
    settings.refuse("mlp_bias", "parallel_drafting")


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


def feature_layers(settings: Settings, target: TargetConfig) -> tuple[tuple[int, ...] | None, str]:
    """The layers that the draft names, as those that the stream enters; and how they were read.

    Two conventions are written in the same field. EAGLE-3's layers 2, N // 2, N - 3 are those that
    the stream *enters*; vLLM counts so, and speculators for it. SpecForge, ModelOpt and AngelSlim
    name the layers that it *leaves*, by default 1, N // 2 - 1, N - 4. Nobody reads the embedding's
    successor alone, so ids that begin with 1 are of layers that are left (as in SGLang).
    """
    N = target.layer_count
    name = next((name for name in LAYER_ID_NAMES if name in settings.fields), LAYER_IDS)
    ids = settings.fields.get(name)
    if ids is None and not target.feature_layers:
        return None, f"The draft names no feature layers, and {N} layers have no default ones."
    if ids is None:
        return None, f"Features enter layers {target.feature_layers} of {N}: the draft names none."
    if not isinstance(ids, list) or not ids or not all(type(layer) is int for layer in ids):
        raise UserError(f"{settings.path} has no list of integers as {name}.")
    entered, left = tuple(ids), tuple(layer + 1 for layer in ids)
    is_default = ids == [1, N // 2 - 1, N - 4]
    if ids[0] != 1 or (settings.is_speculators and not is_default):
        return entered, f"Features enter layers {entered} of {N}, as {name} says."
    if not is_default:
        settings.doubts.append(
            f"{name} of {settings.path} begins with 1, so {ids} were read as layers that features "
            f"leave; if few drafted tokens are accepted, try {ids} as `feature_layers`."
        )
    return left, f"Features enter layers {left} of {N}: {ids} are layers they leave."


def fields_of(
    config: TargetConfig | AnyDraftConfig, dtype: Any, others: dict[str, Any]
) -> dict[str, Any]:
    """The config.json of a target or a draft.

    EAGLE's own loader wants the draft's embedding where `target_hidden_size` is named, so it is
    named only where the widths differ.

    Args:
      others: fields that we do not read.

    Raises:
      UserError: no known family has a target's windows, biases and norms.
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
    has_biases = config.attention_bias or config.output_bias
    if config.sliding_layers:
        kinds = [LAYER_KINDS[layer in config.sliding_layers] for layer in range(config.layer_count)]
        fields |= {"use_sliding_window": True, "sliding_window": config.sliding_window}
        fields["layer_types"] = kinds
    if isinstance(config, TargetConfig):
        only_inputs = config.attention_bias and not config.output_bias
        architecture = NORMED if config.qk_norm else BIASED if only_inputs else TARGET_FAMILIES[0]
        if config.sliding_layers and architecture == TARGET_FAMILIES[0]:
            raise UserError("No known family has sliding windows and neither q/k norms nor biases.")
        return fields | {
            "architectures": [architecture],
            "model_type": architecture.removesuffix("ForCausalLM").lower(),
            "tie_word_embeddings": config.tie_embeddings,
            "attention_bias": has_biases and architecture != BIASED,
        }
    fields |= {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": config.draft_vocab_size,
    }
    if has_biases:
        fields["attention_bias"] = True
    if config.qk_norm:
        fields["model_type"] = "qwen3"
    if config.hidden_size != config.target_hidden_size:
        fields["target_hidden_size"] = config.target_hidden_size
    return fields | {name: True for field, name in NORM_NAMES.items() if getattr(config, field)}
