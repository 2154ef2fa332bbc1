"""A tiny pair with random weights, and how tests change the config.json of its folders."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import DraftConfig, TargetConfig
from ltd_jax.models import draft, target
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.target import TargetParams

TARGET = TargetConfig(
    vocab_size=24,
    hidden_size=12,
    intermediate_size=20,
    layer_count=7,
    head_count=4,
    kv_head_count=2,
    head_dim=4,
    rope_theta=500.0,
)
DRAFT = DraftConfig(
    vocab_size=24,
    draft_vocab_size=8,
    hidden_size=12,
    target_hidden_size=12,
    intermediate_size=16,
    head_count=2,
    kv_head_count=1,
    head_dim=6,
)
TOKENS = np.array([0, 2, 3, 5, 11, 17, 19, 23])  # target ids of the draft's ids


def target_params(config: TargetConfig = TARGET, dtype=jnp.float32) -> TargetParams:
    """Random weights, the same at every call; norms and biases too; linear maps keep sizes."""
    return _random(jax.eval_shape(lambda: target.init(jax.random.key(0), config, dtype)))


def draft_params(config: DraftConfig = DRAFT, dtype=jnp.float32, tokens=TOKENS) -> Eagle3Params:
    """Random weights around a vocabulary map."""
    embedding = jnp.zeros((config.vocab_size, config.hidden_size), dtype)
    init = lambda: draft.init(jax.random.key(0), config, embedding, jnp.asarray(tokens))
    return _random(jax.eval_shape(init)).replace(target_token=jnp.asarray(tokens, jnp.int32))


def _random(shapes):
    random = np.random.default_rng(0)

    def draw(leaf):
        scale = leaf.shape[0] ** -0.5 if len(leaf.shape) == 2 else 1.0
        return jnp.asarray(scale * random.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, shapes)


def edit(folder: Path, **fields) -> Path:
    """Changes fields of config.json; None takes one away."""
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | fields
    settings = {name: value for name, value in settings.items() if value is not None}
    path.write_text(json.dumps(settings))
    return path
