"""How much host memory loading needs beside the weights: a synthetic folder of a gigabyte.

    python -m experiments.proofs.bench_loading --out experiments/results/loading

Writes a target of random weights in bf16 (sharded, in a temporary folder, deleted again), loads
it in a process of its own, and compares that process's peak of resident memory with what it holds
in the end. Expected: the peak lies less than 1.5 times the largest tensor above the final arrays;
on a processor, which takes the host's buffers over as they are, 0.3 times.
About a minute on 2 cores; needs as much disk and memory as `--gibibytes`. Writes OUT/loading.json.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments import command
from experiments.proofs import synthetic
from ltd_jax import files

MOST = 1.5  # times the largest tensor


@dataclasses.dataclass(frozen=True)
class Config:
    """What to load."""

    out: Path = Path("experiments/results/loading")
    gibibytes: float = 1.1  # of the folder
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"  # of the loaded arrays


def main() -> None:
    config = tyro.cli(Config)
    command.writable(config.out)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "target"
        started = time.perf_counter()
        written = synthetic.write_target(folder, config.gibibytes * 2**30)
        command.say(f"wrote {written / 2**30:.2f} GiB in {time.perf_counter() - started:.0f} s")
        found = measure(folder, config.dtype)
    found |= {"folder_bytes": written, "environment": files.environment(config.dtype)}
    (config.out / "loading.json").write_text(json.dumps(found, indent=1) + "\n")
    command.say(
        f"loaded {found['arrays_bytes'] / 2**30:.2f} GiB in {found['seconds']:.1f} s; peak "
        f"{found['above_bytes'] / 2**20:.0f} MiB above it, {found['times_largest']:.2f} times the "
        f"largest tensor ({'within' if found['times_largest'] <= MOST else 'above'} {MOST})"
    )


def measure(folder: Path, dtype: str) -> dict[str, Any]:
    """Loads a folder in another process: bytes of its arrays, of the peak above them, seconds."""
    child = [sys.executable, "-m", "experiments.proofs.synthetic", str(folder), dtype]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    command.run(main, resumes=False)
