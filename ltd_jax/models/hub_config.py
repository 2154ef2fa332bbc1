"""Model settings from the `config.json` of a Hugging Face style folder.

Enters: a folder. Leaves: a `TargetConfig`; drafts build on `Settings` too (draft_config.py). All
errors are `UserError`s that name the file and the field.
"""

from pathlib import Path
from typing import Any

from ltd_jax.config import RopeScaling, TargetConfig
from ltd_jax.errors import UserError
from ltd_jax.model_config import LEAST_LAYERS
from ltd_jax.models.tensor_files import read_json

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
