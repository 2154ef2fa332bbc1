"""From a weights folder to device arrays, tensor by tensor, in one dtype.

Linear maps are stored [out, in] and used [in, out] (see layers.py). A map is turned, cast and put
block by block of its rows, so the host never holds much more than one tensor beside what it has
already put on the device. With a mesh, maps are split over its devices (split.py).

Long because one name table after the other says how folders call their tensors.
"""
# DOC """Target weights between Hugging Face folders and our pytree, both ways; what drafts share.
# DOC
# DOC Hugging Face stores linear maps as [out, in]; ours are [in, out] (see layers.py).
# DOC """
# DOC """Tensors and fields of an EAGLE-3 folder, both ways.
# DOC
# DOC Folders keep `d2t` as offsets: target id = draft id + d2t[draft id]. Names are EAGLE's own
# DOC (`midlayer.`); draft_folder.py turns other trainers' into them.
# DOC """
# DOC """Tensors and fields of a Griffin folder, both ways (names: the authors' public checkpoints').
# DOC
# DOC The token-guided fusion is stored as `fc`, the one layer as `layers.0`; draft_folder.py calls it
# DOC `midlayer`, as EAGLE does. The target's head is not stored, and its embedding is a copy.
# DOC """
# DOC """Draft folders: what kind a folder holds, and its weights to and from our pytree.
# DOC
# DOC EAGLE-3 (eagle3_folder.py) and Griffin (griffin_folder.py) are known by a tensor that only they
# DOC have. Folders name the one decoder layer `midlayer` or `layers.0`, with or without `model.` in
# DOC front. The embedding is usually the target's and then not stored.
# DOC """

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ltd_jax.config import AnyDraftConfig, DraftConfig, GriffinConfig, RopeScaling, TargetConfig
from ltd_jax.files import UserError
from ltd_jax.models import cpu_layout, sharding
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.griffin import GriffinParams
from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.hf.config import DraftSettings, target_config
from ltd_jax.models.hf.tensors import SHARD_BYTES, TensorFolder, write_folder
from ltd_jax.models.target import LayerParams, TargetParams

BLOCK_BYTES = 16 * 2**20
ALIGNMENT = 64  # bytes; XLA copies host arrays that start elsewhere
Split = Literal["in", "out", "none"]


class Loader:
    """Reads the tensors of one folder; `finish` tells what was wrong with them."""

    def __init__(self, files: TensorFolder, dtype: jnp.dtype, mesh: Mesh | None = None) -> None:
        self.files, self.dtype, self.mesh = files, np.dtype(dtype), mesh
        self.finite: dict[str, jax.Array] = {}  # by tensor, bool []

    def linear(
        self, name: str, out: int, into: int, by: Split = "none", heads: int | None = None
    ) -> jax.Array:
        """A linear map [in, out].

        Args:
          by: which axis is split between devices.
          heads: along that axis, none of which is cut; None = there are none.
        """
        turned = _aligned((into, out), self.dtype)
        for start, block in self._blocks(name, out, into):
            turned[:, start : start + len(block)] = block.T
        axis = {"in": 0, "out": 1}.get(by)
        count = 1 if axis is None else heads or turned.shape[axis]
        return self._put(name, turned, axis, count)

    def vector(self, name: str, size: int) -> jax.Array:
        """A norm's weight or a bias [size]."""
        stored = self.files.read(name, (size,))
        self._check_kind(name, stored)
        return self._put(name, stored.astype(self.dtype))

    def table(self, name: str, rows: int, columns: int) -> jax.Array:
        """An embedding [rows, columns], as it is stored."""
        found = _aligned((rows, columns), self.dtype)
        for start, block in self._blocks(name, rows, columns):
            found[start : start + len(block)] = block
        return self._put(name, found)

    def ids(self, token: np.ndarray) -> jax.Array:
        """Whole numbers as i32 where the weights are."""
        return jax.device_put(token.astype(np.int32), self._where())

    def finish(self, ignored: frozenset[str] = frozenset()) -> None:
        """Warns of tensors that nothing read; UserError for one that holds no finite numbers."""
        for name, finite in self.finite.items():
            if not finite:
                raise UserError(
                    f"Tensor {name} in {self.files.folder} holds NaN or infinity in "
                    f"{self.dtype.name}; the weights are damaged, or need another --dtype."
                )
        unused = [name for name in self.files.unused() if name not in ignored]
        if unused:
            warnings.warn(
                f"{self.files.folder}: {len(unused)} tensors are not used: "
                f"{', '.join(unused[:5])}.",
                stacklevel=3,
            )

    def _blocks(self, name: str, rows: int, columns: int) -> Iterator[tuple[int, np.ndarray]]:
        for start, block in self.files.blocks(name, (rows, columns), BLOCK_BYTES):
            self._check_kind(name, block)
            yield start, block

    def _check_kind(self, name: str, stored: np.ndarray) -> None:
        if not jnp.issubdtype(stored.dtype, jnp.floating):
            raise UserError(
                f"Tensor {name} in {self.files.folder} holds {stored.dtype.name}, no floating "
                "point numbers; quantised weights cannot be read."
            )

    def _put(
        self, name: str, tensor: np.ndarray, axis: int | None = None, count: int = 1
    ) -> jax.Array:
        array = jax.device_put(tensor, self._where(axis, count))
        self.finite[name] = _all_finite(array)
        return array

    def _where(self, axis: int | None = None, count: int = 1) -> NamedSharding | None:
        return None if self.mesh is None else sharding.sharding(self.mesh, axis, count)


