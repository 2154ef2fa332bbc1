"""Tensors and fields of a Griffin folder, both ways (names: the authors' public checkpoints').

The token-guided fusion is stored as `fc`, the one layer as `layers.0`; draft_folder.py calls it
`midlayer`, as EAGLE does. The target's head is not stored, and its embedding is a copy.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ltd_jax.config import GriffinConfig
from ltd_jax.models import weights
from ltd_jax.models.griffin import GriffinParams
from ltd_jax.models.loader import Loader, Split

MARK = "fc.fc.weight"  # no other kind of draft has it
NORMS = {
    "fuse_norm": "fc.post_attention_layernorm.weight",
    "guide_norm": "fc.mlp.input_layernorm.weight",
    "post_attention_norm": "midlayer.post_attention_layernorm.weight",
}
MAPS = {
    "fuse": MARK,
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
    layer = weights.layer_shapes(config)
    own = {"fuse": (E, 2 * E), "guide_up": (F, 2 * E), "guide_down": (E, F), "down": (2 * E, F)}
    return {field: (own.get(field) or layer[field]) for field in MAPS}


def read(
    loader: Loader, config: GriffinConfig, embedding: jax.Array, head: jax.Array | None
) -> GriffinParams:
    """The weights of a folder, around an embedding [X, E] and the target's head [E, X]."""
    found: dict[str, jax.Array] = {}
    shapes, heads = map_shapes(config), weights.heads_of(config)
    for field, name in MAPS.items():
        by: Split = "in" if field in weights.BY_INPUTS else "out"
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


def tensors(
    config: GriffinConfig, params: GriffinParams, dtype: Any, own_embedding: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors by name, with any embedding, as the authors' loader wants it."""
    del own_embedding
    yield "embed_tokens.weight", np.asarray(params.embedding, dtype)
    names = NORMS | MAPS | {"fuse_bias": FUSE_BIAS} | (BIASES if config.attention_bias else {})
    for field, name in names.items():
        yield name, weights.stored(getattr(params, field), dtype)


def fields(config: GriffinConfig) -> dict[str, Any]:
    """What only a draft's config.json says."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 1,
        "tie_word_embeddings": False,
    } | ({"qkv_bias": True} if config.attention_bias else {})
