"""Tiny random pairs: a target with varied greedy texts, and a draft that knows them half by heart.

The draft's head is fitted (ridge regression on its own outputs along the texts), so that cycles
accept anything from no drafted token to all of them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig, DraftConfig, PairConfig, TargetConfig
from ltd_jax.models import draft, target
from ltd_jax.models.pair import Model, Pair
from tests.oracle import draft as oracle_draft
from tests.oracle import layer
from tests.oracle import target as oracle_target

CONFIG = PairConfig(
    target=TargetConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        layer_count=3,
        feature_layers=(0, 1, 2),
        head_count=4,
        kv_head_count=2,
        head_dim=10,
    ),
    draft=DraftConfig(
        vocab_size=64,
        draft_vocab_size=32,
        hidden_size=40,
        target_hidden_size=32,
        intermediate_size=48,
        head_count=4,
        kv_head_count=2,
        head_dim=8,
        rope_theta=500.0,
    ),
    cycle=CycleConfig(
        beam_width=4,
        max_levels=5,
        sizes=(0, 1, 12),
        context=96,
        prefill_chunk=8,
        short_catch_ups=(2,),
    ),
)
PROMPT_TOKENS = (1, 8, 19)  # less than a prefill chunk, just one, more than two
KNOWN_TOKENS = 40  # of each prompt's continuation, for the fit
KNOWN_LEVELS = 3  # draft outputs per position, for the fit


@functools.cache
def prompts(seed: int) -> tuple[tuple[int, ...], ...]:
    """One random prompt of every length."""
    random = np.random.default_rng(seed)
    draw = lambda count: random.integers(0, CONFIG.target.vocab_size, count).tolist()
    return tuple(tuple(draw(count)) for count in PROMPT_TOKENS)


@functools.cache
def weights(seed: int) -> Model:
    """Random weights, numpy f64, with the fitted head and vocabulary of the draft."""
    random = np.random.default_rng(seed)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    teacher = _fill(random, jax.eval_shape(lambda key: target.init(key, CONFIG.target), key))
    blank = jnp.zeros((CONFIG.draft.vocab_size, CONFIG.draft.hidden_size))
    token = jnp.zeros(CONFIG.draft.draft_vocab_size, jnp.int32)
    student = jax.eval_shape(lambda key: draft.init(key, CONFIG.draft, blank, token), key)
    fitted = _fit(teacher, _fill(random, student), texts_of(teacher, seed))
    return Model(teacher, fitted, CONFIG)


def pair(seed: int, **settings) -> Pair:
    """The pair of a seed in f32."""
    cast = lambda leaf: jnp.asarray(leaf, jnp.int32 if leaf.dtype.kind == "i" else jnp.float32)
    return Pair(jax.tree.map(cast, weights(seed)), jnp.float32, **settings)


@functools.cache
def texts(seed: int) -> tuple[tuple[int, ...], ...]:
    """The prompts with the target's own continuation."""
    return texts_of(weights(seed).target, seed)


def texts_of(teacher, seed: int) -> tuple[tuple[int, ...], ...]:
    """The prompts of a seed with a target's continuation."""
    read = lambda prompt: oracle_target.continuation(teacher, CONFIG.target, prompt, KNOWN_TOKENS)
    return tuple(prompt + tuple(read(prompt)) for prompt in prompts(seed))


def reader(seed: int, text: tuple[int, ...]) -> oracle_draft.Reader:
    """The oracle's draft behind a text whose last token is the root."""
    both = weights(seed)
    features = oracle_target.read(both.target, CONFIG.target, text)[1]
    return oracle_draft.Reader(both.draft, CONFIG.draft, text, features)


def offsets(seed: int) -> np.ndarray:
    """What is added to draft ids (d2t)."""
    return weights(seed).draft.target_token - np.arange(CONFIG.draft.draft_vocab_size)


def _fill(random, shapes):
    """Matrices that keep a row's size, norms around 1, embedding rows of size 1 per channel."""

    def draw(leaf):
        if len(leaf.shape) == 1:
            return 1 + 0.2 * random.normal(size=leaf.shape)
        return random.normal(size=leaf.shape) * leaf.shape[0] ** -0.5

    filled = jax.tree.map(draw, shapes)
    return filled.replace(embedding=random.normal(size=shapes.embedding.shape))


def _fit(teacher, student, known):
    """A draft vocabulary of the commonest tokens, and a head that finds them in the outputs."""
    rows = [row for text in known for row in _examples(teacher, student, text)]
    hidden, following = (np.array(column) for column in zip(*rows, strict=True))
    counts = np.bincount(following, minlength=CONFIG.draft.vocab_size)
    token = np.sort(np.argsort(-counts, kind="stable")[: CONFIG.draft.draft_vocab_size])
    wanted = (following[:, None] == token).astype(float)
    wanted -= wanted.mean(-1, keepdims=True)
    known_rows = layer.rms_norm(hidden, student.norm, CONFIG.draft.rms_norm_eps)
    ridge = known_rows.T @ known_rows + 0.1 * np.eye(known_rows.shape[1])
    head = 8 * np.linalg.solve(ridge, known_rows.T @ wanted)
    return student.replace(head=head, target_token=token)


def _examples(teacher, student, text):
    """Draft outputs along a text, up to KNOWN_LEVELS deep from every position, and next tokens."""
    features = oracle_target.read(teacher, CONFIG.target, text)[1]
    for root in range(1, len(text) - KNOWN_LEVELS):
        reader = oracle_draft.Reader(student, CONFIG.draft, text[: root + 1], features)
        hidden, above = reader.outputs()[-1], []
        yield hidden, text[root + 1]
        for level in range(1, KNOWN_LEVELS):
            above.append(reader.add(text[root + level], hidden, level - 1, above))
            hidden = reader.outputs()[-1]
            yield hidden, text[root + level + 1]
