"""The fields of a config.json that say how positions are rotated, read and written.

Older files have `rope_theta` and `rope_scaling` (whose kind is its `type`), newer ones one object
`rope_parameters` with `rope_type` and `rope_theta`; some have both. Where they disagree they are
read as transformers 5 does: an object beats the field of the same name at the top, `rope_scaling`
beats `rope_parameters`, and `original_max_position_embeddings` is taken from the top.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ltd_jax.config import (
    AnyDraftConfig,
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    RopeScaling,
    TargetConfig,
    YarnScaling,
)
from ltd_jax.files import UserError
from ltd_jax.models import rope

DEFAULT_THETA = 10_000.0
OBJECTS = ("rope_scaling", "rope_parameters")  # the first that is there is read
ORIGINAL = "original_max_position_embeddings"
PARTIAL = "partial_rotary_factor"
# The longest text where a file does not say it, as the families' own config classes have it.
QWEN_POSITIONS, LLAMA_POSITIONS = 32_768, 2_048
PLAIN = ("default", "mrope")  # text has one position in all sections of mrope
# What EAGLE's own loader takes, both with a base of 10,000.
EAGLE_KINDS = (LinearScaling, DynamicScaling)


@dataclasses.dataclass(frozen=True)
class RopeFields:
    """What a config.json says of rotary positions."""

    theta: float = DEFAULT_THETA
    scaling: RopeScaling | None = None
    rotary_dim: int | None = None  # None = all channels of a head
    source: str | None = None  # the field that the base is from; None = it names none

    @property
    def as_config(self) -> dict[str, Any]:
        """The fields of a model's config."""
        scaling, dim = self.scaling, self.rotary_dim
        return {"rope_theta": self.theta, "rope_scaling": scaling, "rotary_dim": dim}


def read(path: Path, fields: Mapping[str, Any], head_dim: int) -> RopeFields:
    """The rotary settings of a config.json.

    Args:
      path: of the file, for messages.
      fields: of the file, without those that are null.

    Raises:
      UserError: the kind is unknown, or a number is missing or none.
    """
    chosen = _chosen(path, fields)
    number = _numbers(path, chosen)
    theta, source = _theta(path, fields, chosen)
    share = number(PARTIAL, _numbers(path, fields)(PARTIAL, 1.0))
    dim = int(head_dim * share)
    kind = _kind(chosen)
    scaling: RopeScaling | None = None
    if kind not in PLAIN:
        longest = longest_text(path, fields)
        found = fields.get(ORIGINAL, chosen.get(ORIGINAL, longest))
        original = int(_numbers(path, {ORIGINAL: found})(ORIGINAL, least=1))
        scaling = _scaling(path, kind, chosen, longest, original)
    return RopeFields(theta, scaling, None if dim == head_dim else dim, source)


