"""What two folders hold, what they need, and every doubt about them as a pair.

Sizes come from abstract shapes, so a pair can be looked at that does not fit this machine.
"""

import dataclasses
import functools
import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ltd_jax import text as texts
from ltd_jax.config import CycleConfig, GriffinConfig, PairConfig
from ltd_jax.files import UserError
from ltd_jax.models import draft, sharding, target
from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.hf.weights import BY_INPUTS, heads_of
from ltd_jax.models.pair import with_features

LOW_ACCEPTANCE = 0.2  # accepted tokens per cycle on the probe; trained drafts have 1 to 4


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each of the devices that a pair is split over."""

    target: int
    draft: int
    caches: int  # of one sequence
    device: int | None  # of one device; None = not known

    @property
    def needed(self) -> int:
        """All of it together."""
        return self.target + self.draft + self.caches


def read_pair_config(
    target_folder: Path,
    draft_folder: Path,
    cycle: CycleConfig,
    feature_layers: tuple[int, int, int] | None,
    rope_theta: float | None,
) -> tuple[PairConfig, tuple[str, ...]]:
    """The pair's settings and how they were read, from the two config.json and tensors' names.

    Raises:
      UserError: a field is missing or wrong, or the two are not a pair.
    """
    config = hf_config.target_config(target_folder)
    found = hf_weights.read_draft_settings(draft_folder, config, rope_theta)
    try:
        config = with_features(config, found.feature_layers, feature_layers)
        return PairConfig(config, found.config, cycle), found.remarks
    except ValueError as error:
        raise UserError(f"{target_folder} and {draft_folder}: {error}") from error


def estimate_memory(pair: PairConfig, dtype: jnp.dtype, devices: int = 1) -> Memory:
    """What weights and caches of one sequence need, by shape (split as in models/split.py)."""
    key = jax.random.key(0)
    weights = jax.eval_shape(lambda: target.init(key, pair.target, dtype))
    tokens = jax.ShapeDtypeStruct((pair.draft.draft_vocab_size,), jnp.int32)
    shape = (pair.draft.vocab_size, pair.draft.hidden_size)
    shares = weights.embedding.shape == shape  # the draft's embedding is the target's
    own = jax.eval_shape(
        lambda *given: draft.init(key, pair.draft, *given),
        jax.ShapeDtypeStruct(shape, dtype),
        tokens,
        weights.head,
    )
    if isinstance(pair.draft, GriffinConfig):
        own = own.replace(head=None)  # the target's
    slots = pair.cycle.target_slots, pair.cycle.draft_slots
    caches = jax.eval_shape(
        lambda: (
            target.empty_cache(pair.target, slots[0], dtype),
            draft.empty_cache(pair.draft, slots[1], dtype),
        )
    )
    held = functools.partial(_bytes, devices=devices, kv_heads=pair.target.kv_head_count)
    return Memory(
        target=held(weights, heads=heads_of(pair.target)),
        draft=held(own.replace(embedding=None) if shares else own, heads=heads_of(pair.draft)),
        caches=held(caches, heads={}),
        device=device_bytes(),
    )


def _bytes(tree: Any, devices: int, kv_heads: int, heads: dict[str, int]) -> int:
    """Of arrays: embeddings and vectors are copied, maps split by an axis, caches by heads.

    Args:
      kv_heads: of the target.
      heads: of maps, which are not cut.
    """
    total = 0
    for path, leaf in jax.tree.leaves_with_path(tree):
        name, rank = getattr(path[-1], "name", ""), len(leaf.shape)
        is_whole = rank < 2 or name == "embedding"
        axis = {2: 0 if name in BY_INPUTS else 1, 3: 0}.get(rank, 0)
        count = 1 if is_whole else heads.get(name, leaf.shape[axis])
        parts = sharding.parts(devices, kv_heads, count)
        total += math.prod(leaf.shape) * leaf.dtype.itemsize // parts
    return total


def device_bytes() -> int | None:
    """Memory of the first device; of a processor the machine's."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit")


def tokenizer_doubts(target_folder: Path, draft_folder: Path, vocab_size: int) -> list[str]:
    """What is wrong with the tokenizer, and whether the draft's folder has another one."""
    tokenizer = texts.load_tokenizer(target_folder)
    count = tokenizer.get_vocab_size(with_added_tokens=True)
    doubts = []
    if count > vocab_size:
        doubts.append(
            f"The tokenizer in {target_folder} has {count} tokens, the target {vocab_size}; "
            "some prompts cannot be read."
        )
    if (draft_folder / "tokenizer.json").exists():
        other = texts.load_tokenizer(draft_folder)
        if other.get_vocab() != tokenizer.get_vocab():
            doubts.append(
                f"{draft_folder} has another tokenizer than {target_folder}; the draft may have "
                "been trained for another target."
            )
    return doubts


def acceptance_doubts(accepted: float) -> list[str]:
    """What a low acceptance on the probe may come from."""
    if accepted >= LOW_ACCEPTANCE:
        return []
    return [
        f"Only {accepted:.2f} drafted tokens per cycle were accepted on a probe text; check "
        "--feature-layers and --draft-rope-theta, and that the draft belongs to this target."
    ]
