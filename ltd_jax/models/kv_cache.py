"""The key-value cache: fixed-length arrays per layer.

Slots [0, length) hold committed tokens. A forward pass only reads the cache and returns the keys
and values of its own rows; who accepts tokens appends the accepted rows. So a pass over a tree
never copies the cache, and rejected rows never enter it.

    slots   0 1 2 3 4 5 6 7        length = 4, a pass of rows n0 n1 n2, path (n0, n2) accepted
            c c c c . . . .        before
            c c c c n0 n2 . .      after `append`: length = 6; rows after it are scratch
"""

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import AnyDraftConfig, TargetConfig

Past = tuple[jax.Array, jax.Array, jax.Array]  # a layer's keys, values [K, S, C], length i32 []


@struct.dataclass
class Rows:
    """Keys and values of one pass, per layer [K, T, C]."""

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


@struct.dataclass
class KVCache:
    """Keys and values of one sequence."""

    keys: tuple[jax.Array, ...]  # one [K, S, C] per layer, in the model's dtype
    values: tuple[jax.Array, ...]  # one [K, S, C] per layer
    length: jax.Array  # i32 [], committed tokens

    def layer(self, index: int) -> Past:
        """The keys and values of one layer, of which the first `length` count."""
        return self.keys[index], self.values[index], self.length


def empty(
    config: TargetConfig | AnyDraftConfig,
    slots: int,
    dtype: jnp.dtype,
    sharding: jax.sharding.Sharding | None = None,
) -> KVCache:
    """A model's cache without tokens.

    Args:
      sharding: of keys and values; None = the default device.
    """
    shape = (config.kv_head_count, slots, config.head_dim)
    blank = lambda: jnp.zeros(shape, dtype, device=sharding)
    return KVCache(
        keys=tuple(blank() for _ in range(config.layer_count)),
        values=tuple(blank() for _ in range(config.layer_count)),
        length=jnp.zeros((), jnp.int32),
    )


def take(rows: Rows, path_T: jax.Array) -> Rows:
    """The rows of a path, i32 row numbers in order."""
    return jax.tree.map(lambda rows_KTC: jnp.take(rows_KTC, path_T, axis=1), rows)


def append(cache: KVCache, rows: Rows, count: jax.Array) -> KVCache:
    """Writes all rows after the committed ones and commits the first `count` of them.

    The caller guarantees that all rows fit, also those that are not committed, and that `count` is
    known only after the pass has read the cache (`after`).
    """
    start = after(cache.length, count)

    def put(slots_KSC: jax.Array, rows_KTC: jax.Array) -> jax.Array:
        rows_KTC = rows_KTC.astype(slots_KSC.dtype)
        return jax.lax.dynamic_update_slice(slots_KSC, rows_KTC, (0, start, 0))

    return KVCache(
        keys=tuple(map(put, cache.keys, rows.keys)),
        values=tuple(map(put, cache.values, rows.values)),
        length=cache.length + count,
    )


def after(value: jax.Array, dependency: jax.Array) -> jax.Array:
    """The same i32 value, known only when a non-negative i32 `dependency` is.

    A write whose place is known only after the cache was read is made in place; free to write
    before it reads, XLA copies every layer.
    """
    return value + jnp.minimum(dependency, 0)
