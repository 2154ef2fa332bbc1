"""Weights between Hugging Face style folders and our pytrees, by one name table for each kind.

A table is a model's own pytree with a `Stored` in the place of every array: its name and shape in a
folder, and how it is split between devices. The same table serves reading, writing and memory
estimates. Linear maps are stored [out, in] and used [in, out] (models/layers.py). On reading, a map
is turned, cast and put on the device block by block of its rows, so the host never holds much more
than one tensor beside what it has already put there.

Names of drafts are EAGLE's own, `midlayer.` for the one decoder layer; other trainers write
`layers.0.`, with or without `model.` in front. What a folder holds is known by a tensor that only
this kind of draft has.
"""

import dataclasses
import itertools
import math
import warnings
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
from ltd_jax.models.hf.config import DraftSettings
from ltd_jax.models.hf.tensors import SHARD_BYTES, TensorFolder, write_folder
from ltd_jax.models.target import LayerParams, TargetParams

BLOCK_BYTES = 16 * 2**20
ALIGNMENT = 64  # bytes; XLA copies host arrays that start elsewhere
LAYER = "midlayer."
EAGLE3_MARK = f"{LAYER}hidden_norm.weight"  # no other kind of draft has it
GRIFFIN_MARK = "fc.fc.weight"  # no other kind of draft has it
QUERY = f"{LAYER}self_attn.q_proj.weight"
# The verifier's own last norm and head, which some trainers store beside the draft.
COPIES = frozenset({"verifier_norm.weight", "verifier_lm_head.weight"})
NOT_STORED: Any = None  # in a table: an array that folders have not, or not by this name
Dialect = Literal["eagle", "layers.0"]  # how a written EAGLE-3 draft's layer is called


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor of a folder."""

    name: str
    shape: tuple[int, ...]  # as stored: linear maps are [out, in]
    split: Literal["out", "in"] | None = None  # axis split over devices; None = no linear map
    heads: int | None = None  # along that axis, none of which is cut; None = there are none

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
    E, X, C = config.hidden_size, config.vocab_size, config.head_dim

    def layer(prefix: str) -> LayerParams:
        norms = [stored(f"{prefix}self_attn.{name}_norm.weight", (C,)) for name in "qk"]
        return LayerParams(
            input_norm=stored(f"{prefix}input_layernorm.weight", (E,)),
            qk_norms=tuple(norms) if config.qk_norm else (),
            **_layer_table(config, prefix, biased=config.attention_bias),
        )

    return TargetParams(
        embedding=stored("model.embed_tokens.weight", (X, E)),
        layers=tuple(layer(f"model.layers.{index}.") for index in range(config.layer_count)),
        norm=stored("model.norm.weight", (E,)),
        head=None if config.tie_embeddings else stored("lm_head.weight", (X, E), "out"),
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
        embedding=stored("embed_tokens.weight", (config.vocab_size, E)),
        fuse=stored("fc.weight", (E, count * size), "out"),
        input_norm=stored(f"{LAYER}input_layernorm.weight", (E,)),
        hidden_norm=stored(EAGLE3_MARK, (E,)),
        norm=stored("norm.weight", (E,)),
        head=stored("lm_head.weight", (config.draft_vocab_size, E), "out"),
        target_token=NOT_STORED,
        fuse_norms=fuse_norms,
        **_layer_table(config, LAYER, inputs=2),
    )


def _griffin_table(config: GriffinConfig) -> GriffinParams:
    """The tensors of a Griffin draft, as the authors' public checkpoints call them.

    Its token-guided fusion is stored as `fc`. Its head is the target's.
    """
    E, F = config.hidden_size, config.intermediate_size
    return GriffinParams(
        embedding=stored("embed_tokens.weight", (config.vocab_size, E)),
        fuse=stored(GRIFFIN_MARK, (E, 2 * E), "out"),
        fuse_bias=stored("fc.fc.bias", (E,)),
        fuse_norm=stored("fc.post_attention_layernorm.weight", (E,)),
        guide_norm=stored("fc.mlp.input_layernorm.weight", (E,)),
        guide_up=stored("fc.mlp.up_proj.weight", (F, 2 * E), "out"),
        guide_down=stored("fc.mlp.down_proj.weight", (E, F), "in"),
        head=NOT_STORED,
        target_token=NOT_STORED,
        **_layer_table(config, LAYER, outputs=2, biased=config.attention_bias),
    )


def _layer_table(
    config: TargetConfig | AnyDraftConfig,
    prefix: str,
    *,
    inputs: int = 1,
    outputs: int = 1,
    biased: bool = False,
) -> dict[str, Any]:
    """The tensors that the decoder layers of all kinds have, by field; arguments as `map_shapes`.

    Args:
      biased: whether queries, keys and values have biases.
    """
    heads = {"q": config.head_count, "k": config.kv_head_count, "v": config.kv_head_count}
    heads["o"] = config.head_count
    maps, biases = {}, []
    for field, (into, out) in layers.map_shapes(config, inputs, outputs).items():
        name = f"{prefix}{'self_attn' if field in heads else 'mlp'}.{field}_proj"
        split = "in" if field in ("o", "down") else "out"
        maps[field] = stored(f"{name}.weight", (out, into), split, heads.get(field))
        if field in ("q", "k", "v"):
            biases.append(stored(f"{name}.bias", (out,)))
    norm = stored(f"{prefix}post_attention_layernorm.weight", (config.hidden_size,))
    fields = layers.layer_fields(maps) | {"post_attention_norm": norm}
    return fields | ({"qkv_bias": tuple(biases)} if biased else {})


def load_target(
    folder: Path, dtype: jnp.dtype, devices: int = 1, packed: bool = False
) -> tuple[TargetConfig, TargetParams]:
    """Config and weights of a target folder.

    Args:
      dtype: of the weights on the device, whatever they are stored in.
      devices: to split the weights over (models/sharding.py).
      packed: in the layout of models/cpu_layout.py, layer by layer, so that none is held twice.

    Raises:
      UserError: something is missing, damaged or of another family, or there are fewer devices.
    """
    config = hf_config.target_config(folder)
    loader = Loader(TensorFolder(folder), dtype, sharding.mesh_of(devices, config.kv_head_count))
    table = target_table(config)

    def read_layer(layer: LayerParams) -> LayerParams:
        params = loader.read(layer)
        return jax.block_until_ready(cpu_layout.pack_layer(params)) if packed else params

    layers = tuple(read_layer(layer) for layer in table.layers)
    params = loader.read(table.replace(layers=())).replace(layers=layers)
    loader.finish(frozenset({"lm_head.weight"} if config.tie_embeddings else ()))
    if packed and params.head is not None:
        params = params.replace(head=cpu_layout.pack(params.head))
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
      head: the target's [E, X], which a Griffin draft takes; None = tied to the embedding.

    Raises:
      UserError: something is missing, damaged or of another kind, or the two are not a pair.
    """
    files = TensorFolder(folder, canonical)
    settings = _draft_settings(files, target, rope_theta)
    config = settings.config
    loader = Loader(files, dtype, sharding.mesh_of(devices, target.kv_head_count))
    table = draft_table(config, with_embedding=True)
    if "embed_tokens.weight" in files or embedding.shape != table.embedding.shape:
        draft_embedding = loader.read(table.embedding)
        if not _is_equal(draft_embedding, embedding):
            embedding = draft_embedding
    params = loader.read(table.replace(embedding=NOT_STORED)).replace(embedding=embedding)
    if isinstance(config, GriffinConfig):
        params = params.replace(head=head)
    token = jax.device_put(target_tokens(files, config), loader.sharding())
    loader.finish(COPIES | {"t2d"})
    return LoadedDraft(**vars(settings), params=params.replace(target_token=token))


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
    if any(path.suffix in (".safetensors", ".bin") for path in folder.glob("*")):
        return _draft_settings(TensorFolder(folder, canonical), target, rope_theta)
    return hf_config.draft_settings(folder, target, rope_theta)


