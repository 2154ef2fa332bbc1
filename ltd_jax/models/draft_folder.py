"""Draft weights between public folders and our pytree, both ways.

Folders name the one decoder layer `midlayer` or `layers.0`, with or without `model.` in front.
They keep `d2t` as offsets: target id = draft id + d2t[draft id]. The embedding is usually the
target's and then not stored. Written are EAGLE's own names.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ltd_jax.config import DraftConfig, TargetConfig
from ltd_jax.errors import UserError
from ltd_jax.models import weights
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.draft_config import DraftSettings, draft_settings
from ltd_jax.models.loader import Loader
from ltd_jax.models.tensor_files import TensorFolder, write_folder
from ltd_jax.models.weights import LAYER_NAMES

# The verifier's own last norm and head, which some trainers store beside the draft.
COPIES = frozenset({"verifier_norm.weight", "verifier_lm_head.weight"})
QUERY = "midlayer.self_attn.q_proj.weight"


class LoadedDraft(NamedTuple):
    """A draft and what its folder says of it."""

    config: DraftConfig
    params: DraftParams
    feature_layers: tuple[int, int, int] | None  # of the target; None = the draft names none
    remarks: tuple[str, ...]  # sentences for a person


def canonical(name: str) -> str:
    """EAGLE's name of a stored tensor."""
    name = name.removeprefix("model.")
    return f"midlayer.{name[9:]}" if name.startswith("layers.0.") else name


def load_draft(
    folder: Path,
    target: TargetConfig,
    embedding: jax.Array,
    dtype: jnp.dtype,
    rope_theta: float | None = None,
    mesh: Mesh | None = None,
) -> LoadedDraft:
    """An EAGLE-3 draft folder for a target.

    Args:
      embedding: the target's [X, target E], taken where the folder has none of its own.
      dtype: of the weights on the device.
      rope_theta: the draft's rotary base; None = what its config.json says.
      mesh: with an axis "model", to split the weights over; None = one device.

    Raises:
      UserError: something is missing, damaged or of another kind, or the two are not a pair.
    """
    files = TensorFolder(folder, canonical)
    settings = with_head_dim(draft_settings(folder, target, rope_theta), files)
    config, loader = settings.config, Loader(files, dtype, mesh)
    X, E, Y = config.vocab_size, config.hidden_size, config.draft_vocab_size
    if "embed_tokens.weight" in files or embedding.shape != (X, E):
        embedding = loader.table("embed_tokens.weight", X, E)
    params = DraftParams(
        embedding=embedding,
        fuse=loader.linear("fc.weight", E, 3 * config.target_hidden_size),
        hidden_norm=loader.vector("midlayer.hidden_norm.weight", E),
        norm=loader.vector("norm.weight", E),
        head=loader.linear("lm_head.weight", Y, E, "out"),
        target_token=jnp.asarray(target_tokens(files, config)),
        fuse_norm=fuse_norm(loader, config),
        **weights.load_fields(weights.layer_shapes(config, inputs=2), "midlayer.", loader),
    )
    loader.finish(COPIES | {"t2d"})
    return LoadedDraft(config, params, settings.feature_layers, settings.remarks)


def with_head_dim(settings: DraftSettings, files: TensorFolder) -> DraftSettings:
    """The settings with the head_dim that the stored query map has; older files say another one."""
    config = settings.config
    if QUERY not in files:
        raise UserError(
            f"{files.folder} has no tensor {QUERY} under any of its known names; it is no EAGLE-3 "
            "draft."
        )
    rows = files.shape(QUERY)[0]
    head_dim = rows // config.head_count
    if rows == config.head_dim * config.head_count:
        return settings
    if head_dim * config.head_count != rows:
        raise UserError(
            f"{files.folder}: {QUERY} has {rows} rows, which are no whole number for each of "
            f"{config.head_count} heads."
        )
    remark = f"The draft's head_dim is {head_dim}, from its weights: config.json says another one."
    return dataclasses.replace(
        settings,
        config=dataclasses.replace(config, head_dim=head_dim),
        remarks=(*settings.remarks, remark),
    )


