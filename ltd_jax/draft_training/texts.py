"""Text that a target writes itself: greedy continuations of corpus windows, many at a time.

A draft is asked to guess what its target writes, which is not what the corpus holds; and only in
its own text does a small target show its loops.
"""

import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import TargetConfig
from ltd_jax.draft_training import train as trainer
from ltd_jax.draft_training.train import TrainConfig
from ltd_jax.files import UserError
from ltd_jax.models import kv_cache, target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.target import TargetParams

PROMPT = 64  # tokens of the corpus in front of every text
BATCH = 64  # texts at a time


@functools.partial(jax.jit, static_argnames=("config", "new"))
def greedy(
    params: TargetParams, config: TargetConfig, prompts_BP: jax.Array, new: int
) -> jax.Array:
    """The target's greedy continuations, i32 [B, P + new] with the prompts in front."""
    B, P = prompts_BP.shape
    axes: dict[str, Any] = {"keys": 0, "values": 0, "length": None}
    each_text = KVCache(**axes)

    @functools.partial(jax.vmap, in_axes=(each_text, 0), out_axes=(0, each_text))
    def read(cache: KVCache, tokens_T: jax.Array) -> tuple[jax.Array, KVCache]:
        T = tokens_T.shape[0]
        positions, causal = cache.length + jnp.arange(T), jnp.tril(jnp.ones((T, T), bool))
        logits_TX, _, rows = target.forward(params, config, tokens_T, positions, causal, cache)
        best = jnp.argmax(logits_TX[-1]).astype(jnp.int32)
        return best, kv_cache.append(cache, rows, jnp.int32(T))

    def write(state, _):
        last_B, cache = state
        next_B, cache = read(cache, last_B[:, None])
        return (next_B, cache), last_B

    cache = target.empty_cache(config, P + new, params.embedding.dtype)
    cache = jax.tree.map(lambda slots: jnp.broadcast_to(slots, (B, *slots.shape)), cache).replace(
        length=cache.length
    )
    _, written = jax.lax.scan(write, read(cache, prompts_BP), None, length=new)
    return jnp.concatenate([prompts_BP, written.T], axis=1)


def prompts(streams: list[np.ndarray], count: int, seed: int) -> np.ndarray:
    """Windows [count, PROMPT] i32 of the corpus, as many of each kind."""
    shares = tuple(1 / len(streams) for _ in streams)
    windows = TrainConfig(
        sequence=PROMPT, long_share=0.0, batch_tokens=count * PROMPT, kind_shares=shares, seed=seed
    )
    return trainer.sample_batch(streams, windows, 0)[:, :PROMPT]


def saved(
    file: Path, params: TargetParams, config: TargetConfig, prompts_BP: np.ndarray, new: int
) -> np.ndarray:
    """The greedy texts of all prompts, uint16 [B, P + new], read from `file` once it is written.

    Raises:
      UserError: the file begins with other prompts.
    """
    if not file.exists():
        parts = [
            np.asarray(greedy(params, config, jnp.asarray(prompts_BP[i : i + BATCH]), new))
            for i in range(0, len(prompts_BP), BATCH)
        ]
        partial = file.with_suffix(".partial.npy")
        np.save(partial, np.concatenate(parts).astype(np.uint16))
        os.replace(partial, file)
    texts_BT = np.load(file)
    if not np.array_equal(texts_BT[:, :PROMPT], prompts_BP):
        raise UserError(f"{file} holds other texts than are asked for; delete it.")
    return texts_BT
