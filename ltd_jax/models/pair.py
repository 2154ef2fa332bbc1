"""A loaded pair: weights, settings, dtype and stop tokens of one target and its draft."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax import files
from ltd_jax import text as texts
from ltd_jax.config import CycleConfig, PairConfig, SamplingConfig, TargetConfig, non_defaults
from ltd_jax.files import UserError
from ltd_jax.models import cpu_layout, sharding
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.hf import hub
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.target import TargetParams


@struct.dataclass
class PairParams:
    """Weights of a pair."""

    target: TargetParams
    draft: DraftParams


@dataclasses.dataclass(frozen=True)
class Pair:
    """What every decoding call needs."""

    config: PairConfig
    params: PairParams
    dtype: jnp.dtype
    stop_tokens: tuple[int, ...] = ()
    fingerprint: str = "unsaved"  # names the weights in everything recorded from them
    folder: Path = files.ASSETS / "target"  # the target's, with its tokenizer
    names: tuple[str, str] = ("random target", "random draft")  # for reports
    remarks: tuple[str, ...] = ()  # how the folders were read, sentences for a person
    seed: int = 0  # of all random numbers that sampling draws

    @property
    def stops(self) -> jax.Array:
        """The stop tokens as the compiled loops take them, i32 [S]."""
        return jnp.asarray(self.stop_tokens, jnp.int32)

    @property
    def device(self) -> str:
        """What it runs on, as all that is timed here names it."""
        return files.device_name(self.config.devices)

    @property
    def environment(self) -> dict[str, Any]:
        """Where a number that this pair gives comes from (provenance.py)."""
        return files.environment(jnp.dtype(self.dtype).name, self.config.devices)

    def put(self, tree: Any) -> Any:
        """Arrays that are committed to no other device, where the pair's weights are."""
        return sharding.shard(tree, self.config)

    def sampled(self, sampling: SamplingConfig, seed: int = 0) -> "Pair":
        """The same pair, decoding with other sampling settings."""
        config = dataclasses.replace(self.config, sampling=sampling)
        return dataclasses.replace(self, config=config, seed=seed)


def load(
    cycle: CycleConfig,
    target_folder: Path = files.ASSETS / "target",
    draft_folder: Path = files.ASSETS / "draft",
    dtype: jnp.dtype = jnp.float32,
    feature_layers: tuple[int, int, int] | None = None,
    draft_rope_theta: float | None = None,
    in_blocks: bool | None = None,
    devices: int = 1,
) -> Pair:
    """Loads a pair from two Hugging Face style folders; the default is the embedded one.

    Args:
      feature_layers: the layers before which features are taken; None = as the draft says.
      draft_rope_theta: the draft's rotary base; None = what its config.json says.
      in_blocks: weights in the layout of models.blocks; None = where that is fast.
      devices: of this host, to split weights and caches over (models/split.py).

    Raises:
      UserError: a file is missing or damaged, the two are not a pair, or there are fewer devices.
    """
    packs = cpu_layout.wanted(dtype) if in_blocks is None else in_blocks
    target, found = hf_weights.load_target(target_folder, dtype, devices, packs)
    asked = (target, found.embedding, dtype, draft_rope_theta, devices, found.head)
    draft = hf_weights.load_draft(draft_folder, *asked)
    try:
        seen = with_features(target, draft.feature_layers, feature_layers)
        config = PairConfig(seen, draft.config, cycle, devices=devices)
    except ValueError as error:
        raise UserError(f"{target_folder} and {draft_folder}: {error}") from error
    return Pair(
        config=config,
        params=PairParams(found, cpu_layout.block_draft(draft.params) if packs else draft.params),
        dtype=dtype,
        stop_tokens=texts.stop_tokens(target_folder),
        fingerprint=_identity(target_folder, draft_folder, config),
        folder=target_folder,
        names=(_name(target_folder), _name(draft_folder)),
        remarks=(*draft.remarks, *sharding.uneven(config)),
    )


def _identity(target_folder: Path, draft_folder: Path, config: PairConfig) -> str:
    """12 hex digits that name the weights, how they are read, and what ends a text."""
    stops = sorted(texts.stop_tokens(target_folder))
    read_as = f"{non_defaults(config.target)} {non_defaults(config.draft)} {stops}"
    return hf_tensors.fingerprint(target_folder, draft_folder, read_as=read_as)


def with_features(
    target: TargetConfig, named: tuple[int, ...] | None, asked: tuple[int, int, int] | None
) -> TargetConfig:
    """The target that takes features where it is asked to, or where the draft names.

    Args:
      named: the draft's; () = the last norm's output, None = the default for as many layers.

    Raises:
      ValueError: there are no such layers.
    """
    own = (0, 0, 0) if named is None else named
    return dataclasses.replace(target, feature_layers=asked or own)


def check_known(pair: Pair, token_T: np.ndarray) -> None:
    """Raises UserError where a prompt has tokens that the target does not know."""
    known = pair.config.target.vocab_size
    if token_T.max() >= known:
        raise UserError(
            f"The tokenizer in {pair.folder} gives token {token_T.max()} but the target knows "
            f"{known} tokens; put the tokenizer.json there that belongs to these weights."
        )


def _name(folder: Path) -> str:
    """What reports call a folder: without the machine's paths."""
    return f"embedded {folder.name}" if folder.parent == files.ASSETS else hub.name_of(folder)
