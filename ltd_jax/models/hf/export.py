"""A loaded pair back to folders that other stacks load.

What config.json says beside our own settings (special tokens, the longest context) is taken over
from the folder that the pair came from, as are its tokenizer files.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltd_jax import text as texts
from ltd_jax.config import GriffinConfig, PairConfig
from ltd_jax.files import UserError
from ltd_jax.models.hf import weights
from ltd_jax.models.hf.config import LAYER_IDS, NORM_NAMES, Settings
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
        raise UserError(f"{sorted(same)[0]} is a folder of the pair itself; give another `out`.")


def export_target(folder: Path, pair: Pair, source: Path, shard_bytes: int) -> None:
    """Writes the target, in the pair's dtype, beside its tokenizer's files."""
    weights.save_target(
        folder,
        pair.config.target,
        pair.model.target,
        pair.dtype,
        kept_fields(source),
        shard_bytes,
        always_index=True,
    )
    if (source / texts.TEMPLATES).is_dir():
        shutil.copytree(source / texts.TEMPLATES, folder / texts.TEMPLATES, dirs_exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def export_draft(folder: Path, pair: Pair, source: Path, dialect: Dialect) -> tuple[str, ...]:
    """Writes the draft, in the pair's dtype; returns what other stacks may not understand.

    Raises:
      UserError: the feature layers or the dialect cannot say what this draft needs.
    """
    fields = kept_fields(source) | layer_fields(pair.config)
    params = pair.model.draft
    is_own = not np.array_equal(params.embedding, pair.model.target.embedding)
    weights.save_draft(
        folder, pair.config.draft, params, pair.dtype, dialect, fields, own_embedding=is_own
    )
    return tuple(_doubts(pair.config))


def kept_fields(source: Path) -> dict[str, Any]:
    """The fields of a folder's config.json that are only passed on."""
    fields = Settings(source).fields
    return {name: fields[name] for name in KEPT_FIELDS if name in fields}


def layer_fields(pair: PairConfig) -> dict[str, Any]:
    """The target's feature layers by name, where they are not EAGLE-3's default.

    Raises:
      UserError: readers would take these layers for those that features leave.
    """
    N, chosen = pair.target.layer_count, list(pair.target.feature_layers)
    if isinstance(pair.draft, GriffinConfig) or chosen == [2, N // 2, N - 3]:
        return {}
    if chosen[0] == 1:
        raise UserError(
            f"Feature layers {chosen} cannot be written: in {LAYER_IDS}, ids that begin with 1 "
            "mean layers that features leave."
        )
    return {LAYER_IDS: chosen}


def _doubts(pair: PairConfig) -> Iterator[str]:
    """Sentences about what EAGLE's own code would ignore or refuse."""
    draft = pair.draft
    if isinstance(draft, GriffinConfig):
        return
    for norm in NORM_NAMES:
        if getattr(draft, norm):
            yield f"EAGLE's own code does not know {norm}; SpecForge and vLLM read such drafts."
    parts = {
        f"{draft.layer_count} layers": draft.layer_count > 1,
        f"{draft.feature_count} features": draft.feature_count != 3,
        "a draft without a head": not draft.own_head,
        "norms of queries and keys": draft.qk_norm,
        "biases": draft.attention_bias or draft.output_bias or draft.fuse_bias,
        "sliding windows": bool(draft.sliding_layers),
    }
    for part, has_it in parts.items():
        if has_it:
            yield f"EAGLE's own code does not know {part}; it would draft with another network."
    if draft.head_count * draft.head_dim != draft.hidden_size:
        yield (
            f"EAGLE's own code wants heads * head_dim = {draft.hidden_size}; this draft has "
            f"{draft.head_count} * {draft.head_dim}."
        )
    if layer_fields(pair):
        yield f"EAGLE's own code ignores {LAYER_IDS} and reads its default layers."