def _draft_settings(
    files: TensorFolder, target: TargetConfig, rope_theta: float | None
) -> DraftSettings:
    """The settings with the head_dim that the stored query map has; older files say another one."""
    is_griffin = GRIFFIN_MARK in files
    if not is_griffin and (EAGLE3_MARK not in files or QUERY not in files):
        raise UserError(
            f"{files.folder} has neither tensor {EAGLE3_MARK} nor {GRIFFIN_MARK} "
            "under any known name; it is no EAGLE-3 draft and no Griffin draft (drafts of EAGLE-1 "
            "and EAGLE-2 are not known)."
        )
    settings = hf_config.draft_settings(files.folder, target, rope_theta, is_griffin)
    config, rows = settings.config, files.shape(QUERY)[0]
    head_dim, rest = divmod(rows, config.head_count)
    if rest:
        raise UserError(
            f"{files.folder}: {QUERY} has {rows} rows, which {config.head_count} heads cannot "
            "share evenly."
        )
    hf_config.check_head_dim(files.folder, head_dim)
    if head_dim == config.head_dim:
        return settings
    config = dataclasses.replace(config, head_dim=head_dim)
    remark = f"The draft's head_dim is {head_dim}, from its weights: config.json says another one."
    return dataclasses.replace(settings, config=config, remarks=(*settings.remarks, remark))


