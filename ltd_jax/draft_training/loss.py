"""The loss of training-time test (EAGLE-3, Sec. 3): the draft is unrolled as it is used.

In step 0 row i reads token t_{i+1} and the target's feature of position i; in step j it reads
token t_{i+1+j} and its own output of step j - 1, at rotary position i + j. Every step is compared
with the target's distribution after the token that it read.

    keys that row i of step j sees   step 0: rows 0..i      steps 1..j: only its own row i
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import DraftConfig, TargetConfig
from ltd_jax.draft_training.pack import Windows
from ltd_jax.models import eagle3, layers, target
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.target import TargetParams

UNROLL = 7  # steps (EAGLE-3's published training)
STEP_DISCOUNT = 0.8  # weight of step j is STEP_DISCOUNT ** j


@struct.dataclass
class Frozen:
    """What the loss reads and what does not learn."""

    target: TargetParams
    target_token: jax.Array  # i32 [Y], the draft's vocabulary
    scale: jax.Array  # f32 [features * target E], by which features are divided


@dataclasses.dataclass(frozen=True)
class DraftLoss:
    """The loss of a draft, as the training loop takes it; equal configs compile once.

    The draft reads features divided by `Frozen.scale`, since those of the first layers are
    many times smaller than those of the last; `folded` takes the division into its weights.
    """

    draft: DraftConfig
    target: TargetConfig
    dtype: str = "float32"  # of the draft's products; parameters and sums are f32
    worth: tuple[float, float, float] = (0.0, 0.1, 1.0)  # of predicted tokens, by kind (talk.py)

    def __call__(self, params: Eagle3Params, frozen: Frozen, batch: Windows) -> jax.Array:
        """Soft cross-entropy, mean over what is predicted and over unrolled steps, f32 nats.

        Args:
          params: f32, without embedding and vocabulary map.
        """
        cross_BSR, worth_BSR, _ = self.by_step(params, frozen, batch)
        each_S = cross_BSR.sum((0, 2)) / jnp.maximum(worth_BSR.sum((0, 2)), 1e-9)
        weight_S = STEP_DISCOUNT ** jnp.arange(UNROLL)
        return jnp.sum(each_S * weight_S) / jnp.sum(weight_S)

    def by_step(
        self, params: Eagle3Params, frozen: Frozen, batch: Windows
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Of every window, step and row [B, UNROLL, R]: loss times worth, worth, whether guessed.

        Guessed is the text's next token. The worth of a row is 0 where that token is of another
        text than the row, or the target's choice is not in the draft's vocabulary.

        Raises:
          ValueError: there are too few tokens to unroll the draft.
        """
        dtype = jnp.dtype(self.dtype)
        cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
        own = cast(params).replace(
            embedding=cast(frozen.target.embedding), target_token=frozen.target_token
        )

        def of_window(window: Windows) -> tuple[jax.Array, jax.Array, jax.Array]:
            seen_TT = visible(window)
            logits_TX, feature_TE, _ = target.forward(
                frozen.target, self.target, window.token, window.position, seen_TT, None
            )
            feature_TE = (feature_TE.astype(jnp.float32) / frozen.scale[None]).astype(dtype)
            worth_T = jnp.asarray(self.worth, jnp.float32)[window.kind]
            return unrolled(own, self.draft, window, feature_TE, logits_TX, worth_T)

        return jax.vmap(of_window)(batch)


def folded(params: Eagle3Params, frozen: Frozen, scale: jax.Array | float) -> Eagle3Params:
    """The whole draft of trained parameters: it reads features that are divided by `scale`.

    With `Frozen.scale` it is the draft that reads the target's own features, with its inverse the
    one to start from where a draft is there.
    """
    return params.replace(
        fuse=params.fuse / jnp.broadcast_to(scale, params.fuse.shape[:1])[:, None],
        embedding=frozen.target.embedding.astype(params.fuse.dtype),
        target_token=frozen.target_token,
    )


def visible(window: Windows) -> jax.Array:
    """Which tokens [T, T] of a window each one sees: of its own text, up to itself."""
    T = window.token.shape[0]
    return jnp.tril(jnp.ones((T, T), bool)) & (window.text[:, None] == window.text[None])


@functools.partial(jax.jit, static_argnames="config")
def feature_scale(params: TargetParams, config: TargetConfig, windows: Windows) -> jax.Array:
    """The root mean square of each layer of the target's features, f32 [features * E].

    Of tokens behind the first of each text: that one's features are often a thousand times larger.
    """

    def squares(window: Windows) -> tuple[jax.Array, jax.Array]:
        _, feature_TE, _ = target.forward(
            params, config, window.token, window.position, visible(window), None
        )
        counts_T = (window.text > 0) & (window.position > 0)
        square_TE = jnp.where(counts_T[:, None], feature_TE.astype(jnp.float32) ** 2, 0.0)
        return square_TE.sum(0), counts_T.sum()

    square_WE, count_W = jax.lax.map(squares, windows)
    layers_E = (square_WE.sum(0) / count_W.sum()).reshape(-1, config.hidden_size)
    return jnp.repeat(jnp.sqrt(layers_E.mean(1)), config.hidden_size)


