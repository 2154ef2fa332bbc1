"""Inspection of a pair's folders: their settings, the memory they need, every doubt about them.

Sizes come from the tables of weights.py, so a pair can be looked at that does not fit this machine.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ltd_jax import files
from ltd_jax import text as texts
from ltd_jax.config import AnyDraftConfig, CycleConfig, PairConfig, TargetConfig
from ltd_jax.models import sharding
from ltd_jax.models.hf import weights
from ltd_jax.models.pair import with_features

INT_BYTES = 4
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


@dataclasses.dataclass(frozen=True)
class PairSettings:
    """What two folders say without their weights being loaded."""

    config: PairConfig
    remarks: tuple[str, ...]  # how they were read, sentences for a person
    doubts: tuple[str, ...]  # what was overruled or read one of two ways, likewise


def read_pair_config(
    target_folder: Path,
    draft_folder: Path,
    cycle: CycleConfig,
    feature_layers: tuple[int, ...] | None,
    rope_theta: float | None,
) -> PairSettings:
    """The pair's settings, from the two config.json and the headers of all tensors.

    Raises:
      UserError: a field is missing or wrong, a tensor is missing, of another shape or not known, or
        the two are not a pair.
    """
    target = weights.read_target_settings(target_folder)
    draft = weights.read_draft_settings(draft_folder, target.config, rope_theta)
    with files.user_errors(f"{target_folder} and {draft_folder}"):
        config = with_features(target.config, draft.feature_layers, feature_layers)
        pair = PairConfig(config, draft.config, cycle)
    return PairSettings(pair, draft.remarks, (*target.doubts, *draft.doubts))


def estimate_memory(pair: PairConfig, dtype: jnp.dtype, devices: int = 1) -> Memory:
    """The memory of weights and caches of one sequence, by their shapes."""
    target, draft, cycle = pair.target, pair.draft, pair.cycle
    itemsize = jnp.dtype(dtype).itemsize
    has_embedding = draft.hidden_size != target.hidden_size  # else the draft takes the target's
    parts = lambda count: sharding.parts(devices, target.kv_head_count, count)

    def weight_bytes(table: Any) -> int:
        tensors = jax.tree.leaves(table)
        return sum(math.prod(one.shape) // parts(one.part_count) * itemsize for one in tensors)

    def cache_bytes(config: TargetConfig | AnyDraftConfig) -> int:
        row = config.kv_head_count * config.head_dim * itemsize // parts(config.kv_head_count)
        return 2 * config.layer_count * cycle.cache_slots * row + INT_BYTES  # with the length

    return Memory(
        target=weight_bytes(weights.target_table(target)),
        draft=weight_bytes(weights.draft_table(draft, has_embedding))
        + draft.draft_vocab_size * INT_BYTES,  # `target_token`
        caches=cache_bytes(target) + cache_bytes(draft),
        device=files.device_bytes(),
    )


def tokenizer_doubts(target_folder: Path, draft_folder: Path, vocab_size: int) -> list[str]:
    """Sentences where the tokenizer has too many tokens, or files differ in ids or in ends.

    Also where the draft's folder has another tokenizer.
    """
    tokenizer = texts.load_tokenizer(target_folder)
    count = tokenizer.get_vocab_size(with_added_tokens=True)
    doubts = texts.stop_doubts(target_folder) + texts.id_doubts(target_folder, tokenizer)
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
    """A sentence where the acceptance on a probe text is low, with the likely causes."""
    if accepted >= LOW_ACCEPTANCE:
        return []
    return [
        f"Only {accepted:.2f} drafted tokens per cycle were accepted on a probe text; check "
        "`feature_layers` and `draft_rope_theta`, and that the draft belongs to this target."
    ]
