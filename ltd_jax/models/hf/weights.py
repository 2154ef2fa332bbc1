"""Weights between Hugging Face style folders and our pytrees, by one name table for each kind.

A table is a model's own pytree with a `Stored` in the place of every array: its name and shape in a
folder, and how it is split between devices. The same table serves reading, writing and memory
estimates. Linear maps are stored [out, in] and used [in, out] (models/layers.py). On reading, a map
is turned, cast and put on the device block by block of its rows, so the host never holds much more
than one tensor beside what it has already put there.

Names of drafts are EAGLE's own, `midlayer.` for the one decoder layer; other trainers write
`layers.0.`, with or without `model.` in front; further layers are `layers.1.` and so on for all.
What a folder holds is known by a tensor that only this kind of draft has. Names and shapes of all
tensors are checked before one is read: none may be missing, and none may be there that would change
the model and is not read.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ltd_jax import finite
from ltd_jax.config import AnyDraftConfig, DraftConfig, GriffinConfig, TargetConfig
from ltd_jax.files import UserError, require_finite
from ltd_jax.models import cpu_layout, layers, sharding
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.griffin import GriffinParams
from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.hf import evidence
from ltd_jax.models.hf import rope as hf_rope
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf.config import DraftSettings, Settings, TargetSettings
from ltd_jax.models.hf.evidence import BLOCK_BYTES, EAGLE3_MARK, GRIFFIN_MARK, HEAD, LAYER, QUERY
from ltd_jax.models.hf.tensors import SHARD_BYTES, TensorFolder, write_folder
from ltd_jax.models.layers import LayerParams
from ltd_jax.models.target import TargetParams

DRAFT_SHARD_BYTES = 5 * 10**9  # EAGLE's own loader reads no index of a draft
ALIGNMENT = 64  # bytes; XLA copies host arrays that start elsewhere
EMBEDDING = "embed_tokens.weight"  # of a draft
NOT_STORED: Any = None  # in a table: an array that folders have not, or not by this name
Dialect = Literal["eagle", "layers.0"]  # how a written EAGLE-3 draft's layer is called


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor of a folder."""

    name: str
    shape: tuple[int, ...]  # as stored: linear maps are [out, in]
    split: Literal["out", "in"] | None = None  # axis split over devices; None = no linear map
    heads: int | None = None  # along that axis, none of which is cut; None = there are none
    padded: bool = False  # rows of zeros follow where it has fewer, and its surplus is left out

    @property
    def axis(self) -> int | None:
        """The axis of our array that is split over devices."""
        return None if self.split is None else ("in", "out").index(self.split)

    @property
    def part_count(self) -> int:
        """The number of parts that it may be split into at most."""
        return 1 if self.axis is None else self.heads or self.shape[1 - self.axis]


stored: Any = Stored  # of any type, because it stands in the place of an array


def target_table(config: TargetConfig) -> TargetParams:
    """The tensors of a target."""
    E, X = config.hidden_size, config.vocab_size
    return TargetParams(
        embedding=stored("model.embed_tokens.weight", (X, E)),
        layers=tuple(
            _decoder_layer(config, f"model.layers.{index}.") for index in range(config.layer_count)
        ),
        norm=stored("model.norm.weight", (E,)),
        head=None if config.tie_embeddings else stored(HEAD, (X, E), "out"),
    )


def _decoder_layer(config: TargetConfig | DraftConfig, prefix: str) -> LayerParams:
    """The tensors of a usual decoder layer."""
    return LayerParams(
        input_norm=stored(f"{prefix}input_layernorm.weight", (config.hidden_size,)),
        **_layer_table(config, prefix),
    )


def draft_table(config: AnyDraftConfig, with_embedding: bool) -> Any:
    """The tensors of a draft, `DraftParams` with or without an embedding of its own."""
    if isinstance(config, GriffinConfig):
        table: Any = _griffin_table(config)
    else:
        table = _eagle3_table(config)
    return table if with_embedding else table.replace(embedding=NOT_STORED)


