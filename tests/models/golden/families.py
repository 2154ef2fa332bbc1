"""Tiny targets of every family: a config.json as published folders have it, weights from a seed.

Shared by the script that makes the golden file and by the tests that read it. Weights depend on
names and shapes alone (`RandomState`, whose stream never changes).
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent / "families.npz"
BASE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rms_norm_eps": 1e-6}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rms_norm_eps": 1e-6}
SLIDES = "sliding_attention"
SLIDING = {"use_sliding_window": True, "sliding_window": 6}
FAMILIES: dict[str, dict[str, Any]] = {
    "vicuna": BASE | {"num_key_value_heads": 4, "rms_norm_eps": 1e-6},
    "llama2": BASE,
    "llama3": BASE | {"rope_theta": 500000.0},
    "llama3.1": BASE | {"rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING},
    "llama3.2": BASE | {"head_dim": 6, "rope_scaling": LLAMA3_SCALING, "tie_word_embeddings": True},
    "qwen2": BASE | QWEN2 | {"rope_theta": 1000000.0},
    "qwen2.5-tied": BASE | QWEN2 | {"tie_word_embeddings": True},
    "qwen3": BASE | QWEN3 | {"head_dim": 8, "rope_theta": 1000000.0},
    "llama-biased": BASE | {"attention_bias": True},
    "qwen3-biased": BASE | QWEN3 | {"head_dim": 8, "attention_bias": True},
    "qwen2-sliding": BASE | QWEN2 | SLIDING | {"max_window_layers": 2},
    "qwen3-sliding": BASE
    | QWEN3
    | SLIDING
    | {"head_dim": 8, "layer_types": [SLIDES, "full_attention"] * 3 + [SLIDES]},
    "qwen2-still": BASE | QWEN2 | SLIDING | {"rope_theta": 1000000.0, "max_window_layers": 7},
    "llama3.2-own-head": BASE | {"tie_word_embeddings": True},
    "qwen3-tied": BASE | QWEN3 | {"head_dim": 6, "tie_word_embeddings": True},
}
OWN_HEAD = ("llama3.2-own-head",)  # in the file of a tied model
PROMPT = tuple(int(token) for token in np.random.RandomState(5).randint(0, 48, 20))
NEW_TOKENS = 64


def shapes(family: str, fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a family's folder with such a config.json, by its Hugging Face name."""
    E, F, X = fields["hidden_size"], fields["intermediate_size"], fields["vocab_size"]
    H, K = fields["num_attention_heads"], fields["num_key_value_heads"]
    C = fields.get("head_dim", E // H)
    found = {"model.embed_tokens.weight": (X, E), "model.norm.weight": (E,)}
    if not fields["tie_word_embeddings"] or family in OWN_HEAD:
        found["lm_head.weight"] = (X, E)
    for index in range(fields["num_hidden_layers"]):
        layer = {
            "input_layernorm.weight": (E,),
            "post_attention_layernorm.weight": (E,),
            "self_attn.q_proj.weight": (H * C, E),
            "self_attn.k_proj.weight": (K * C, E),
            "self_attn.v_proj.weight": (K * C, E),
            "self_attn.o_proj.weight": (E, H * C),
            "mlp.gate_proj.weight": (F, E),
            "mlp.up_proj.weight": (F, E),
            "mlp.down_proj.weight": (E, F),
        }
        if fields["model_type"] == "qwen2" or fields["attention_bias"]:
            layer |= {
                f"self_attn.{x}_proj.bias": (n * C,) for x, n in zip("qkv", (H, K, K), strict=True)
            }
        if fields["attention_bias"]:
            layer["self_attn.o_proj.bias"] = (E,)
        if fields["model_type"] == "qwen3":
            layer |= {f"self_attn.{x}_norm.weight": (C,) for x in "qk"}
        found |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return found


def tensor(family: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random values of a tensor: wide enough that texts vary, norms near 1."""
    random = np.random.RandomState(zlib.crc32(f"{family} {name}".encode()))
    scale = 1.5 * shape[-1] ** -0.5 if len(shape) == 2 else 0.3
    values = scale * random.standard_normal(shape)
    return (values + name.endswith("norm.weight")).astype(np.float32)


def write(folder: Path, family: str, fields: dict[str, Any] | None = None) -> Path:
    """Writes a family's folder; with `fields` that of another config.json, by the same name."""
    fields = FAMILIES[family] if fields is None else fields
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    named = shapes(family, fields).items()
    tensors = {name: tensor(family, name, shape) for name, shape in named}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
