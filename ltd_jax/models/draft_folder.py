"""Draft folders: what kind a folder holds, and its weights to and from our pytree.

EAGLE-3 (eagle3_folder.py) and Griffin (griffin_folder.py) are known by a tensor that only they
have. Folders name the one decoder layer `midlayer` or `layers.0`, with or without `model.` in
front. The embedding is usually the target's and then not stored.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import GriffinConfig, TargetConfig
from ltd_jax.errors import UserError
from ltd_jax.model_config import AnyDraftConfig
from ltd_jax.models import draft_config, eagle3_folder, griffin_folder, hub_config, split, weights
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.draft_config import DraftSettings
from ltd_jax.models.loader import Loader
from ltd_jax.models.tensor_files import TensorFolder, write_folder

# The verifier's own last norm and head, which some trainers store beside the draft.
COPIES = frozenset({"verifier_norm.weight", "verifier_lm_head.weight"})
QUERY = "midlayer.self_attn.q_proj.weight"
Dialect = Literal["eagle", "layers.0"]  # how a written EAGLE-3 draft's layer is called


class LoadedDraft(NamedTuple):
    """A draft and what its folder says of it."""

    config: AnyDraftConfig
    params: DraftParams
    feature_layers: tuple[int, ...] | None  # of the target; None = the draft names none
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
    devices: int = 1,
    head: jax.Array | None = None,
) -> LoadedDraft:
    """An EAGLE-3 or Griffin draft folder for a target.

    Args:
      embedding: the target's [X, target E], taken where the folder has none of its own.
      dtype: of the weights on the device.
      rope_theta: the draft's rotary base; None = what its config.json says.
      devices: to split the weights over (split.py).
      head: the target's [E, X], which a Griffin draft takes; None = tied to the embedding.

    Raises:
      UserError: something is missing, damaged or of another kind, or the two are not a pair.
    """
    files = TensorFolder(folder, canonical)
    settings = _settings(files, target, rope_theta)
    config = settings.config
    loader = Loader(files, dtype, split.mesh_of(devices, target.kv_head_count))
    X, E = config.vocab_size, config.hidden_size
    if "embed_tokens.weight" in files or embedding.shape != (X, E):
        embedding = _shared(loader.table("embed_tokens.weight", X, E), embedding)
    if isinstance(config, GriffinConfig):
        params: DraftParams = griffin_folder.read(loader, config, embedding, head)
    else:
        params = eagle3_folder.read(loader, config, embedding)
    loader.finish(COPIES | {"t2d"})
    return LoadedDraft(config, params, settings.feature_layers, settings.remarks)


def settings_of(
    folder: Path, target: TargetConfig, rope_theta: float | None = None
) -> DraftSettings:
    """What a folder says of its draft; one without any weights is taken for EAGLE-3's."""
    if any(path.suffix in (".safetensors", ".bin") for path in folder.glob("*")):
        return _settings(TensorFolder(folder, canonical), target, rope_theta)
    return draft_config.draft_settings(folder, target, rope_theta)


def _settings(files: TensorFolder, target: TargetConfig, rope_theta: float | None) -> DraftSettings:
    is_griffin = griffin_folder.MARK in files
    if not is_griffin and (eagle3_folder.MARK not in files or QUERY not in files):
        raise UserError(
            f"{files.folder} has neither tensor {eagle3_folder.MARK} nor {griffin_folder.MARK} "
            "under any known name; it is no EAGLE-3 draft and no Griffin draft (drafts of EAGLE-1 "
            "and EAGLE-2 are not known)."
        )
    read = draft_config.griffin_settings if is_griffin else draft_config.draft_settings
    return with_head_dim(read(files.folder, target, rope_theta), files)


@jax.jit
def _equal(own: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.all(own == other)


def _shared(own: jax.Array, targets: jax.Array) -> jax.Array:
    """The target's embedding instead of an equal copy of it."""
    return targets if own.shape == targets.shape and _equal(own, targets) else own


def with_head_dim(settings: DraftSettings, files: TensorFolder) -> DraftSettings:
    """The settings with the head_dim that the stored query map has; older files say another one."""
    config = settings.config
    rows = files.shape(QUERY)[0]
    head_dim = rows // config.head_count
    if rows == config.head_dim * config.head_count:
        hub_config.even_head_dim(files.folder / "config.json", head_dim)
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


def save_draft(
    folder: Path,
    config: AnyDraftConfig,
    params: DraftParams,
    dtype: Any,
    dialect: Dialect = "eagle",
    fields: dict[str, Any] | None = None,
    own_embedding: bool = False,
) -> None:
    """Writes a draft folder.

    Args:
      dialect: the name of an EAGLE-3 draft's layer; a Griffin draft has its authors' names.
      fields: more of config.json, such as special tokens.
      own_embedding: whether the embedding is another one than the target's.

    Raises:
      UserError: the dialect cannot say what this draft needs.
    """
    if dialect == "eagle" and config.rope_scaling is not None:
        raise UserError(
            "EAGLE's own code reads no llama3 rope_scaling, which this draft has; write it in the "
            "dialect layers.0."
        )
    is_griffin = isinstance(config, GriffinConfig)
    kind = griffin_folder if is_griffin else eagle3_folder
    layer = "midlayer." if dialect == "eagle" and not is_griffin else "layers.0."
    own = weights.shared_fields(config, dtype, fields) | kind.fields(config)
    found = kind.tensors(config, params, dtype, own_embedding)
    write_folder(folder, own, _renamed(found, layer))


def _renamed(
    tensors: Iterator[tuple[str, np.ndarray]], layer: str
) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensor in tensors:
        yield name.replace("midlayer.", layer), tensor
