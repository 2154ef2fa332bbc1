"""Target weights between Hugging Face folders and our pytree, both ways; what drafts share.

Hugging Face stores linear maps as [out, in]; ours are [in, out] (see layers.py).
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ltd_jax.config import DraftConfig, TargetConfig
from ltd_jax.errors import UserError
from ltd_jax.models.hub_config import target_config
from ltd_jax.models.loader import Loader, Split
from ltd_jax.models.target import LayerParams, TargetParams
from ltd_jax.models.tensor_files import TensorFolder, write_folder

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


def load_target(
    folder: Path, dtype: jnp.dtype, mesh: Mesh | None = None
) -> tuple[TargetConfig, TargetParams]:
    """Config and weights of a target folder.

    Args:
      dtype: of the weights on the device, whatever they are stored in.
      mesh: with an axis "model", to split the weights over; None = one device.

    Raises:
      UserError: something is missing, damaged or of another family.
    """
    config, loader = target_config(folder), Loader(TensorFolder(folder), dtype, mesh)
    E, X = config.hidden_size, config.vocab_size
    params = TargetParams(
        embedding=loader.table("model.embed_tokens.weight", X, E),
        layers=tuple(
            _load_layer(config, f"model.layers.{index}.", loader)
            for index in range(config.layer_count)
        ),
        norm=loader.vector("model.norm.weight", E),
        head=None if config.tie_embeddings else loader.linear("lm_head.weight", X, E, "out"),
    )
    loader.finish(frozenset({"lm_head.weight"}) if config.tie_embeddings else frozenset())
    return config, params


def _load_layer(config: TargetConfig, prefix: str, loader: Loader) -> LayerParams:
    weights = load_fields(layer_shapes(config), prefix, loader)
    if config.attention_bias:
        for field in ("q", "k", "v"):
            size = weights[field].shape[1]
            weights[f"{field}_bias"] = loader.vector(f"{prefix}{LAYER_NAMES[field]}.bias", size)
    if config.qk_norm:
        for field in ("q_norm", "k_norm"):
            name = f"{prefix}self_attn.{field}.weight"
            weights[field] = loader.vector(name, config.head_dim)
    return LayerParams(**weights)


def load_fields(
    shapes: dict[str, tuple[int, ...]], prefix: str, loader: Loader
) -> dict[str, jax.Array]:
    """The weights of a decoder layer that targets and drafts both have, by field."""
    found = {}
    for field, name in LAYER_NAMES.items():
        shape, name = shapes[field], f"{prefix}{name}.weight"
        split: Split = "in" if field in ("o", "down") else "out"
        linear = len(shape) == 2
        found[field] = loader.linear(name, *shape, split) if linear else loader.vector(name, *shape)
    return found


def layer_shapes(config: TargetConfig | DraftConfig, inputs: int = 1) -> dict[str, tuple[int, ...]]:
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


def save_target(folder: Path, config: TargetConfig, params: TargetParams, dtype: Any) -> None:
    """Writes a Llama folder that other stacks load too; UserError for other families."""
    if config.attention_bias or config.qk_norm or config.rope_scaling:
        raise UserError("Only plain Llama targets can be written.")
    tensors = {
        "model.embed_tokens.weight": np.asarray(params.embedding, dtype),
        "model.norm.weight": np.asarray(params.norm, dtype),
    }
    for index, layer in enumerate(params.layers):
        for field, name in LAYER_NAMES.items():
            tensors[f"model.layers.{index}.{name}.weight"] = stored(getattr(layer, field), dtype)
    if params.head is not None:
        tensors["lm_head.weight"] = stored(params.head, dtype)
    write_folder(
        folder,
        shared_fields(config, dtype)
        | {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "num_hidden_layers": config.layer_count,
            "tie_word_embeddings": config.tie_embeddings,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        tensors,
    )


def shared_fields(config: TargetConfig | DraftConfig, dtype: Any) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.head_count,
        "num_key_value_heads": config.kv_head_count,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": 2048,
        "torch_dtype": np.dtype(dtype).name,
    }


def stored(weight: jax.Array, dtype: Any) -> np.ndarray:
    """A weight as Hugging Face stores it: [out, in]."""
    return np.asarray(weight, dtype).T if weight.ndim == 2 else np.asarray(weight, dtype)
