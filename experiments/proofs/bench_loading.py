"""How much host memory loading needs beside the weights: a random folder of a gigabyte.

    python -m experiments.proofs.bench_loading --out experiments/results/loading

Writes a target of random weights in bf16 (sharded, in a temporary folder, deleted again), loads
it in a process of its own, and compares that process's peak of resident memory with what it holds
in the end: the peak is a process's and never falls. Expected: it lies less than 1.5 times the
largest tensor above the final arrays; on a CPU, which takes the host's buffers over as they are,
0.3 times. About a minute on 2 cores; needs as much disk and memory as `--gibibytes`. Writes
OUT/loading.json.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tyro

from ltd_jax import files, flags
from ltd_jax.config import TargetConfig
from ltd_jax.files import UserError
from ltd_jax.models import cpu_layout, target
from ltd_jax.models.hf import weights as hf_weights

MOST = 1.5  # times the largest tensor
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


@dataclasses.dataclass(frozen=True)
class Config:
    """What to load."""

    out: Path = Path("experiments/results/loading")
    gibibytes: float = 1.1  # of the folder
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"  # of the loaded arrays
    child: Path | None = None  # only load this folder: the process that is measured


def main() -> None:
    config = tyro.cli(Config)
    if config.child is not None:
        print(json.dumps(load_and_measure(config.child, config.dtype)))
        return
    flags.writable(config.out)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "target"
        started = time.perf_counter()
        written = write_target(folder, config.gibibytes * 2**30)
        flags.say(f"wrote {written / 2**30:.2f} GiB in {time.perf_counter() - started:.0f} s")
        measured = measure(folder, config.dtype)
    measured |= {"folder_bytes": written, "environment": files.environment(config.dtype)}
    files.write_json(config.out / "loading.json", measured)
    times = measured["times_largest"]
    flags.say(
        f"loaded {measured['arrays_bytes'] / 2**30:.2f} GiB in {measured['seconds']:.1f} s; peak "
        f"{measured['above_bytes'] / 2**20:.0f} MiB above it, {times:.2f} times the largest tensor "
        f"({'within' if times <= MOST else 'above'} {MOST})"
    )


def write_target(folder: Path, wanted_bytes: float) -> int:
    """Writes a bf16 target of at least `wanted_bytes` in shards; returns the bytes written.

    One random tensor is drawn for every shape, so that writing needs little memory and time.
    """
    base, one_more = (_bytes(dataclasses.replace(SHAPE, layer_count=count)) for count in (7, 8))
    layers = 7 + max(0, -int((base - wanted_bytes) // (one_more - base)))
    config = dataclasses.replace(SHAPE, layer_count=layers, feature_layers=(0, 0, 0))
    random, by_shape = np.random.default_rng(0), {}

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.shape not in by_shape:
            drawn = random.standard_normal(leaf.shape, np.float32)
            by_shape[leaf.shape] = drawn.astype(ml_dtypes.bfloat16)
        return by_shape[leaf.shape]

    params = jax.tree.map(draw, _shapes(config))
    hf_weights.save_target(folder, config, params, ml_dtypes.bfloat16, shard_bytes=SHARD_BYTES)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _shapes(config: TargetConfig) -> Any:
    return jax.eval_shape(lambda: target.init(jax.random.key(0), config, jnp.bfloat16))


def _bytes(config: TargetConfig) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(_shapes(config)))


def measure(folder: Path, dtype: str) -> dict[str, Any]:
    """`load_and_measure` in another process."""
    module = "experiments.proofs.bench_loading"
    child = [sys.executable, "-m", module, "--child", str(folder), "--dtype", dtype]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def load_and_measure(folder: Path, dtype: str) -> dict[str, Any]:
    """Loads a target; bytes of its arrays, of the peak above them and of its largest tensor.

    What the process holds before (the interpreter, XLA, one compiled check) is not counted.
    """
    jnp.isfinite(jnp.ones((8, 8), dtype)).all().block_until_ready()
    before, started = peak_bytes(), time.perf_counter()
    packed = cpu_layout.is_faster(jnp.dtype(dtype))
    _, params = hf_weights.load_target(folder, jnp.dtype(dtype), packed=packed)
    jax.block_until_ready(params)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    above, largest = peak_bytes() - before - total, params.embedding.nbytes
    return {
        "arrays_bytes": total,
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
    flags.run(main, resumes=False)