def _chosen(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The object that is read; {} where there is none.

    Raises:
      UserError: it is no object, or has one for every type of layer and these differ.
    """
    chosen: Any = next((fields[name] for name in OBJECTS if fields.get(name)), {})
    if not isinstance(chosen, dict):
        name = next(name for name in OBJECTS if fields.get(name))
        raise UserError(f"{path} has no object as {name}; copy the file again.")
    by_layer = {name: value for name, value in chosen.items() if isinstance(value, dict)}
    if not by_layer:
        return chosen
    first, *others = by_layer.values()
    if any(other != first for other in others):
        raise UserError(
            f"{path} has other rotary positions for {', '.join(by_layer)}; only one kind for all "
            "layers is known."
        )
    return first


def _kind(chosen: Mapping[str, Any]) -> str:
    kind = chosen.get("rope_type") or chosen.get("type") or "default"
    return "longrope" if kind == "su" else str(kind)  # its name in the first Phi-3 folders


def _theta(
    path: Path, fields: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[float, str | None]:
    """The base and the field it is from."""
    if chosen.get("rope_theta") is not None:
        name = next(name for name in OBJECTS if fields.get(name))
        return _numbers(path, chosen)("rope_theta"), name
    if fields.get("rope_theta") is not None:
        return _numbers(path, fields)("rope_theta"), "rope_theta"
    return DEFAULT_THETA, None


def _scaling(
    path: Path, kind: str, chosen: Mapping[str, Any], longest: int, original: int
) -> RopeScaling:
    """The scaling of one kind, with what it leaves out as transformers computes it.

    Args:
      longest: tokens of the longest text that the model is for.
      original: tokens of the longest text that it was first trained with.
    """
    number = _numbers(path, chosen)
    implied = longest / original
    match kind:
        case "linear":
            return LinearScaling(number("factor"))
        case "dynamic":
            return DynamicScaling(number("factor"), longest)
        case "llama3":
            low, high = number("low_freq_factor"), number("high_freq_factor")
            return Llama3Scaling(number("factor"), low, high, original)
        case "yarn":
            is_null = "factor" in chosen and chosen["factor"] is None
            factor = implied if is_null else number("factor")
            return YarnScaling(
                factor,
                original,
                number("attention_factor", _yarn_attention(path, chosen, factor)),
                beta_fast=number("beta_fast", 32.0),
                beta_slow=number("beta_slow", 1.0),
                truncate=bool(chosen.get("truncate", True)),
            )
        case "longrope":
            factor = number("factor", implied)
            grown = 1.0 if factor <= 1 or original == 1 else math.log(factor) / math.log(original)
            attention = 1.0 if factor <= 1 else math.sqrt(1 + grown)
            return LongScaling(
                _factors(path, chosen, "short_factor"),
                _factors(path, chosen, "long_factor"),
                original,
                number("attention_factor", attention),
            )
    known = "linear, dynamic, yarn, llama3, longrope and mrope"
    raise UserError(f"{path} asks for RoPE of type {kind!r}; known are {known}.")


def _yarn_attention(path: Path, chosen: Mapping[str, Any], factor: float) -> float:
    """The attention factor of YaRN's paper, or DeepSeek's quotient of two."""
    share = lambda weight: 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
    if chosen.get("mscale") and chosen.get("mscale_all_dim"):
        number = _numbers(path, chosen)
        return share(number("mscale")) / share(number("mscale_all_dim"))
    return share(1.0)


def _numbers(path: Path, fields: Mapping[str, Any]) -> Callable[..., float]:
    """A function that gives a number above 0 of some fields by name, or a default for null."""

    def number(name: str, default: float | None = None, least: float = 0) -> float:
        value = fields.get(name)
        value = default if value is None else value
        if value is None or not _is_number(value) or value < least:
            raise UserError(
                f"{path} has no number above 0 as {name}; the model's rotary positions cannot be "
                "computed without it."
            )
        return float(value)

    return number


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e30


def _factors(path: Path, chosen: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """The factors of LongRoPE, one for each frequency."""
    factors = chosen.get(name)
    if not isinstance(factors, list) or not factors or not all(map(_is_number, factors)):
        raise UserError(f"{path} has no list of numbers above 0 as {name}; copy the file again.")
    return tuple(float(factor) for factor in factors)


def longest_text(path: Path, fields: Mapping[str, Any]) -> int:
    """Tokens of the longest text that a model is for (`max_position_embeddings`)."""
    is_qwen = "qwen" in f"{fields.get('architectures')} {fields.get('model_type')}".lower()
    usual = QWEN_POSITIONS if is_qwen else LLAMA_POSITIONS
    return int(_numbers(path, fields)("max_position_embeddings", usual, least=1))


def longest_scaled(path: Path, fields: Mapping[str, Any], read: RopeFields) -> int:
    """Tokens of the longest text that a scaled model is for: files may say what it had before."""
    longest = longest_text(path, fields)
    match read.scaling:
        case LinearScaling(factor) | DynamicScaling(factor):
            return int(longest * max(factor, 1))
        case YarnScaling(factor, original):
            return max(longest, int(original * factor))
        case _:
            return longest


def refuse_faults(path: Path, config: TargetConfig) -> None:
    """Raises UserError where a target's rotary settings give no rotation."""
    fault = rope.fault(config)
    if fault is not None:
        raise UserError(f"The rotary positions in {path} cannot be computed: {fault}.")


def read_for_draft(path: Path, fields: Mapping[str, Any], head_dim: int) -> tuple[RopeFields, str]:
    """The rotary settings of a draft, and a sentence about what cannot be read, or "".

    A draft's positions move no output, so nothing is refused: what cannot be read is left out.
    """
    try:
        return read(path, fields, head_dim), ""
    except UserError as error:
        said = f"{error} The draft turns plainly, which costs acceptance at most."
    for chosen in (_chosen_or_none(path, fields), {}):
        try:
            theta, source = _theta(path, fields, chosen)
        except UserError:
            continue
        return RopeFields(theta, source=source), said
    return RopeFields(), said


def _chosen_or_none(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _chosen(path, fields)
    except UserError:
        return {}


def plain_if_faulty(path: Path, config: AnyDraftConfig) -> tuple[AnyDraftConfig, tuple[str, ...]]:
    """A draft's config, without a rotation that cannot be computed; and a sentence about that."""
    fault = rope.fault(config)
    if fault is None:
        return config, ()
    plain = dataclasses.replace(config, rope_scaling=None, rotary_dim=None)
    if rope.fault(plain) is not None:
        plain = dataclasses.replace(plain, rope_theta=DEFAULT_THETA)
    return plain, (
        f"The rotary positions in {path} cannot be computed: {fault}. The draft turns plainly, "
        "which costs acceptance at most.",
    )


def doubts(path: Path, fields: Mapping[str, Any]) -> Iterator[str]:
    """Sentences where a target's fields contradict each other or others read them otherwise."""
    objects = {name: fields[name] for name in OBJECTS if isinstance(fields.get(name), dict)}
    bases = {"rope_theta": fields.get("rope_theta")}
    bases |= {f"{name}.rope_theta": value.get("rope_theta") for name, value in objects.items()}
    named = {name: base for name, base in bases.items() if base is not None}
    theta, source = _theta(path, fields, _chosen(path, fields))
    if any(_as_float(base) != theta for base in named.values()):
        said = ", ".join(f"{name} {base}" for name, base in named.items())
        used = f"{theta:g} is used, from {source}" if source else f"{theta:g}, the default, is used"
        yield f"{path} names other RoPE bases ({said}); {used}."
    kinds = {name: _kind(value) for name, value in objects.items()}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        yield f"{path} names several kinds of RoPE ({said}); {OBJECTS[0]} is used."
    own = _chosen(path, fields).get(PARTIAL)
    share = fields.get(PARTIAL, 1) if own is None else own
    if share != 1:
        yield (
            f"{path} has {PARTIAL} {share}, which is used here; transformers turns all channels of "
            "these families' heads."
        )


def _as_float(value: Any) -> Any:
    return float(value) if _is_number(value) else value


def fields_of(config: TargetConfig | AnyDraftConfig) -> dict[str, Any]:
    """The fields of a config.json that `read` takes for these settings."""
    scaling = config.rope_scaling
    fields: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": None}
    if scaling is not None:
        fields["rope_scaling"] = _written(scaling)
    if isinstance(scaling, DynamicScaling):
        fields["max_position_embeddings"] = scaling.original_context
    if config.rotary_dim is not None:
        share = config.rotary_dim / config.head_dim
        is_less = int(config.head_dim * share) < config.rotary_dim
        fields[PARTIAL] = math.nextafter(share, 1) if is_less else share
    return fields


def _written(scaling: RopeScaling) -> dict[str, Any]:
    match scaling:
        case LinearScaling(factor):
            return {"type": "linear", "factor": factor}  # two fields: EAGLE's loader wants no more
        case DynamicScaling(factor):
            return {"type": "dynamic", "factor": factor}
        case Llama3Scaling(factor, low, high, original):
            bounds = {"low_freq_factor": low, "high_freq_factor": high}
            return {"rope_type": "llama3", "factor": factor, **bounds, ORIGINAL: original}
        case YarnScaling(factor, original, attention):
            ramp = {name: getattr(scaling, name) for name in ("beta_fast", "beta_slow", "truncate")}
            shared = {"factor": factor, "attention_factor": attention, ORIGINAL: original}
            return {"rope_type": "yarn", **shared, **ramp}
        case LongScaling(short, long, original, attention):
            factors = {"short_factor": list(short), "long_factor": list(long)}
            shared = {"attention_factor": attention, ORIGINAL: original}
            return {"rope_type": "longrope", **factors, **shared}


def refuse_for_eagle(config: AnyDraftConfig) -> None:
    """Raises UserError unless EAGLE's own loader turns a draft as its settings say."""
    scaling = config.rope_scaling
    is_known = isinstance(scaling, EAGLE_KINDS) and scaling.factor > 1
    if scaling is not None and not (is_known and config.rope_theta == DEFAULT_THETA):
        kind = _kind(_written(scaling))
        what = f"rope_scaling ({kind}, with a base of {config.rope_theta:g})"
    elif config.rotary_dim is not None:
        what = PARTIAL
    else:
        return
    raise UserError(
        f"EAGLE's own code does not read the {what} that this draft has; write it in the dialect "
        "layers.0."
    )