def target_tokens(files: TensorFolder, config: AnyDraftConfig) -> np.ndarray:
    """Target ids [Y] i32 of a draft's ids: the index plus `d2t`, if any; checked against `t2d`."""
    X, Y = config.vocab_size, config.draft_vocab_size
    if "d2t" not in files and X == Y:
        return np.arange(Y, dtype=np.int32)
    offset = files.read("d2t", (Y,))
    if offset.dtype.kind != "i":
        raise UserError(
            f"d2t in {files.folder} holds {offset.dtype.name}, no integers; copy it again."
        )
    token = np.arange(Y) + offset
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
    if "t2d" in files and not np.array_equal(np.flatnonzero(files.read("t2d", (X,))), known):
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
        turned = tensor.split is not None
        array = _aligned(tensor.shape[::-1] if turned else tensor.shape, self.dtype)
        rows = array.T if turned else array
        for start, block in self.files.blocks(tensor.name, tensor.shape, BLOCK_BYTES):
            if not jnp.issubdtype(block.dtype, jnp.floating):
                raise UserError(
                    f"Tensor {tensor.name} in {self.files.folder} holds {block.dtype.name}, no "
                    "floating point numbers; quantised weights cannot be read."
                )
            rows[start : start + len(block)] = block
        on_device = jax.device_put(array, self.sharding(tensor))
        self.is_finite[tensor.name] = _all_finite(on_device)
        return on_device

    def sharding(self, tensor: Stored | None = None) -> NamedSharding | None:
        """The sharding of a tensor; without one, of a copy on every device. None = one device."""
        if self.mesh is None or tensor is None:
            return None if self.mesh is None else sharding.sharding(self.mesh)
        return sharding.sharding(self.mesh, tensor.axis, tensor.part_count)

    def finish(self, ignored: frozenset[str]) -> None:
        """Warns of tensors that nothing read; UserError for one that holds no finite numbers."""
        for name, is_finite in self.is_finite.items():
            if not is_finite:
                raise UserError(
                    f"Tensor {name} in {self.files.folder} holds NaN or infinity in "
                    f"{self.dtype.name}; the weights are damaged, or need another `dtype`."
                )
        unused = [name for name in self.files.unused() if name not in ignored]
        if unused:
            warnings.warn(
                f"{self.files.folder}: {len(unused)} tensors are not used: "
                f"{', '.join(unused[:5])}.",
                stacklevel=3,
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
      UserError: no known family has these biases and norms, or a weight is not finite in `dtype`.
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
    if dialect == "eagle" and config.rope_scaling is not None:
        raise UserError(
            "EAGLE's own code reads no llama3 rope_scaling, which this draft has; write it in the "
            "dialect layers.0."
        )
    settings = hf_config.fields_of(config, dtype, fields or {})
    is_griffin = isinstance(config, GriffinConfig)
    is_wider = config.hidden_size != config.target_hidden_size
    table = draft_table(config, with_embedding=is_griffin or own_embedding or is_wider)
    tensors = _tensors(table, params, dtype)
    if not is_griffin:
        tensors = itertools.chain(tensors, _vocabulary_tensors(config, params.target_token))
    if is_griffin or dialect == "layers.0":
        tensors = ((name.replace(LAYER, "layers.0."), tensor) for name, tensor in tensors)
    write_folder(folder, settings, tensors)


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
