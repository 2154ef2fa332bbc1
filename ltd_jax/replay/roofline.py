"""Latency tables that are computed, not measured: what a device's data sheet allows (roofline).

A pass reads all its weights once and multiplies every row with them, so

    seconds = max(bytes / (BYTES_SHARE * bandwidth), operations / (OPERATIONS_SHARE * peak))
              + LAYER_SECONDS per layer

Weights and cache are bfloat16; the embedding is looked up, not read. A cycle is the sum of its
passes, as in Eq. 1. Good for trends between devices and for the shape of a table; it knows nothing
of a real kernel, and the provenance of what it makes says "modelled".
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig, DraftConfig, PolicyConfig, TargetConfig
from ltd_jax.models import draft as drafts
from ltd_jax.models import target as targets
from ltd_jax.policies import networks
from ltd_jax.replay.latency import LatencyTable, additive

BYTES_SHARE = 0.8  # of the data sheet's bandwidth that a good matrix-vector pass reaches
OPERATIONS_SHARE = 0.5  # of the peak that a matrix with few rows reaches
LAYER_SECONDS = 1e-5  # between the kernels of a layer, whatever their size
CONTEXTS = (256, 1024, 4096)


class Accelerator(NamedTuple):
    """One device, from its maker's data sheet."""

    name: str
    bytes_per_second: float
    operations_per_second: float  # bfloat16, dense


ACCELERATORS = {
    "a100": Accelerator("NVIDIA A100 80GB", 2.039e12, 312e12),
    "h100": Accelerator("NVIDIA H100 SXM", 3.35e12, 989e12),
    "h200": Accelerator("NVIDIA H200", 4.8e12, 989e12),
    "tpu-v5p": Accelerator("TPU v5p", 2.765e12, 459e12),
    "tpu-v6e": Accelerator("TPU v6e", 1.64e12, 918e12),
}


class Work(NamedTuple):
    """The work of one pass."""

    bytes: float
    operations: float
    layers: int

    def seconds(self, device: Accelerator) -> float:
        """Seconds of the pass on a device."""
        read = self.bytes / (BYTES_SHARE * device.bytes_per_second)
        multiplied = self.operations / (OPERATIONS_SHARE * device.operations_per_second)
        return max(read, multiplied) + self.layers * LAYER_SECONDS


def table(
    device: Accelerator,
    target: TargetConfig,
    draft: DraftConfig,
    cycle: CycleConfig,
    widths: PolicyConfig,
    model: str,
) -> LatencyTable:
    """The modelled table of a pair for the levels and sizes of a cycle.

    Args:
      model: the target's name, for the provenance.
    """
    levels = range(1, cycle.max_levels + 1)
    depth_decision, size_decision = decisions(cycle, widths)
    passes_LD = [
        [draft_pass(draft, cycle, level, n).seconds(device) for level in levels] for n in CONTEXTS
    ]
    verified_LV = [
        [target_pass(target, size + 1, n).seconds(device) for size in cycle.sizes] for n in CONTEXTS
    ]
    return additive(
        contexts=CONTEXTS,
        sizes=cycle.sizes,
        draft_seconds=np.cumsum(passes_LD, axis=1),
        verify_seconds=np.asarray(verified_LV),
        plain_seconds=np.asarray([target_pass(target, 1, n).seconds(device) for n in CONTEXTS]),
        decision_seconds=(depth_decision.seconds(device), size_decision.seconds(device)),
        provenance={
            "kind": "modelled",
            "device": f"{device.name} (modelled)",
            "dtype": "bfloat16",
            "model": model,
            "source": (
                f"not measured: computed from {device.bytes_per_second / 1e12:g} TB/s at "
                f"{BYTES_SHARE:.0%}, {device.operations_per_second / 1e12:g} TFLOP/s at "
                f"{OPERATIONS_SHARE:.0%} and {LAYER_SECONDS * 1e6:g} us per layer"
            ),
        },
    )


def target_pass(config: TargetConfig, rows: int, context: int) -> Work:
    """The target over some rows after a context of tokens."""
    weights = _target_weights(config)
    cached = 2 * config.layer_count * config.kv_head_count * config.head_dim * context
    mixed = 2 * config.layer_count * config.head_count * config.head_dim * context
    return Work(2.0 * (weights + cached), 2.0 * rows * (weights + mixed), config.layer_count)


def draft_pass(config: DraftConfig, cycle: CycleConfig, level: int, context: int) -> Work:
    """The draft's pass of one level; the first one also fuses the target's features."""
    weights = _draft_weights(config, fuse=level == 1)
    cached = 2 * config.layer_count * config.kv_head_count * config.head_dim * context
    mixed = 2 * config.layer_count * config.head_count * config.head_dim * context
    rows = cycle.path_length if level == 1 else cycle.beam_width
    return Work(2.0 * (weights + cached), 2.0 * rows * (weights + mixed), config.layer_count)


@functools.cache
def _target_weights(config: TargetConfig) -> int:
    params = jax.eval_shape(lambda: targets.init(jax.random.key(0), config, jnp.bfloat16))
    return count(params.layers) + count(params.embedding if params.head is None else params.head)


@functools.cache
def _draft_weights(config: DraftConfig, fuse: bool) -> int:
    params = jax.eval_shape(
        lambda embedding, tokens: drafts.init(jax.random.key(0), config, embedding, tokens),
        jax.ShapeDtypeStruct((config.vocab_size, config.hidden_size), jnp.bfloat16),
        jax.ShapeDtypeStruct((config.draft_vocab_size,), jnp.int32),
    )
    read = params.replace(embedding=None, target_token=None)
    return count(read if fuse else read.replace(fuse=None))


def decisions(cycle: CycleConfig, widths: PolicyConfig) -> tuple[Work, Work]:
    """One decision of the depth policy and one of the size policy; their weights are float32."""
    policy = jax.eval_shape(lambda: networks.init(jax.random.key(0), cycle, widths))
    work = lambda actor: Work(4.0 * count(actor), 2.0 * count(actor), 1)
    return work(policy.depth), work(policy.size)


def count(tree: Any) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
