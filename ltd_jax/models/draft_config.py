"""The settings of a draft folder, in any of the public dialects of EAGLE-3, or of Griffin.

Enters: `config.json` as EAGLE, AngelSlim, SpecForge (flat), ModelOpt (flags in `eagle_config`) or
speculators (`transformer_layer_config`) write it. Leaves: a `DraftConfig`, the target's feature
layers where the draft names them, and what a person should know about both. A Griffin draft's
file says nothing that a one-layer Llama's would not; its tensors' names tell (draft_folder.py).
"""

import dataclasses
from pathlib import Path

from ltd_jax.config import DraftConfig, GriffinConfig, TargetConfig
from ltd_jax.errors import UserError
from ltd_jax.model_config import AnyDraftConfig
from ltd_jax.models.hub_config import Settings

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
