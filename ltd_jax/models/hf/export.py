"""A loaded pair back to folders that other stacks load.

What config.json says beside our own settings (special tokens, the longest context) is taken over
from the folder that the pair came from, as are its tokenizer files.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltd_jax.config import GriffinConfig, PairConfig, TargetConfig
from ltd_jax.files import UserError
from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.hf.tensors import read_json
from ltd_jax.models.hf.weights import Dialect
from ltd_jax.models.pair import Pair

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
# Fields that neither we nor the layer's arithmetic read, but other stacks do.
KEPT_FIELDS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_position_embeddings",
    "initializer_range",
    "use_cache",
)


def refuse_own_sources(written: Sequence[Path], read: Sequence[Path]) -> None:
    """UserError where a folder to be written is one to be read."""
    same = {path.resolve() for path in written} & {path.resolve() for path in read}
    if same:
        raise UserError(
            f"{sorted(same)[0]} is a folder of the pair itself; give another one with --out."
        )


def export_target(folder: Path, pair: Pair, source: Path, shard_bytes: int) -> None:
    """Writes the target, in the pair's dtype, beside its tokenizer's files."""
    hf_weights.save_target(
        folder,
        pair.config.target,
        pair.params.target,
        pair.dtype,
        kept_fields(source),
        shard_bytes,
        always_index=True,
    )
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def export_draft(folder: Path, pair: Pair, source: Path, dialect: Dialect) -> tuple[str, ...]:
    """Writes the draft, in the pair's dtype; returns what other stacks may not understand."""
    fields = kept_fields(source) | layer_fields(pair.config.target, pair.config)
    params = pair.params.draft
    is_own = not np.array_equal(params.embedding, pair.params.target.embedding)
    hf_weights.save_draft(
        folder, pair.config.draft, params, pair.dtype, dialect, fields, own_embedding=is_own
    )
    return tuple(export_doubts(pair.config))


def kept_fields(source: Path) -> dict[str, Any]:
    """The fields of a folder's config.json that are only passed on."""
    fields = read_json(source / "config.json")
    inner = fields.get("transformer_layer_config")
    found = (inner if isinstance(inner, dict) else {}) | fields
    return {name: found[name] for name in KEPT_FIELDS if found.get(name) is not None}


def layer_fields(target: TargetConfig, pair: PairConfig) -> dict[str, Any]:
    """Names the target's feature layers where they are not EAGLE-3's default.

    Raises:
      UserError: readers would take these layers for the default, counted from their outputs.
    """
    N, chosen = target.layer_count, list(target.feature_layers)
    if isinstance(pair.draft, GriffinConfig) or chosen == [2, N // 2, N - 3]:
        return {}
    if chosen == [1, N // 2 - 1, N - 4]:
        raise UserError(
            f"Feature layers {chosen} cannot be written: in {hf_config.LAYER_IDS} they mean "
            f"{[2, N // 2, N - 3]}."
        )
    return {hf_config.LAYER_IDS: chosen}


def export_doubts(pair: PairConfig) -> Iterator[str]:
    """What EAGLE's own code would ignore or refuse."""
    draft = pair.draft
    if isinstance(draft, GriffinConfig):
        return
    flags = ("norm_before_residual", "norm_before_fc", "norm_each_feature", "norm_output")
    for flag in flags:
        if getattr(draft, flag):
            yield f"EAGLE's own code does not know {flag}; SpecForge and vLLM read such drafts."
    if draft.head_count * draft.head_dim != draft.hidden_size:
        yield (
            f"EAGLE's own code wants heads * head_dim = {draft.hidden_size}; this draft has "
            f"{draft.head_count} * {draft.head_dim}."
        )
    if layer_fields(pair.target, pair):
        yield f"EAGLE's own code ignores {hf_config.LAYER_IDS} and reads its default layers."
