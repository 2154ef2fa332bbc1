"""Small random pairs of every known family: what losslessness is shown on without any weights.

Random drafts are hardly ever right. So one map of each draft is fitted (ridge regression, on a few
of the target's texts) to what the target says next: cycles accept nothing, something and
everything, and every part of the cycle decides what is said.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import (
    CycleConfig,
    DraftConfig,
    GriffinConfig,
    Llama3Scaling,
    PairConfig,
    TargetConfig,
)
from ltd_jax.draft_training import pack
from ltd_jax.draft_training import texts as own_texts
from ltd_jax.models import cpu_layout, draft, layers, target
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.pair import Model, Pair

CYCLE = CycleConfig(beam_width=4, max_levels=4, sizes=(0, 1, 4, 10), context=256, prefill_chunk=16)
DRAFT_TOKENS = 16  # of an EAGLE-3 draft with d2t
FIT_TEXTS, FIT_PROMPT, FIT_TOKENS = 6, 4, 60  # what drafts are fitted to
EMBEDDING_SIZE = 0.3
SHARPNESS = 8.0  # of the logits that the fit wants
LLAMA = TargetConfig(
    vocab_size=24,
    hidden_size=32,
    intermediate_size=48,
    layer_count=3,
    head_count=4,
    kv_head_count=2,
    head_dim=8,
    feature_layers=(1, 2, 3),
)
SCALED: dict[str, Any] = {"rope_theta": 5e5, "rope_scaling": Llama3Scaling(8.0, 1.0, 4.0, 64)}
QWEN2: dict[str, Any] = {"attention_bias": True, "rms_norm_eps": 1e-6, "rope_theta": 1e6}
QWEN3: dict[str, Any] = {"qk_norm": True, "head_dim": 12, "rms_norm_eps": 1e-6, "rope_theta": 1e6}
FAMILIES = {
    "llama-1": dataclasses.replace(LLAMA, kv_head_count=4, rms_norm_eps=1e-6),
    "llama-2": LLAMA,
    "llama-3": dataclasses.replace(LLAMA, rope_theta=5e5),
    "llama-3.1": dataclasses.replace(LLAMA, **SCALED),
    "llama-3.2, tied": dataclasses.replace(LLAMA, tie_embeddings=True, **SCALED),
    "vicuna": dataclasses.replace(LLAMA, kv_head_count=4, rms_norm_eps=1e-6),
    "qwen2": dataclasses.replace(LLAMA, **QWEN2),
    "qwen2.5, tied": dataclasses.replace(LLAMA, tie_embeddings=True, **QWEN2),
    "qwen3": dataclasses.replace(LLAMA, **QWEN3),
    "qwen3, tied": dataclasses.replace(LLAMA, tie_embeddings=True, **QWEN3),
    "llama-3 with griffin": dataclasses.replace(LLAMA, rope_theta=5e5, feature_layers=()),
}
ALL_TOKENS = ("llama-1", "vicuna")  # families whose drafts have no d2t


def draft_config(family: str) -> DraftConfig | GriffinConfig:
    """The draft of a family: the published one's kind, as wide as the target."""
    config = FAMILIES[family]
    shared: dict[str, Any] = {"intermediate_size": 48, "head_count": 4, "head_dim": 8}
    if not config.feature_layers:
        return GriffinConfig(config.vocab_size, config.hidden_size, kv_head_count=4, **shared)
    return DraftConfig(
        vocab_size=config.vocab_size,
        draft_vocab_size=config.vocab_size if family in ALL_TOKENS else DRAFT_TOKENS,
        hidden_size=config.hidden_size,
        target_hidden_size=config.hidden_size,
        kv_head_count=config.kv_head_count,
        **shared,
    )


def pair(family: str, seed: int = 0, cycle: CycleConfig | None = None) -> Pair:
    """A family's pair in f32; the draft shares the target's embedding, as published drafts do."""
    config = PairConfig(FAMILIES[family], draft_config(family), cycle or CYCLE)
    random, key = np.random.default_rng(seed), jax.random.key(0)
    teacher = _fill(random, jax.eval_shape(lambda: target.init(key, config.target)))
    token_Y = jnp.arange(config.draft.draft_vocab_size, dtype=jnp.int32)  # until texts are known
    student = jax.eval_shape(
        lambda: draft.init(key, config.draft, teacher.embedding, token_Y, teacher.head)
    )
    student = _fill(random, student).replace(embedding=teacher.embedding, target_token=token_Y)
    if isinstance(config.draft, GriffinConfig):
        student = student.replace(head=teacher.head)
    shape = (FIT_TEXTS, FIT_PROMPT)
    prompt_BP = random.integers(0, config.target.vocab_size, shape).astype(np.int32)
    fitted: Any = fit(Model(teacher, student, config), prompt_BP)
    dtype = jnp.dtype(jnp.float32)
    if cpu_layout.is_faster(dtype):  # as loaded pairs are
        teacher, fitted = cpu_layout.pack_target(teacher), cpu_layout.pack_draft(fitted)
        if isinstance(config.draft, GriffinConfig):
            fitted = fitted.replace(head=teacher.head)
    model = Model(teacher, fitted, config)
    return Pair(model, dtype, names=(f"random {family}", "random draft"))