def fuse_norm(loader: Loader, config: DraftConfig) -> jax.Array | None:
    """The norm before `fc` [3 * target E]: one over all features, one for each, or none."""
    size = config.target_hidden_size
    if config.norm_each_feature:
        parts = [loader.vector(f"fc_norm.{part}.weight", size) for part in range(3)]
        return jnp.concatenate(parts)
    return loader.vector("input_norm.weight", 3 * size) if config.norm_before_fc else None


def target_tokens(files: TensorFolder, config: DraftConfig) -> np.ndarray:
    """Target id of every draft id: the index plus `d2t`'s offset; checked against `t2d`."""
    X, Y = config.vocab_size, config.draft_vocab_size
    own = np.arange(Y)
    if "d2t" not in files and X == Y:
        return own.astype(np.int32)
    offset = files.read("d2t", (Y,))
    if offset.dtype.kind != "i":
        raise UserError(
            f"d2t in {files.folder} holds {offset.dtype.name}, no whole numbers; copy it again."
        )
    token = own + offset
    strays = token[(token < 0) | (token >= X)]
    if strays.size:
        raise UserError(
            f"d2t in {files.folder} points to token {int(strays[0])} but the vocabulary has "
            f"{X}; draft and target are not a pair."
        )
    if len(np.unique(token)) < Y:
        raise UserError(
            f"d2t in {files.folder} points to token {int(_repeated(token))} twice; it is damaged."
        )
    if "t2d" in files:
        known = np.flatnonzero(files.read("t2d", (X,)))
        if not np.array_equal(known, np.unique(token)):
            raise UserError(
                f"d2t and t2d in {files.folder} name different tokens; the file mixes two drafts."
            )
    return token.astype(np.int32)


def _repeated(token: np.ndarray) -> np.int64:
    found, count = np.unique(token, return_counts=True)
    return found[count > 1][0]


def save_draft(folder: Path, config: DraftConfig, params: DraftParams, dtype: Any) -> None:
    """Writes an EAGLE-3 folder; the embedding stays with a target of the same width."""
    tensors = {
        f"midlayer.{name}.weight": weights.stored(getattr(params, field), dtype)
        for field, name in LAYER_NAMES.items()
    }
    if config.hidden_size != config.target_hidden_size:
        tensors["embed_tokens.weight"] = np.asarray(params.embedding, dtype)
    token = np.asarray(params.target_token).astype(np.int64)
    known = np.zeros(config.vocab_size, bool)
    known[token] = True
    tensors |= {
        "midlayer.hidden_norm.weight": weights.stored(params.hidden_norm, dtype),
        "fc.weight": weights.stored(params.fuse, dtype),
        "norm.weight": weights.stored(params.norm, dtype),
        "lm_head.weight": weights.stored(params.head, dtype),
        "d2t": token - np.arange(config.draft_vocab_size),
        "t2d": known,
    }
    if config.norm_before_fc:
        tensors["input_norm.weight"] = weights.stored(params.fuse_norm, dtype)
    if config.norm_each_feature:
        parts = np.split(weights.stored(params.fuse_norm, dtype), 3)
        tensors |= {f"fc_norm.{part}.weight": parts[part] for part in range(3)}
    write_folder(folder, weights.shared_fields(config, dtype) | own_fields(config), tensors)


def own_fields(config: DraftConfig) -> dict[str, Any]:
    """What only a draft's config.json says.

    EAGLE's own loader wants the draft's embedding where `target_hidden_size` is named, so it is
    named only where the widths differ.
    """
    fields: dict[str, Any] = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "num_hidden_layers": 1,
        "draft_vocab_size": config.draft_vocab_size,
        "tie_word_embeddings": False,
    }
    if config.hidden_size != config.target_hidden_size:
        fields["target_hidden_size"] = config.target_hidden_size
    if config.rope_scaling is not None:
        raise UserError("A draft with rope_scaling cannot be written.")
    flags = {
        "norm_before_residual": config.norm_before_residual,
        "norm_before_fc": config.norm_before_fc,
        "fc_norm": config.norm_each_feature,
        "norm_output": config.norm_output,
    }
    return fields | {name: True for name, is_set in flags.items() if is_set}
