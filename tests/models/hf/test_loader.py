"""Loading: split over a mesh, finite, and with little host memory beside what it puts down."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.hf.tensors import TensorFolder
from ltd_jax.models.hf.weights import Loader, Stored
from tests.models.folders import TARGET, target_params
from tests.models.hf.test_weights import rewrite
from tests.models.refusal import refusal

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path):
    hf_weights.save_target(tmp_path, TARGET, target_params(), np.float32)
    return tmp_path


@pytest.mark.parametrize("block_bytes", [1, 200, 10**9])
def test_blocks_are_the_matrix(folder, monkeypatch, block_bytes):
    monkeypatch.setattr("ltd_jax.models.hf.weights.BLOCK_BYTES", block_bytes)
    loader = Loader(TensorFolder(folder), jnp.float32)
    up = loader.read(Stored("model.layers.3.mlp.up_proj.weight", (20, 12), "out"))
    np.testing.assert_array_equal(up, target_params().layers[3].gate_up[1])
    embedding = loader.read(Stored("model.embed_tokens.weight", (24, 12)))
    np.testing.assert_array_equal(embedding, target_params().embedding)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(folder, value):
    name = "model.layers.5.self_attn.o_proj.weight"
    rewrite(folder, lambda tensors: tensors[name].__setitem__((2, 3), value))
    message = refusal(lambda: hf_weights.load_target(folder, jnp.float32))
    assert name in message and str(folder) in message and "NaN" in message


def test_numbers_too_large_for_the_dtype(folder):
    rewrite(folder, lambda tensors: tensors["model.norm.weight"].__setitem__(0, 1e6))
    hf_weights.load_target(folder, jnp.bfloat16)
    with np.errstate(over="ignore"):
        assert "`dtype`" in refusal(lambda: hf_weights.load_target(folder, jnp.float16))


SPLIT = """
import jax, jax.numpy as jnp, numpy as np, sys
from pathlib import Path
from ltd_jax.models import target
from ltd_jax.models.hf import weights
folder = Path(sys.argv[1])
config, one = weights.load_target(folder, jnp.float32)
_, split = weights.load_target(folder, jnp.float32, devices=4)
layer = split.layers[0]
shards = lambda x: x.addressable_shards[0].data.shape
q, k, v = layer.qkv
assert shards(q) == (12, 4) and shards(layer.o) == (4, 12), (shards(q), shards(layer.o))
assert shards(k) == shards(v) == (12, 4)  # two devices share each of two heads
assert shards(layer.gate_up[1]) == (12, 5) and shards(layer.input_norm) == (12,)
assert shards(split.embedding) == (24, 12) and shards(split.head) == (12, 6)
T = 9
run = jax.jit(lambda p: target.forward(p, config, jnp.arange(T), jnp.arange(T),
    jnp.tril(jnp.ones((T, T), bool)), None)[0])
np.testing.assert_allclose(run(one), run(split), atol=1e-4)
print("same")
"""


def test_split_over_devices(folder):
    """Eight virtual CPU devices, four of them used; in a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SPLIT, str(folder)],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "same" in done.stdout, done.stderr


MEMORY = """
import json, sys
from pathlib import Path
import jax, jax.numpy as jnp
from ltd_jax.models.hf.weights import Loader, Stored
from ltd_jax.models.hf.tensors import TensorFolder
from experiments.proofs.bench_loading import peak_bytes
loader = Loader(TensorFolder(Path(sys.argv[1])), jnp.bfloat16)
loader.read(Stored("warm", (8,)))
before = peak_bytes()
arrays = [loader.read(Stored(f"map{i}", (4096, 8192), "out")) for i in range(6)]
jax.block_until_ready(arrays)
print(json.dumps({"extra": peak_bytes() - before - sum(a.nbytes for a in arrays),
                  "largest": arrays[0].nbytes}))
"""


def test_host_memory_beside_the_final_arrays(tmp_path):
    """At most 1.5 times the largest tensor (64 MiB in bf16), for six of them."""
    random = np.random.default_rng(0)
    one = random.integers(0, 2**14, (4096, 8192), np.uint16).view(ml_dtypes.bfloat16)
    tensors = {f"map{i}": one for i in range(6)} | {"warm": np.zeros(8, ml_dtypes.bfloat16)}
    hf_tensors.write_folder(tmp_path, {}, tensors)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["extra"] < 1.5 * found["largest"], found
