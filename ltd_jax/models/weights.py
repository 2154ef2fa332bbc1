"""Target weights between Hugging Face folders and our pytree, both ways; what drafts share.

Hugging Face stores linear maps as [out, in]; ours are [in, out] (see layers.py).
"""

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import DraftConfig, TargetConfig
from ltd_jax.errors import UserError
from ltd_jax.models.hub_config import target_config
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


def load_target(folder: Path, dtype: jnp.dtype) -> tuple[TargetConfig, TargetParams]:
    """Config and weights of a target folder, cast to `dtype`."""
    config, files = target_config(folder), TensorFolder(folder)
    E, X = config.hidden_size, config.vocab_size
    linear = lambda name, out, into: array(files.read(name, (out, into)).T, dtype)
    vector = lambda name, size: array(files.read(name, (size,)), dtype)
    params = TargetParams(
        embedding=array(files.read("model.embed_tokens.weight", (X, E)), dtype),
        layers=tuple(
            _load_layer(config, f"model.layers.{index}.", linear, vector)
            for index in range(config.layer_count)
        ),
        norm=vector("model.norm.weight", E),
        head=None if config.tie_embeddings else linear("lm_head.weight", X, E),
    )
    warn_unused(files, ignored={"lm_head.weight"} if config.tie_embeddings else set())
    return config, params


def _load_layer(config: TargetConfig, prefix: str, linear, vector) -> LayerParams:
    shapes = layer_shapes(config)
    load = lambda name, shape: (linear if len(shape) == 2 else vector)(name, *shape)
    weights = {
        field: load(f"{prefix}{name}.weight", shapes[field]) for field, name in LAYER_NAMES.items()
    }
    if config.attention_bias:
        for field in ("q", "k", "v"):
            size = shapes[field][0]
            weights[f"{field}_bias"] = vector(f"{prefix}{LAYER_NAMES[field]}.bias", size)
    if config.qk_norm:
        for field in ("q_norm", "k_norm"):
            weights[field] = vector(f"{prefix}self_attn.{field}.weight", config.head_dim)
    return LayerParams(**weights)


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


def array(tensor: np.ndarray, dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(tensor).astype(dtype)


def warn_unused(files: TensorFolder, ignored: set[str]) -> None:
    unused = [name for name in files.unused() if name not in ignored]
    if unused:
        warnings.warn(
            f"{files.folder}: {len(unused)} tensors are not used: {', '.join(unused[:5])}.",
            stacklevel=3,
        )


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
