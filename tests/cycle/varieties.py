"""Tiny random pairs of every variety: with and without d2t, all norms, windows, layers, Griffin.

Their vocabulary is so small that untrained drafts hit the target's choice often.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig, DraftConfig, GriffinConfig, PairConfig, TargetConfig
from ltd_jax.models import draft, target
from ltd_jax.models.pair import Model, Pair

X, Y = 6, 5  # tokens of the target, of a draft with d2t
TARGET = TargetConfig(
    vocab_size=X,
    hidden_size=16,
    intermediate_size=24,
    layer_count=3,
    head_count=4,
    kv_head_count=2,
    head_dim=6,
    feature_layers=(0, 1, 3),
)
EAGLE3 = DraftConfig(
    vocab_size=X,
    draft_vocab_size=Y,
    hidden_size=12,
    target_hidden_size=16,
    intermediate_size=20,
    head_count=2,
    kv_head_count=1,
    head_dim=8,
    rope_theta=300.0,
)
GRIFFIN = GriffinConfig(
    vocab_size=X,
    hidden_size=16,
    intermediate_size=24,
    head_count=4,
    kv_head_count=4,
    head_dim=4,
    rope_theta=500.0,
)
CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(7,), context=64, prefill_chunk=8)
BEFORE = {"draft_vocab_size": X, "norm_before_fc": True, "norm_before_residual": True}
AFTER = {"norm_each_feature": True, "norm_output": True}
LAST_STATE = dataclasses.replace(TARGET, feature_layers=())
NARROW = dataclasses.replace(  # two of its layers see five tokens
    TARGET,
    attention_bias=True,
    output_bias=True,
    qk_norm=True,
    sliding_window=5,
    sliding_layers=(0, 2),
    feature_layers=(0, 1, 2, 3),
)
DEEP = dataclasses.replace(  # three layers, of which two slide, over four features
    EAGLE3,
    layer_count=3,
    feature_count=4,
    attention_bias=True,
    output_bias=True,
    fuse_bias=True,
    qk_norm=True,
    sliding_window=4,
    sliding_layers=(0, 2),
)
BORROWED = dataclasses.replace(EAGLE3, hidden_size=16, draft_vocab_size=X, own_head=False)
PAIRS = {
    "d2t": (TARGET, EAGLE3),
    "all tokens, normed before": (TARGET, dataclasses.replace(EAGLE3, **BEFORE)),
    "d2t, normed each and after": (TARGET, dataclasses.replace(EAGLE3, **AFTER)),
    "deep and narrow": (NARROW, DEEP),
    "the target's head": (TARGET, BORROWED),
    "griffin": (LAST_STATE, GRIFFIN),
    "griffin, tied and biased": (
        dataclasses.replace(LAST_STATE, tie_embeddings=True),
        dataclasses.replace(GRIFFIN, attention_bias=True),
    ),
}


def config(name: str) -> PairConfig:
    """A variety's settings."""
    return PairConfig(*PAIRS[name], CYCLE)


@functools.cache
def weights(name: str) -> Model:
    """Random weights in numpy f64; the draft's ids are some of the target's, in order."""
    pair, random = config(name), np.random.default_rng(17)
    key = jax.random.key(0)
    teacher = _fill(random, jax.eval_shape(lambda: target.init(key, pair.target)))
    embedding = teacher.embedding
    if pair.draft.hidden_size != pair.target.hidden_size:
        embedding = random.normal(size=(X, pair.draft.hidden_size))
    blank = jnp.zeros(pair.draft.draft_vocab_size, jnp.int32)
    student = jax.eval_shape(
        lambda: draft.init(key, pair.draft, jnp.asarray(embedding), blank, teacher.head)
    )
    token = np.sort(random.permutation(X)[: pair.draft.draft_vocab_size])
    student = _fill(random, student).replace(embedding=embedding, target_token=token)
    if isinstance(pair.draft, GriffinConfig) or not pair.draft.own_head:
        student = student.replace(head=teacher.head)
    return Model(teacher, student, pair)


def pair(name: str) -> Pair:
    """The pair in f32."""
    cast = lambda leaf: jnp.asarray(leaf, jnp.int32 if leaf.dtype.kind == "i" else jnp.float32)
    return Pair(jax.tree.map(cast, weights(name)), jnp.float32)


def _fill(random, shapes):
    """Matrices that keep a row's size, vectors around 1."""

    def draw(path, leaf):
        if any("bias" in str(part) for part in path[-2:]) and "fuse_bias" not in str(path):
            return 0.3 * random.normal(size=leaf.shape)
        if len(leaf.shape) == 1:
            return 1 + 0.3 * random.normal(size=leaf.shape)
        return random.normal(size=leaf.shape) * leaf.shape[0] ** -0.5

    filled = jax.tree_util.tree_map_with_path(draw, shapes)
    return filled.replace(embedding=random.normal(size=shapes.embedding.shape))
