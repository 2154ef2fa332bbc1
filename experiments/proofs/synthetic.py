"""A target folder of any size with random weights, and the memory that loading one takes.

`python -m experiments.proofs.synthetic FOLDER DTYPE` loads a folder and prints one JSON object; a
process of its own, because the peak of resident memory is a process's and never falls.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ltd_jax.config import TargetConfig
from ltd_jax.files import UserError
from ltd_jax.models import cpu_layout, target
from ltd_jax.models.hf import weights as hf_weights

# Llama-3's proportions at a quarter of the width; layers are added up to the wanted size.
SHAPE = TargetConfig(
    vocab_size=64128,
    hidden_size=1024,
    intermediate_size=3584,
    layer_count=7,
    head_count=8,
    kv_head_count=2,
    head_dim=128,
    rope_theta=500_000.0,
)
SHARD_BYTES = 2**29


def write_target(folder: Path, wanted_bytes: float) -> int:
    """Writes a bf16 target of at least `wanted_bytes` in shards; returns the bytes written.

    One random tensor is drawn for every shape, so that writing needs little memory and time.
    """
    base, one = (_bytes(dataclasses.replace(SHAPE, layer_count=count)) for count in (7, 8))
    layers = 7 + max(0, -int((base - wanted_bytes) // (one - base)))
    config = dataclasses.replace(SHAPE, layer_count=layers, feature_layers=(0, 0, 0))
    params = jax.tree.map(_Drawn(), _shapes(config))
    hf_weights.save_target(folder, config, params, ml_dtypes.bfloat16, shard_bytes=SHARD_BYTES)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class _Drawn:
    """Random arrays by shape, each drawn once."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.by_shape: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.shape not in self.by_shape:
            drawn = self.random.standard_normal(leaf.shape, np.float32)
            self.by_shape[leaf.shape] = drawn.astype(ml_dtypes.bfloat16)
        return self.by_shape[leaf.shape]


def _shapes(config: TargetConfig) -> Any:
    return jax.eval_shape(lambda: target.init(jax.random.key(0), config, jnp.bfloat16))


def _bytes(config: TargetConfig) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(_shapes(config)))


def load_and_measure(folder: Path, dtype: str) -> dict[str, Any]:
    """Loads a target; bytes of its arrays, of the peak above them and of its largest tensor.

    What the process holds before (the interpreter, XLA, one compiled check) is not counted.
    """
    jnp.isfinite(jnp.ones((8, 8), dtype)).all().block_until_ready()
    before, started = peak_bytes(), time.perf_counter()
    packs = cpu_layout.wanted(jnp.dtype(dtype))
    params = jax.block_until_ready(
        hf_weights.load_target(folder, jnp.dtype(dtype), in_blocks=packs)[1]
    )
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(params)]
    above, largest = peak_bytes() - before - sum(sizes), params.embedding.nbytes
    return {
        "arrays_bytes": sum(sizes),
        "largest_bytes": largest,
        "above_bytes": above,
        "times_largest": above / largest,
        "seconds": time.perf_counter() - started,
    }


def peak_bytes() -> int:
    """The most resident memory that this program had, since it was started.

    Not `ru_maxrss`, which also remembers the process that a program was started from.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise UserError("This system does not tell a process's peak memory; measure on Linux.")


if __name__ == "__main__":
    print(json.dumps(load_and_measure(Path(sys.argv[1]), sys.argv[2])))