def unrolled(
    params: Eagle3Params,
    config: DraftConfig,
    window: Windows,
    feature_TE: jax.Array,
    logits_TX: jax.Array,
    worth_T: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One window, [UNROLL, R] each: loss times worth, worth, whether the next token was guessed.

    Args:
      window: [T] arrays, more than UNROLL + 1 tokens.
      feature_TE, logits_TX: the target's at every token.
      worth_T: f32, of predicting each token.

    Raises:
      ValueError: there are too few tokens to unroll the draft, or it has a sliding window.
    """
    if config.sliding_layers:
        raise ValueError("A draft with a sliding window cannot be trained here; leave it out.")
    T = window.token.shape[0]
    R = T - 1 - UNROLL
    if R < 1:
        raise ValueError(
            f"A window of {T} tokens is too short to unroll the draft {UNROLL} steps; give at "
            f"least {UNROLL + 2}."
        )
    cut = lambda array, start: jax.lax.dynamic_slice_in_dim(array, start, R)
    text_R = window.text[:R]
    visible_RR = jnp.tril(text_R[:, None] == text_R[None])
    hidden_RE = eagle3.fuse(params, config, feature_TE[:R])
    keys: list[list[jax.Array]] = [[] for _ in range(config.layer_count)]  # by layer and step
    values: list[list[jax.Array]] = [[] for _ in range(config.layer_count)]
    found = []
    for step in range(UNROLL):
        read_R, position_R = cut(window.token, 1 + step), window.position[:R] + step
        for layer in range(config.layer_count):
            query_RHC, key_RKC, value_RKC = eagle3.qkv(
                params, config, read_R, hidden_RE, position_R, layer
            )
            keys[layer].append(key_RKC)
            values[layer].append(value_RKC)
            mixed_RE = chain_attention(query_RHC, keys[layer], values[layer], visible_RR)
            hidden_RE = eagle3.output(params, config, hidden_RE, mixed_RE, layer)
        is_own = (text_R > 0) & (cut(window.text, 2 + step) == text_R)
        worth_R = cut(worth_T, 2 + step) * is_own
        said_R = cut(window.token, 2 + step)
        target_RX = cut(logits_TX, 1 + step)
        found.append(_step_loss(params, config, hidden_RE, target_RX, said_R, worth_R))
    cross, worth, is_hit = (jnp.stack(parts) for parts in zip(*found, strict=True))
    return cross, worth, is_hit


def chain_attention(
    query_THC: jax.Array, keys: list[jax.Array], values: list[jax.Array], visible_TT: jax.Array
) -> jax.Array:
    """Attention [T, H * C] to visible rows of step 0 and to the same row of every later step.

    Args:
      keys, values: [T, K, C] of steps 0..j.
      visible_TT: bool, which rows of step 0 each row sees.
    """
    T, H, C = query_THC.shape
    K = keys[0].shape[1]
    query = (query_THC * C**-0.5).reshape(T, K, H // K, C)
    score = jnp.einsum("tkgc,skc->kgts", query, keys[0], preferred_element_type=jnp.float32)
    score = score + jnp.where(visible_TT, 0.0, layers.MASKED)[None, None]
    same_row = [
        jnp.einsum("tkgc,tkc->kgt", query, key, preferred_element_type=jnp.float32)[..., None]
        for key in keys[1:]
    ]
    weight = jax.nn.softmax(jnp.concatenate([score, *same_row], axis=-1), axis=-1)
    weight = weight.astype(query_THC.dtype)
    mixed = jnp.einsum("kgts,skc->tkgc", weight[..., :T], values[0])
    for step, value in enumerate(values[1:]):
        mixed += weight[..., T + step].transpose(2, 0, 1)[..., None] * value[:, :, None, :]
    return mixed.reshape(T, H * C)


def _step_loss(
    params: Eagle3Params,
    config: DraftConfig,
    hidden_RE: jax.Array,
    target_RX: jax.Array,
    said_R: jax.Array,
    worth_R: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Soft cross-entropy on the draft's vocabulary times worth, worth, whether it guessed, [R]."""
    target_RY = jnp.take(target_RX, params.target_token, axis=1)
    worth_R = worth_R * (jnp.max(target_RY, axis=1) >= jnp.max(target_RX, axis=1))
    log_prob_RY = jax.nn.log_softmax(eagle3.logits(params, config, hidden_RE), axis=-1)
    cross_R = -jnp.sum(jax.nn.softmax(target_RY, axis=-1) * log_prob_RY, axis=-1)
    guess_R = jnp.take(params.target_token, jnp.argmax(log_prob_RY, axis=1))
    return cross_R * worth_R, worth_R, guess_R == said_R