def _eagle3_table(config: DraftConfig) -> Eagle3Params:
    """The tensors of an EAGLE-3 draft; its vocabulary is stored otherwise (`target_tokens`)."""
    E, size, count = config.hidden_size, config.target_hidden_size, config.feature_count
    fuse_norms: tuple[Any, ...] = ()
    if config.norm_before_fc:
        fuse_norms = (stored("input_norm.weight", (count * size,)),)
    if config.norm_each_feature:
        fuse_norms = tuple(stored(f"fc_norm.{index}.weight", (size,)) for index in range(count))
    return Eagle3Params(
        embedding=stored(EMBEDDING, (config.vocab_size, E), padded=True),
        fuse=stored("fc.weight", (E, count * size), "out"),
        input_norm=stored(f"{LAYER}input_layernorm.weight", (E,)),
        hidden_norm=stored(EAGLE3_MARK, (E,)),
        norm=stored("norm.weight", (E,)),
        head=stored(HEAD, (config.draft_vocab_size, E), "out", padded=True)
        if config.own_head
        else NOT_STORED,
        target_token=NOT_STORED,
        fuse_norms=fuse_norms,
        fuse_bias=stored("fc.bias", (E,)) if config.fuse_bias else None,
        further=tuple(
            _decoder_layer(config, f"layers.{index}.") for index in range(1, config.layer_count)
        ),
        **_layer_table(config, LAYER, inputs=2),
    )


def _griffin_table(config: GriffinConfig) -> GriffinParams:
    """The tensors of a Griffin draft, as the authors' public checkpoints call them.

    Its token-guided fusion is stored as `fc`. Its head is the target's.
    """
    E, F = config.hidden_size, config.intermediate_size
    return GriffinParams(
        embedding=stored(EMBEDDING, (config.vocab_size, E), padded=True),
        fuse=stored(GRIFFIN_MARK, (E, 2 * E), "out"),
        fuse_bias=stored("fc.fc.bias", (E,)),
        fuse_norm=stored("fc.post_attention_layernorm.weight", (E,)),
        guide_norm=stored("fc.mlp.input_layernorm.weight", (E,)),
        guide_up=stored("fc.mlp.up_proj.weight", (F, 2 * E), "out"),
        guide_down=stored("fc.mlp.down_proj.weight", (E, F), "in"),
        head=NOT_STORED,
        target_token=NOT_STORED,
        **_layer_table(config, LAYER, outputs=2),
    )


def _layer_table(
    config: TargetConfig | AnyDraftConfig, prefix: str, *, inputs: int = 1, outputs: int = 1
) -> dict[str, Any]:
    """The tensors that decoder layers of all kinds have, by field; arguments as `map_shapes`."""
    heads = {"q": config.head_count, "k": config.kv_head_count, "v": config.kv_head_count}
    heads["o"] = config.head_count
    maps, biases = {}, []
    for field, (into, out) in layers.map_shapes(config, inputs, outputs).items():
        name = f"{prefix}{'self_attn' if field in heads else 'mlp'}.{field}_proj"
        split = "in" if field in ("o", "down") else "out"
        maps[field] = stored(f"{name}.weight", (out, into), split, heads.get(field))
        if field in ("q", "k", "v"):
            biases.append(stored(f"{name}.bias", (out,)))
    E, C = config.hidden_size, config.head_dim
    norm = stored(f"{prefix}post_attention_layernorm.weight", (E,))
    fields = layers.layer_fields(maps) | {"post_attention_norm": norm}
    if config.attention_bias:
        fields["qkv_bias"] = tuple(biases)
    if isinstance(config, GriffinConfig):
        return fields
    norms = [stored(f"{prefix}self_attn.{name}_norm.weight", (C,)) for name in "qk"]
    output_bias = stored(f"{prefix}self_attn.o_proj.bias", (E,))
    return fields | {
        "qk_norms": tuple(norms) if config.qk_norm else (),
        "o_bias": output_bias if config.output_bias else None,
    }


def read_target_settings(folder: Path) -> TargetSettings:
    """The settings of a target folder, by its tensors where there are any.

    Raises:
      UserError: something is missing, damaged, of another family, or not known here.
    """
    settings = Settings(folder)
    if not hf_tensors.has_weights(folder):
        return TargetSettings(hf_config.target_config(settings), tuple(settings.doubts))
    return _target_settings(TensorFolder(folder), settings)


def _target_settings(files: TensorFolder, settings: Settings) -> TargetSettings:
    if settings.architecture() not in hf_config.TARGET_FAMILIES:
        hf_config.target_config(settings)  # which says so
    evidence.refuse_quantised(files)
    found = evidence.of_target(files, settings)
    config = hf_config.target_config(settings, found)
    tied = [HEAD] if config.tie_embeddings else []
    check_tensors(files, target_table(config), tied)
    return TargetSettings(config, (*files.doubts, *settings.doubts))


