"""Texts that a target writes itself: greedy continuations of corpus windows, side by side.

A draft is asked to guess what its target writes, which is not what the corpus holds; and only in
its own text does a small target show its loops.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax import files
from ltd_jax.config import TargetConfig
from ltd_jax.cycle import sample
from ltd_jax.draft_training import pack
from ltd_jax.draft_training.pack import Mixture
from ltd_jax.files import UserError
from ltd_jax.models import kv_cache, target
from ltd_jax.models.kv_cache import KVCache
from ltd_jax.models.target import TargetParams

PROMPT_TOKENS = 64  # of the corpus in front of every text
TEXTS_AT_ONCE = 64


def sample_prompts(streams: Sequence[np.ndarray], count: int, seed: int) -> np.ndarray:
    """Windows [count, PROMPT_TOKENS] i32 of token streams, as many of each on average."""
    mixture = Mixture(tuple(streams), (1 / len(streams),) * len(streams))
    windows = pack.sample_windows(mixture, rows=count, window=PROMPT_TOKENS, seed=seed, step=0)
    return windows[:, :PROMPT_TOKENS]


def load_or_write(
    file: Path,
    params: TargetParams,
    config: TargetConfig,
    prompt_BP: np.ndarray,
    new_tokens: int,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """The target's greedy texts of all prompts, [B, P + new_tokens], read from `file` once written.

    They are of the smallest unsigned type that holds the vocabulary, at least uint16.

    Raises:
      UserError: a prompt has tokens that the target does not know, the file is damaged or holds
        other texts, it cannot be written, or the target's logits are no finite numbers.
    """
    pack.known_tokens(prompt_BP, config.vocab_size, "A prompt")
    if not file.exists():
        pieces = []
        for start in range(0, len(prompt_BP), TEXTS_AT_ONCE):
            piece_BP = jnp.asarray(prompt_BP[start : start + TEXTS_AT_ONCE])
            text_BT = np.asarray(continue_greedily(params, config, piece_BP, new_tokens))
            if text_BT.min() < 0:
                raise UserError(
                    f"The target's logits are NaN or infinite in {params.embedding.dtype}, so it "
                    "writes no texts; load it in another `dtype`, or check its weights."
                )
            pieces.append(text_BT)
            progress(min(start + TEXTS_AT_ONCE, len(prompt_BP)) / len(prompt_BP))
        dtype = pack.token_dtype(config.vocab_size)
        with files.replacing(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.concatenate(pieces).astype(dtype))
    try:
        text_BT = np.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{file} is damaged; delete it to write the texts again.") from error
    shape, P = prompt_BP.shape, prompt_BP.shape[1]
    if text_BT.shape != (shape[0], P + new_tokens) or (text_BT[:, :P] != prompt_BP).any():
        raise UserError(f"{file} holds other texts than are asked for; delete it.")
    return pack.known_tokens(text_BT, config.vocab_size, str(file))


@functools.partial(jax.jit, static_argnames=("config", "new_tokens"))
def continue_greedily(
    params: TargetParams, config: TargetConfig, prompt_BP: jax.Array, new_tokens: int
) -> jax.Array:
    """The target's greedy continuations, i32 [B, P + new_tokens] with the prompts in front.

    A token is sample.NO_TARGET where the target's logits are no finite numbers.
    """
    B, P = prompt_BP.shape
    axes: dict[str, Any] = {"keys": 0, "values": 0, "length": None}
    batched = KVCache(**axes)

    def read(
        cache: KVCache, token_BT: jax.Array, *, is_first: bool = False
    ) -> tuple[jax.Array, KVCache]:
        """The likeliest tokens [B] after some more; the first ones see no cache (attention)."""
        T = token_BT.shape[1]

        def read_one(cache: KVCache, token_T: jax.Array) -> tuple[jax.Array, KVCache]:
            before = None if is_first else cache
            logits_TX, _, rows = target.causal_forward(params, config, token_T, before, T)
            likeliest = sample.argmax(logits_TX[-1])
            return likeliest, kv_cache.append(cache, rows, jnp.int32(T))

        return jax.vmap(read_one, in_axes=(batched, 0), out_axes=(0, batched))(cache, token_BT)

    def write(state, _):
        last_B, cache = state
        next_B, cache = read(cache, last_B[:, None])
        return (next_B, cache), last_B

    cache = kv_cache.empty(config, P + new_tokens, params.embedding.dtype)
    cache = jax.tree.map(lambda slots: jnp.broadcast_to(slots, (B, *slots.shape)), cache).replace(
        length=cache.length
    )
    _, written = jax.lax.scan(write, read(cache, prompt_BP, is_first=True), None, length=new_tokens)
    return jnp.concatenate([prompt_BP, written.T], axis=1)