def _aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An empty array at an address that a processor's device array takes over without a copy."""
    count = shape[0] * shape[1] * dtype.itemsize
    room = np.empty(count + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + count].view(dtype).reshape(shape)


@jax.jit
def _all_finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(jnp.sum(array * 0, dtype=jnp.float32))  # one pass, no array of booleans


LAYER_NAMES = {
    "input_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
BY_INPUTS = ("o", "down", "guide_down")  # maps whose parts' results are summed over devices


def load_target(
    folder: Path, dtype: jnp.dtype, devices: int = 1, in_blocks: bool = False
) -> tuple[TargetConfig, TargetParams]:
    """Config and weights of a target folder.

    Args:
      dtype: of the weights on the device, whatever they are stored in.
      devices: to split the weights over (split.py).
      in_blocks: in the layout of models.blocks, layer by layer, so that none is held twice.

    Raises:
      UserError: something is missing, damaged or of another family, or there are fewer devices.
    """
    config = target_config(folder)
    loader = Loader(TensorFolder(folder), dtype, sharding.mesh_of(devices, config.kv_head_count))
    E, X = config.hidden_size, config.vocab_size
    params = TargetParams(
        embedding=loader.table("model.embed_tokens.weight", X, E),
        layers=tuple(
            _load_layer(config, f"model.layers.{index}.", loader, in_blocks)
            for index in range(config.layer_count)
        ),
        norm=loader.vector("model.norm.weight", E),
        head=None if config.tie_embeddings else _load_head(config, loader, in_blocks),
    )
    loader.finish(frozenset({"lm_head.weight"}) if config.tie_embeddings else frozenset())
    return config, params


def _load_head(config: TargetConfig, loader: Loader, in_blocks: bool) -> jax.Array:
    head = loader.linear("lm_head.weight", config.vocab_size, config.hidden_size, "out")
    return cpu_layout.blocked(head) if in_blocks else head


def _load_layer(config: TargetConfig, prefix: str, loader: Loader, in_blocks: bool) -> LayerParams:
    weights = load_fields(config, prefix, loader)
    if config.attention_bias:
        for field in ("q", "k", "v"):
            size = weights[field].shape[1]
            weights[f"{field}_bias"] = loader.vector(f"{prefix}{LAYER_NAMES[field]}.bias", size)
    if config.qk_norm:
        for field in ("q_norm", "k_norm"):
            name = f"{prefix}self_attn.{field}.weight"
            weights[field] = loader.vector(name, config.head_dim)
    layer = LayerParams(**weights)
    return jax.block_until_ready(cpu_layout.block_layer(layer)) if in_blocks else layer


def load_fields(
    config: TargetConfig | AnyDraftConfig, prefix: str, loader: Loader, inputs: int = 1
) -> dict[str, jax.Array]:
    """The weights of a decoder layer that targets and drafts both have, by field."""
    found, shapes, heads = {}, layer_shapes(config, inputs), heads_of(config)
    for field, name in LAYER_NAMES.items():
        shape, name = shapes[field], f"{prefix}{name}.weight"
        by: Split = "in" if field in BY_INPUTS else "out"
        if len(shape) == 2:
            found[field] = loader.linear(name, *shape, by, heads.get(field))
        else:
            found[field] = loader.vector(name, shape[0])
    return found


def heads_of(config: TargetConfig | AnyDraftConfig) -> dict[str, int]:
    """How many heads the maps have, which are split between them only."""
    query, kv = config.head_count, config.kv_head_count
    return {"q": query, "k": kv, "v": kv, "o": query}


def layer_shapes(
    config: TargetConfig | AnyDraftConfig, inputs: int = 1
) -> dict[str, tuple[int, ...]]:
    """[out, in] of every linear map, [size] of every norm; q, k, v read `inputs` times E."""
    E, F = config.hidden_size, config.intermediate_size
    query, kv = config.head_count * config.head_dim, config.kv_head_count * config.head_dim
    return {
        "input_norm": (E,),
        "q": (query, inputs * E),
        "k": (kv, inputs * E),
        "v": (kv, inputs * E),
        "o": (E, query),
        "post_attention_norm": (E,),
        "gate": (F, E),
        "up": (F, E),
        "down": (E, F),
    }


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
    """
    own = shared_fields(config, dtype, fields) | _family_fields(config)
    own |= {
        "num_hidden_layers": config.layer_count,
        "tie_word_embeddings": config.tie_embeddings,
    }
    tensors = target_tensors(config, params, dtype)
    write_folder(folder, own, tensors, shard_bytes, always_index)


def target_tensors(
    config: TargetConfig, params: TargetParams, dtype: Any
) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors of a target by their Hugging Face name, one at a time."""
    yield "model.embed_tokens.weight", np.asarray(params.embedding, dtype)
    names = dict(LAYER_NAMES)
    if config.qk_norm:
        names |= {f"{x}_norm": f"self_attn.{x}_norm" for x in "qk"}
    for index, layer in enumerate(params.layers):
        for field, name in names.items():
            tensor = to_hf(getattr(layer, field), dtype)
            yield f"model.layers.{index}.{name}.weight", tensor
        for x in "qkv" if config.attention_bias else "":
            bias = to_hf(getattr(layer, f"{x}_bias"), dtype)
            yield f"model.layers.{index}.self_attn.{x}_proj.bias", bias
    yield "model.norm.weight", np.asarray(params.norm, dtype)
    if params.head is not None:
        yield "lm_head.weight", to_hf(params.head, dtype)


def _family_fields(config: TargetConfig) -> dict[str, Any]:
    """The architecture that has this config's biases and norms."""
    if config.attention_bias and config.qk_norm:
        raise UserError("No known family has both attention biases and q/k norms.")
    family = "Qwen2" if config.attention_bias else "Qwen3" if config.qk_norm else "Llama"
    return {"architectures": [f"{family}ForCausalLM"], "model_type": family.lower()}


def shared_fields(
    config: TargetConfig | AnyDraftConfig, dtype: Any, others: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What config.json says of targets and drafts alike, over `others` that we do not read."""
    return (
        {"max_position_embeddings": 2048}
        | (others or {})
        | {
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_attention_heads": config.head_count,
            "num_key_value_heads": config.kv_head_count,
            "head_dim": config.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": config.rms_norm_eps,
            "rope_theta": config.rope_theta,
            "rope_scaling": _scaling_fields(config.rope_scaling),
            "torch_dtype": np.dtype(dtype).name,
        }
    )


def _scaling_fields(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_frequency_factor,
        "high_freq_factor": scaling.high_frequency_factor,
        "original_max_position_embeddings": scaling.original_context,
    }


def to_hf(weight: jax.Array, dtype: Any) -> np.ndarray:
    """A weight as Hugging Face stores it: [out, in]."""
    return np.asarray(weight, dtype).T if weight.ndim == 2 else np.asarray(weight, dtype)


EAGLE3_MARK = "midlayer.hidden_norm.weight"  # no other kind of draft has it


def read_eagle3(loader: Loader, config: DraftConfig, embedding: jax.Array) -> Eagle3Params:
    """The weights of a folder, around an embedding [X, E]."""
    E, Y = config.hidden_size, config.draft_vocab_size
    return Eagle3Params(
        embedding=embedding,
        fuse=loader.linear("fc.weight", E, 3 * config.target_hidden_size, "out"),
        hidden_norm=loader.vector(EAGLE3_MARK, E),
        norm=loader.vector("norm.weight", E),
        head=loader.linear("lm_head.weight", Y, E, "out"),
        target_token=loader.ids(target_tokens(loader.files, config)),
        fuse_norm=fuse_norm(loader, config),
        **load_fields(config, "midlayer.", loader, inputs=2),
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


def eagle3_tensors(
    config: DraftConfig, params: Eagle3Params, dtype: Any, own_embedding: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors by name; an embedding that is the target's stays there."""
    for field, name in LAYER_NAMES.items():
        yield f"midlayer.{name}.weight", to_hf(getattr(params, field), dtype)
    if own_embedding or config.hidden_size != config.target_hidden_size:
        yield "embed_tokens.weight", np.asarray(params.embedding, dtype)
    yield EAGLE3_MARK, to_hf(params.hidden_norm, dtype)
    yield "fc.weight", to_hf(params.fuse, dtype)
    yield "norm.weight", to_hf(params.norm, dtype)
    yield "lm_head.weight", to_hf(params.head, dtype)
    if params.fuse_norm is not None and config.norm_before_fc:
        yield "input_norm.weight", to_hf(params.fuse_norm, dtype)
    if params.fuse_norm is not None and config.norm_each_feature:
        for part, norm in enumerate(np.split(to_hf(params.fuse_norm, dtype), 3)):
            yield f"fc_norm.{part}.weight", norm
    token = np.asarray(params.target_token).astype(np.int64)
    known = np.zeros(config.vocab_size, bool)
    known[token] = True
    yield "d2t", token - np.arange(config.draft_vocab_size)
    yield "t2d", known


def eagle3_fields(config: DraftConfig) -> dict[str, Any]:
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


GRIFFIN_MARK = "fc.fc.weight"  # no other kind of draft has it
NORMS = {
    "fuse_norm": "fc.post_attention_layernorm.weight",
    "guide_norm": "fc.mlp.input_layernorm.weight",
    "post_attention_norm": "midlayer.post_attention_layernorm.weight",
}
MAPS = {
    "fuse": GRIFFIN_MARK,
    "guide_up": "fc.mlp.up_proj.weight",
    "guide_down": "fc.mlp.down_proj.weight",
    "q": "midlayer.self_attn.q_proj.weight",
    "k": "midlayer.self_attn.k_proj.weight",
    "v": "midlayer.self_attn.v_proj.weight",
    "o": "midlayer.self_attn.o_proj.weight",
    "gate": "midlayer.mlp.gate_proj.weight",
    "up": "midlayer.mlp.up_proj.weight",
    "down": "midlayer.mlp.down_proj.weight",
}
FUSE_BIAS = "fc.fc.bias"
BIASES = {f"{x}_bias": f"midlayer.self_attn.{x}_proj.bias" for x in "qkv"}


def map_shapes(config: GriffinConfig) -> dict[str, tuple[int, ...]]:
    """[out, in] of every linear map."""
    E, F = config.hidden_size, config.intermediate_size
    layer = layer_shapes(config)
    own = {"fuse": (E, 2 * E), "guide_up": (F, 2 * E), "guide_down": (E, F), "down": (2 * E, F)}
    return {field: (own.get(field) or layer[field]) for field in MAPS}


def read_griffin(
    loader: Loader, config: GriffinConfig, embedding: jax.Array, head: jax.Array | None
) -> GriffinParams:
    """The weights of a folder, around an embedding [X, E] and the target's head [E, X]."""
    found: dict[str, jax.Array] = {}
    shapes, heads = map_shapes(config), heads_of(config)
    for field, name in MAPS.items():
        by: Split = "in" if field in BY_INPUTS else "out"
        out, into = shapes[field]
        found[field] = loader.linear(name, out, into, by, heads.get(field))
    for field, name in NORMS.items():
        found[field] = loader.vector(name, config.hidden_size)
    found["fuse_bias"] = loader.vector(FUSE_BIAS, config.hidden_size)
    if config.attention_bias:
        for field, name in BIASES.items():
            found[field] = loader.vector(name, shapes[field[0]][0])
    own = loader.ids(np.arange(config.vocab_size))
    return GriffinParams(embedding=embedding, head=head, target_token=own, **found)


def griffin_tensors(
    config: GriffinConfig, params: GriffinParams, dtype: Any, own_embedding: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors by name, with any embedding, as the authors' loader wants it."""
    del own_embedding
    yield "embed_tokens.weight", np.asarray(params.embedding, dtype)
    names = NORMS | MAPS | {"fuse_bias": FUSE_BIAS} | (BIASES if config.attention_bias else {})
    for field, name in names.items():
        yield name, to_hf(getattr(params, field), dtype)


def griffin_fields(config: GriffinConfig) -> dict[str, Any]:
    """What only a draft's config.json says."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 1,
        "tie_word_embeddings": False,
    } | ({"qkv_bias": True} if config.attention_bias else {})


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
    settings = _draft_settings(files, target, rope_theta)
    config = settings.config
    loader = Loader(files, dtype, sharding.mesh_of(devices, target.kv_head_count))
    X, E = config.vocab_size, config.hidden_size
    if "embed_tokens.weight" in files or embedding.shape != (X, E):
        embedding = _shared(loader.table("embed_tokens.weight", X, E), embedding)
    if isinstance(config, GriffinConfig):
        params: DraftParams = read_griffin(loader, config, embedding, head)
    else:
        params = read_eagle3(loader, config, embedding)
    loader.finish(COPIES | {"t2d"})
    return LoadedDraft(config, params, settings.feature_layers, settings.remarks)


def read_draft_settings(
    folder: Path, target: TargetConfig, rope_theta: float | None = None
) -> DraftSettings:
    """What a folder says of its draft; one without any weights is taken for EAGLE-3's."""
    if any(path.suffix in (".safetensors", ".bin") for path in folder.glob("*")):
        return _draft_settings(TensorFolder(folder, canonical), target, rope_theta)
    return hf_config.draft_settings(folder, target, rope_theta)


def _draft_settings(
    files: TensorFolder, target: TargetConfig, rope_theta: float | None
) -> DraftSettings:
    is_griffin = GRIFFIN_MARK in files
    if not is_griffin and (EAGLE3_MARK not in files or QUERY not in files):
        raise UserError(
            f"{files.folder} has neither tensor {EAGLE3_MARK} nor {GRIFFIN_MARK} "
            "under any known name; it is no EAGLE-3 draft and no Griffin draft (drafts of EAGLE-1 "
            "and EAGLE-2 are not known)."
        )
    read = hf_config.griffin_settings if is_griffin else hf_config.draft_settings
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
        hf_config.even_head_dim(files.folder / "config.json", head_dim)
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
    layer = "midlayer." if dialect == "eagle" and not is_griffin else "layers.0."
    own = shared_fields(config, dtype, fields)
    if is_griffin:
        own |= griffin_fields(config)
        found = griffin_tensors(config, params, dtype, own_embedding)
    else:
        own |= eagle3_fields(config)
        found = eagle3_tensors(config, params, dtype, own_embedding)
    write_folder(folder, own, _renamed(found, layer))


def _renamed(
    tensors: Iterator[tuple[str, np.ndarray]], layer: str
) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensor in tensors:
        yield name.replace("midlayer.", layer), tensor
