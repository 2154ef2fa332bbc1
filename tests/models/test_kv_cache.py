"""The cache: what is appended is committed in order, what is not counted is overwritten."""

import jax.numpy as jnp
import numpy as np

from ltd_jax.config import TargetConfig
from ltd_jax.models import kv_cache
from ltd_jax.models.kv_cache import Rows

CONFIG = TargetConfig(
    vocab_size=2,
    hidden_size=1,
    intermediate_size=1,
    layer_count=2,
    head_count=1,
    kv_head_count=1,
    head_dim=1,
    feature_layers=(),
)


def rows(*numbers):
    """Two layers, one kv head, one channel; values are negative keys, layer 1 is 100 higher."""
    key = jnp.asarray(numbers, jnp.float32).reshape(1, -1, 1)
    return Rows((key, key + 100), (-key, -key - 100))


def test_append_and_overwrite():
    cache = kv_cache.empty(CONFIG, 6, jnp.float32)
    assert (cache.keys[0].shape, cache.length) == ((1, 6, 1), 0)
    cache = kv_cache.append(cache, rows(1, 2, 3), jnp.int32(2))
    assert cache.length == 2
    cache = kv_cache.append(cache, rows(4, 5), jnp.int32(2))
    assert cache.length == 4
    np.testing.assert_array_equal(cache.keys[0].ravel(), [1, 2, 4, 5, 0, 0])
    np.testing.assert_array_equal(cache.values[1].ravel()[:4], [-101, -102, -104, -105])


def test_take_a_path():
    path = kv_cache.take(rows(1, 2, 3, 4), jnp.array([0, 3]))
    np.testing.assert_array_equal(path.keys[1].ravel(), [101, 104])
    np.testing.assert_array_equal(path.values[0].ravel(), [-1, -4])


def test_rows_take_the_dtype_of_the_cache():
    cache = kv_cache.empty(CONFIG, 6, jnp.bfloat16)
    assert kv_cache.append(cache, rows(1), jnp.int32(1)).keys[0].dtype == jnp.bfloat16