def check_tensors(files: TensorFolder, table: Any, others: list[str]) -> None:
    """UserError for tensors that are missing, not as the table says, or not known.

    Args:
      others: names that are read in another way, or need not be read.
    """
    tensors = jax.tree.leaves(table)
    for tensor in tensors:
        _check_tensor(files, tensor)
    evidence.refuse_unknown(files, [*(tensor.name for tensor in tensors), *others])


def _check_tensor(files: TensorFolder, tensor: Stored) -> None:
    shape = tensor.shape
    if tensor.padded and tensor.name in files:
        shape = (*files.shape(tensor.name)[:1], *shape[1:])
    files.check(tensor.name, shape)
    files.check_floats(tensor.name)


def load_target(
    folder: Path,
    dtype: jnp.dtype,
    devices: int = 1,
    packed: bool = False,
    replicas: int = 1,
) -> tuple[TargetConfig, TargetParams]:
    """Config and weights of a target folder.

    Args:
      dtype: of the weights on the device, whatever they are stored in.
      devices: to split the weights over (models/sharding.py).
      packed: in the layout of models/cpu_layout.py, layer by layer, so that none is held twice.
      replicas: so many times these devices, each with all weights.

    Raises:
      UserError: something is missing, damaged or of another family, or there are fewer devices.
    """
    settings, files = Settings(folder), TensorFolder(folder)
    config = _target_settings(files, settings).config
    loader = Loader(files, dtype, sharding.mesh_of(devices, config.kv_head_count, replicas))
    table = target_table(config)

    def read_layer(layer: LayerParams) -> LayerParams:
        params = loader.read(layer)
        return jax.block_until_ready(cpu_layout.pack_layer(params)) if packed else params

    layers = tuple(read_layer(layer) for layer in table.layers)
    params = loader.read(table.replace(layers=())).replace(layers=layers)
    loader.finish()
    if packed:
        params = params.replace(head=cpu_layout.pack_head(params))
    return config, params


@dataclasses.dataclass(frozen=True)
class LoadedDraft(DraftSettings):
    """A draft and what its folder says of it."""

    params: DraftParams


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
      devices: to split the weights over (models/sharding.py).
      head: the target's [E, X], which a draft without its own takes; None = tied to the embedding.

    Raises:
      UserError: something is missing, damaged or of another kind, or the two are not a pair.
    """
    files, settings = TensorFolder(folder, canonical), Settings(folder)
    known = _draft_settings(files, settings, target, rope_theta)
    config = known.config
    loader = Loader(files, dtype, sharding.mesh_of(devices, target.kv_head_count))
    table = draft_table(config, with_embedding=True)
    own_embedding = embedding
    if _has_embedding(files, config):
        own_embedding = loader.read(table.embedding)
        if _is_equal(own_embedding, embedding):
            own_embedding = embedding
    params = loader.read(table.replace(embedding=NOT_STORED)).replace(embedding=own_embedding)
    is_griffin = isinstance(config, GriffinConfig)
    if params.head is None and (is_griffin or not evidence.has_tied_head(files, settings)):
        is_tied = head is None and own_embedding is embedding
        params = params.replace(head=head if head is not None or is_tied else embedding.T)
    token = target_tokens(files, config, settings.fields["vocab_size"])
    loader.finish()
    on_device = jax.device_put(token, loader.sharding())
    return LoadedDraft(**vars(known), params=params.replace(target_token=on_device))


def _has_embedding(files: TensorFolder, config: AnyDraftConfig) -> bool:
    """Whether a draft's own embedding is read; one of another width must have it."""
    return EMBEDDING in files or config.hidden_size != config.target_hidden_size


