"""Tensors and fields of an EAGLE-3 folder, both ways.

Folders keep `d2t` as offsets: target id = draft id + d2t[draft id]. Names are EAGLE's own
(`midlayer.`); draft_folder.py turns other trainers' into them.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import DraftConfig
from ltd_jax.errors import UserError
from ltd_jax.models import weights
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.loader import Loader
from ltd_jax.models.tensor_files import TensorFolder
from ltd_jax.models.weights import LAYER_NAMES

MARK = "midlayer.hidden_norm.weight"  # no other kind of draft has it


def read(loader: Loader, config: DraftConfig, embedding: jax.Array) -> Eagle3Params:
    """The weights of a folder, around an embedding [X, E]."""
    E, Y = config.hidden_size, config.draft_vocab_size
    return Eagle3Params(
        embedding=embedding,
        fuse=loader.linear("fc.weight", E, 3 * config.target_hidden_size, "out"),
        hidden_norm=loader.vector(MARK, E),
        norm=loader.vector("norm.weight", E),
        head=loader.linear("lm_head.weight", Y, E, "out"),
        target_token=loader.ids(target_tokens(loader.files, config)),
        fuse_norm=fuse_norm(loader, config),
        **weights.load_fields(config, "midlayer.", loader, inputs=2),
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


def tensors(
    config: DraftConfig, params: Eagle3Params, dtype: Any, own_embedding: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors by name; an embedding that is the target's stays there."""
    for field, name in LAYER_NAMES.items():
        yield f"midlayer.{name}.weight", weights.stored(getattr(params, field), dtype)
    if own_embedding or config.hidden_size != config.target_hidden_size:
        yield "embed_tokens.weight", np.asarray(params.embedding, dtype)
    yield MARK, weights.stored(params.hidden_norm, dtype)
    yield "fc.weight", weights.stored(params.fuse, dtype)
    yield "norm.weight", weights.stored(params.norm, dtype)
    yield "lm_head.weight", weights.stored(params.head, dtype)
    if params.fuse_norm is not None and config.norm_before_fc:
        yield "input_norm.weight", weights.stored(params.fuse_norm, dtype)
    if params.fuse_norm is not None and config.norm_each_feature:
        for part, norm in enumerate(np.split(weights.stored(params.fuse_norm, dtype), 3)):
            yield f"fc_norm.{part}.weight", norm
    token = np.asarray(params.target_token).astype(np.int64)
    known = np.zeros(config.vocab_size, bool)
    known[token] = True
    yield "d2t", token - np.arange(config.draft_vocab_size)
    yield "t2d", known


def fields(config: DraftConfig) -> dict[str, Any]:
    """What only a draft's config.json says.

    EAGLE's own loader wants the draft's embedding where `target_hidden_size` is named, so it is
    named only where the widths differ.
    """
    found: dict[str, Any] = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "num_hidden_layers": 1,
        "draft_vocab_size": config.draft_vocab_size,
        "tie_word_embeddings": False,
    }
    if config.hidden_size != config.target_hidden_size:
        found["target_hidden_size"] = config.target_hidden_size
    flags = {
        "norm_before_residual": config.norm_before_residual,
        "norm_before_fc": config.norm_before_fc,
        "fc_norm": config.norm_each_feature,
        "norm_output": config.norm_output,
    }
    return found | {name: True for name, is_set in flags.items() if is_set}
