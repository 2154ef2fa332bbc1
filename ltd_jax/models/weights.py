"""Target weights between Hugging Face folders and our pytree, both ways; what drafts share.

Hugging Face stores linear maps as [out, in]; ours are [in, out] (see layers.py).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import RopeScaling, TargetConfig
from ltd_jax.errors import UserError
from ltd_jax.model_config import AnyDraftConfig
from ltd_jax.models import blocks, split
from ltd_jax.models.hub_config import target_config
from ltd_jax.models.loader import Loader, Split
from ltd_jax.models.target import LayerParams, TargetParams
from ltd_jax.models.tensor_files import SHARD_BYTES, TensorFolder, write_folder

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
    loader = Loader(TensorFolder(folder), dtype, split.mesh_of(devices, config.kv_head_count))
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
    return blocks.blocked(head) if in_blocks else head


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
    return jax.block_until_ready(blocks.block_layer(layer)) if in_blocks else layer


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
            tensor = stored(getattr(layer, field), dtype)
            yield f"model.layers.{index}.{name}.weight", tensor
        for x in "qkv" if config.attention_bias else "":
            bias = stored(getattr(layer, f"{x}_bias"), dtype)
            yield f"model.layers.{index}.self_attn.{x}_proj.bias", bias
    yield "model.norm.weight", np.asarray(params.norm, dtype)
    if params.head is not None:
        yield "lm_head.weight", stored(params.head, dtype)


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


def stored(weight: jax.Array, dtype: Any) -> np.ndarray:
    """A weight as Hugging Face stores it: [out, in]."""
    return np.asarray(weight, dtype).T if weight.ndim == 2 else np.asarray(weight, dtype)