def prompts(family: str, count: int, seed: int = 0) -> list[np.ndarray]:
    """Random prompts of 1 to 24 tokens."""
    random = np.random.default_rng(seed + 1)
    draw = lambda: random.integers(0, FAMILIES[family].vocab_size, random.integers(1, 25))
    return [draw().astype(np.int32) for _ in range(count)]


def fit(unfitted: Model, prompt_BP: np.ndarray) -> DraftParams:
    """The draft with one map fitted to the target's greedy texts after some prompts."""
    config = unfitted.config
    text_BT = own_texts.continue_greedily(
        unfitted.target, config.target, jnp.asarray(prompt_BP), FIT_TOKENS
    )
    input_BTE = jax.vmap(partial(_fit_inputs, unfitted))(text_BT[:, :-1])
    input_P = np.asarray(input_BTE[:, :-1]).reshape(-1, input_BTE.shape[-1])
    following_P = np.asarray(text_BT[:, 2:]).reshape(-1)
    student: Any = unfitted.draft
    student = student.replace(target_token=pack.frequent_tokens([following_P], config.draft))
    wanted = SHARPNESS * (following_P[:, None] == np.asarray(student.target_token)).astype(float)
    if isinstance(student, Eagle3Params):
        return student.replace(head=jnp.asarray(_ridge(input_P, wanted), jnp.float32))
    E, head = config.draft.hidden_size, np.asarray(unfitted.target.head)
    stream, inner = input_P[:, :E], input_P[:, E:]
    down = _ridge(inner, wanted @ np.linalg.pinv(head) - stream)
    return student.replace(down=student.down.at[:, :E].set(jnp.asarray(down, jnp.float32)))


@jax.jit
def _fit_inputs(model: Model, text_S: jax.Array) -> jax.Array:
    """Inputs of the fitted map after every token: normed outputs, or Griffin's stream and gate."""
    config, params, S = model.config.draft, model.draft, text_S.shape[0]
    causal_SS, place_S = jnp.tril(jnp.ones((S, S), bool)), jnp.arange(S)
    _, feature_SE, _ = target.forward(
        model.target, model.config.target, text_S, place_S, causal_SS, None
    )
    kind, token_S = draft.kind_of(config), jnp.roll(text_S, -1)
    stream_SE = kind.embed_input(params, config, token_S, draft.fuse(params, config, feature_SE))
    query, key, value = kind.qkv(params, config, token_S, stream_SE, place_S)
    mixed = layers.attention(query, key.transpose(1, 0, 2), value.transpose(1, 0, 2), causal_SS)
    if isinstance(params, Eagle3Params):
        hidden_SE = kind.output(params, config, stream_SE, mixed)
        return layers.rms_norm(hidden_SE, params.norm, config.rms_norm_eps)
    stream_SE = stream_SE + layers.linear(mixed, params.o)
    normed_SE = layers.rms_norm(stream_SE, params.post_attention_norm, config.rms_norm_eps)
    inner_SF = layers.gated(normed_SE, params.gate_up, config.intermediate_size)
    return jnp.concatenate([stream_SE, inner_SF], axis=1)


def _ridge(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The linear map that takes rows nearest to what is wanted."""
    square = rows.T @ rows + np.eye(rows.shape[1])
    return np.linalg.solve(square, rows.T @ wanted)


def _fill(random: np.random.Generator, shapes):
    """Matrices that keep a row's size, vectors around 1, and small embeddings.

    Layers outweigh the embedding in the stream; else a tied target repeats its last token.
    """

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if len(leaf.shape) == 1:
            return jnp.asarray(1 + 0.3 * random.normal(size=leaf.shape), jnp.float32)
        scale = leaf.shape[0] ** -0.5
        return jnp.asarray(scale * random.normal(size=leaf.shape), jnp.float32)

    filled = jax.tree.map(draw, shapes)
    embedding = EMBEDDING_SIZE * random.normal(size=shapes.embedding.shape)
    return filled.replace(embedding=jnp.asarray(embedding, jnp.float32))
