"""The loss of training-time test (EAGLE-3, Sec. 3): the draft is unrolled as it is used.

In step 0 row i reads token t_{i+1} and the target's feature of position i; in step j it reads
token t_{i+1+j} and its own output of step j - 1, at rotary position i + j. Every step is compared
with the target's distribution after the token that it read.

    keys that row i of step j sees   step 0: rows 0..i      steps 1..j: only its own row i
"""

import dataclasses

import jax
import jax.numpy as jnp

from ltd_jax.config import DraftConfig, TargetConfig
from ltd_jax.models import eagle3, layers, target
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.target import TargetParams

UNROLL = 7  # steps (EAGLE-3's published training)
STEP_DISCOUNT = 0.8  # weight of step j is STEP_DISCOUNT ** j


@dataclasses.dataclass(frozen=True)
class DraftLoss:
    """The loss of a draft, as the training loop takes it; equal configs compile once."""

    draft: DraftConfig
    target: TargetConfig

    def __call__(
        self, params: Eagle3Params, frozen: tuple[TargetParams, jax.Array], batch_BT: jax.Array
    ) -> jax.Array:
        """Mean soft cross-entropy over windows [B, T + 1] i32 and unrolled steps, f32 nats.

        Args:
          params: without embedding and vocabulary map.
          frozen: the target, whose embedding the draft has, and the vocabulary map.
        """
        target_params, target_token = frozen
        whole = params.replace(embedding=target_params.embedding, target_token=target_token)

        def window_loss(token_T: jax.Array) -> jax.Array:
            T = token_T.shape[0]
            causal_TT = jnp.tril(jnp.ones((T, T), bool))
            logits_TX, feature_TE, _ = target.forward(
                target_params, self.target, token_T, jnp.arange(T), causal_TT, None
            )
            return unrolled_loss(whole, self.draft, token_T, feature_TE, logits_TX)

        return jnp.mean(jax.vmap(window_loss)(batch_BT))


def unrolled_loss(
    params: Eagle3Params,
    config: DraftConfig,
    token_T: jax.Array,
    feature_TE: jax.Array,
    logits_TX: jax.Array,
) -> jax.Array:
    """The loss of one text: mean over steps, weighted by STEP_DISCOUNT ** step; f32 nats.

    Args:
      token_T: i32, more than UNROLL + 1 of them.
      feature_TE, logits_TX: the target's at every token.

    Raises:
      ValueError: there are too few tokens to unroll the draft, or it has a sliding window.
    """
    if config.sliding_layers:
        raise ValueError("A draft with a sliding window cannot be trained here; leave it out.")
    rows = token_T.shape[0] - 1 - UNROLL
    if rows < 1:
        raise ValueError(
            f"A window of {token_T.shape[0]} tokens is too short to unroll the draft {UNROLL} "
            f"steps; give at least {UNROLL + 2}."
        )
    hidden_TE = eagle3.fuse(params, config, feature_TE[:rows])
    keys: list[list[jax.Array]] = [[] for _ in range(config.layer_count)]  # by layer and step
    values: list[list[jax.Array]] = [[] for _ in range(config.layer_count)]
    total, weights = jnp.float32(0), 0.0
    for step in range(UNROLL):
        read_T = jax.lax.dynamic_slice_in_dim(token_T, 1 + step, rows)
        position_T = jnp.arange(rows) + step
        for layer in range(config.layer_count):
            query_THC, key_TKC, value_TKC = eagle3.qkv(
                params, config, read_T, hidden_TE, position_T, layer
            )
            keys[layer].append(key_TKC)
            values[layer].append(value_TKC)
            mixed_TE = chain_attention(query_THC, keys[layer], values[layer])
            hidden_TE = eagle3.output(params, config, hidden_TE, mixed_TE, layer)
        target_TX = jax.lax.dynamic_slice_in_dim(logits_TX, 1 + step, rows)
        total += STEP_DISCOUNT**step * _step_loss(params, config, hidden_TE, target_TX)
        weights += STEP_DISCOUNT**step
    return total / weights


def chain_attention(
    query_THC: jax.Array, keys: list[jax.Array], values: list[jax.Array]
) -> jax.Array:
    """Attention [T, H * C] to step 0 causally and to the same row of every later step.

    Args:
      keys, values: [T, K, C] of steps 0..j.
    """
    T, H, C = query_THC.shape
    K = keys[0].shape[1]
    query = (query_THC * C**-0.5).reshape(T, K, H // K, C)
    score = jnp.einsum("tkgc,skc->kgts", query, keys[0], preferred_element_type=jnp.float32)
    score = score + jnp.where(jnp.tril(jnp.ones((T, T), bool)), 0.0, layers.MASKED)[None, None]
    same_row = [
        jnp.einsum("tkgc,tkc->kgt", query, key, preferred_element_type=jnp.float32)[..., None]
        for key in keys[1:]
    ]
    weight = jax.nn.softmax(jnp.concatenate([score, *same_row], axis=-1), axis=-1)
    mixed = jnp.einsum("kgts,skc->tkgc", weight[..., :T], values[0])
    for step, value in enumerate(values[1:]):
        mixed += weight[..., T + step].transpose(2, 0, 1)[..., None] * value[:, :, None, :]
    return mixed.reshape(T, H * C)


def _step_loss(
    params: Eagle3Params, config: DraftConfig, hidden_TE: jax.Array, target_TX: jax.Array
) -> jax.Array:
    """Soft cross-entropy on the draft's vocabulary, where the target's choice lies in it."""
    target_TY = jnp.take(target_TX, params.target_token, axis=1)
    known_T = jnp.max(target_TY, axis=1) >= jnp.max(target_TX, axis=1)
    log_prob_TY = jax.nn.log_softmax(eagle3.logits(params, config, hidden_TE), axis=-1)
    cross_T = -jnp.sum(jax.nn.softmax(target_TY, axis=-1) * log_prob_TY, axis=-1)
    return jnp.sum(cross_T * known_T) / jnp.maximum(jnp.sum(known_T), 1)