@jax.jit
def _is_equal(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.array_equal(one, other)  # in one pass, without an array of booleans


def canonical(name: str) -> str:
    """EAGLE's name of a stored tensor."""
    name = name.removeprefix("model.")
    return f"{LAYER}{name[9:]}" if name.startswith("layers.0.") else name


def read_draft_settings(
    folder: Path, target: TargetConfig, rope_theta: float | None = None
) -> DraftSettings:
    """The settings of a draft folder; one without any weights is taken for EAGLE-3's."""
    if hf_tensors.has_weights(folder):
        files = TensorFolder(folder, canonical)
        return _draft_settings(files, Settings(folder), target, rope_theta)
    return hf_config.draft_settings(folder, target, rope_theta)


def _draft_settings(
    files: TensorFolder, settings: Settings, target: TargetConfig, rope_theta: float | None
) -> DraftSettings:
    """The settings as far as tensors do not say otherwise; all tensors are checked."""
    evidence.refuse_quantised(files)
    is_griffin = GRIFFIN_MARK in files
    if not is_griffin and (EAGLE3_MARK not in files or QUERY not in files):
        raise UserError(
            f"{files.folder} has neither tensor {EAGLE3_MARK} nor {GRIFFIN_MARK} "
            "under any known name; it is no EAGLE-3 draft and no Griffin draft (drafts of EAGLE-1 "
            "and EAGLE-2 are not known)."
        )
    found = evidence.of_draft(files, settings, target, is_griffin)
    if not found.get("own_head", True) and not _takes_targets_head(files, settings, target):
        files.check(HEAD, ())  # which says that it is missing
    known = hf_config.draft_settings(settings, target, rope_theta, is_griffin, found)
    table = draft_table(known.config, _has_embedding(files, known.config))
    E, own_vocab_size = known.config.hidden_size, settings.fields["vocab_size"]
    if table.embedding is not NOT_STORED:
        files.check(EMBEDDING, (own_vocab_size, E))
    if "d2t" in files:
        files.check("d2t", (known.config.draft_vocab_size,))
    if "d2t" in files and HEAD in files:  # only a head for all tokens may be padded
        files.check(HEAD, (known.config.draft_vocab_size, E))
    check_tensors(files, table, ["d2t"])
    token = target_tokens(files, known.config, own_vocab_size)
    if not found.get("own_head", True) and np.any(token != np.arange(len(token))):
        raise UserError(
            f"{files.folder} has no {HEAD}, so the target's is meant, but its d2t changes the "
            "order of the tokens; the checkpoint is incomplete."
        )
    return dataclasses.replace(known, doubts=(*files.doubts, *known.doubts))


def _takes_targets_head(files: TensorFolder, settings: Settings, target: TargetConfig) -> bool:
    """Whether a draft without a head can take the target's, or its own embedding for it."""
    X = target.vocab_size
    tokens = settings.count("draft_vocab_size", X)
    if "d2t" in files:
        tokens = X if files.shape("d2t") == (X,) else 0
    is_as_wide = settings.fields.get("hidden_size") == target.hidden_size
    speaks_of_all = X - tokens <= hf_config.PADDING_SHARE * X
    return speaks_of_all and (is_as_wide or evidence.has_tied_head(files, settings))


def target_tokens(files: TensorFolder, config: AnyDraftConfig, own_vocab_size: int) -> np.ndarray:
    """Target ids [Y] i32 of a draft's ids: the index plus `d2t`, if any; checked against `t2d`.

    Args:
      own_vocab_size: all tokens that the draft counts, which may be padded otherwise than X.
    """
    X, Y = config.vocab_size, config.draft_vocab_size
    if "d2t" not in files and X - Y <= hf_config.PADDING_SHARE * X:
        return np.arange(Y, dtype=np.int32)
    offset = files.read("d2t", (Y,))
    if offset.dtype.kind not in "iu":
        raise UserError(
            f"d2t in {files.folder} holds {offset.dtype.name}, no integers; copy it again."
        )
    token = np.arange(Y) + offset.astype(np.int64)
    strays = token[(token < 0) | (token >= X)]
    if strays.size:
        raise UserError(
            f"d2t in {files.folder} points to token {int(strays[0])} but the vocabulary has "
            f"{X}; draft and target are not a pair."
        )
    known, count = np.unique(token, return_counts=True)
    if len(known) < Y:
        raise UserError(
            f"d2t in {files.folder} points to token {int(known[count > 1][0])} twice; it is "
            "damaged."
        )
    if "t2d" in files:
        size = own_vocab_size if files.shape("t2d") == (own_vocab_size,) else X
        if not np.array_equal(np.flatnonzero(files.read("t2d", (size,))), known):
            raise UserError(
                f"d2t and t2d in {files.folder} name different tokens; the file mixes two drafts."
            )
    return token.astype(np.int32)


class Loader:
    """Reads the tensors of one folder; `finish` tells what was wrong with them."""

    def __init__(self, files: TensorFolder, dtype: jnp.dtype, mesh: Mesh | None = None) -> None:
        self.files, self.dtype, self.mesh = files, np.dtype(dtype), mesh
        self.is_finite: dict[str, jax.Array] = {}  # by tensor, bool []

    def read(self, table: Any) -> Any:
        """The arrays of a table, or the array of one `Stored`."""
        return jax.tree.map(self._read, table)

    def _read(self, tensor: Stored) -> jax.Array:
        """A linear map [in, out], or another array as it is stored."""
        _check_tensor(self.files, tensor)
        turned, wanted = tensor.split is not None, tensor.shape[0]
        array = _aligned(tensor.shape[::-1] if turned else tensor.shape, self.dtype)
        rows = array.T if turned else array
        found = self.files.shape(tensor.name)
        rows[found[0] :] = 0
        for start, block in self.files.blocks(tensor.name, found, BLOCK_BYTES):
            rows[start : start + len(block)] = block[: max(wanted - start, 0)]
        on_device = jax.device_put(array, self.sharding(tensor))
        self.is_finite[tensor.name] = _all_finite(on_device)
        return on_device

    def sharding(self, tensor: Stored | None = None) -> NamedSharding | None:
        """The sharding of a tensor; without one, of a copy on every device. None = one device."""
        if self.mesh is None or tensor is None:
            return None if self.mesh is None else sharding.sharding(self.mesh)
        return sharding.sharding(self.mesh, tensor.axis, tensor.part_count)

    def finish(self) -> None:
        """UserError for a tensor that holds no finite numbers."""
        for name, is_finite in self.is_finite.items():
            if not is_finite:
                raise UserError(
                    f"Tensor {name} in {self.files.folder} holds NaN or infinity in "
                    f"{self.dtype.name}; the weights are damaged, or need another `dtype`."
                )


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array at an address that a CPU's device array takes over without a copy."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


_all_finite = jax.jit(finite.all_finite)


def save_target(
    folder: Path,
    config: TargetConfig,
    params: TargetParams,
    dtype: Any,
    fields: dict[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
    always_index: bool = False,
) -> None:
    """Writes a target folder that transformers and EAGLE-3 stacks load too.

    Args:
      fields: more of config.json, such as special tokens.
      shard_bytes: most bytes of a file; one tensor may be larger.
      always_index: also of a single file, without which EAGLE's own code finds no embedding.

    Raises:
      UserError: no known family has these windows, biases and norms, or a weight is not finite in
        `dtype`.
    """
    settings = hf_config.fields_of(config, dtype, fields or {})
    tensors = _tensors(target_table(config), params, dtype)
    write_folder(folder, settings, tensors, shard_bytes, always_index)


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
      own_embedding: whether the embedding is another one than the target's; a Griffin draft's is
        written in any case, as its authors' loader wants it.

    Raises:
      UserError: the dialect cannot say what this draft needs, or a weight is not finite in `dtype`.
    """
    if dialect == "eagle" and not isinstance(config, GriffinConfig):
        hf_rope.refuse_for_eagle(config)
    settings = hf_config.fields_of(config, dtype, fields or {})
    is_griffin = isinstance(config, GriffinConfig)
    is_wider = config.hidden_size != config.target_hidden_size
    with_embedding = is_griffin or own_embedding or is_wider
    table = draft_table(config, with_embedding)
    if not is_griffin and params.head is None and with_embedding:
        settings["tie_word_embeddings"] = True
    tensors = _tensors(table, params, dtype)
    if not is_griffin:
        tensors = itertools.chain(tensors, _vocabulary_tensors(config, params.target_token))
    if is_griffin or dialect == "layers.0":
        tensors = ((name.replace(LAYER, "layers.0."), tensor) for name, tensor in tensors)
    write_folder(folder, settings, tensors, DRAFT_SHARD_BYTES)


def _vocabulary_tensors(
    config: AnyDraftConfig, target_token: jax.Array
) -> Iterator[tuple[str, np.ndarray]]:
    """A draft's vocabulary as EAGLE-3 folders have it; `target_tokens` reads it."""
    token = np.asarray(target_token).astype(np.int64)
    is_known = np.zeros(config.vocab_size, bool)
    is_known[token] = True
    yield "d2t", token - np.arange(config.draft_vocab_size)
    yield "t2d", is_known


def _tensors(table: Any, params: Any, dtype: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a table by their names, as they are stored, one at a time.

    Raises:
      UserError: one holds numbers that are not finite in this dtype.
    """
    leaves, structure = jax.tree.flatten(table, is_leaf=lambda leaf: leaf is NOT_STORED)
    for tensor, array in zip(leaves, structure.flatten_up_to(params), strict=True):
        if tensor is not NOT_STORED:
            with np.errstate(over="ignore"):  # it is told below
                values = np.asarray(array, dtype)
            what = f"Cannot write weights in {np.dtype(dtype).name}"
            require_finite(what, {tensor.name: values}, remedy="write them in another `dtype`")
            yield tensor.name, values if tensor.split is None else values.T
