"""A loaded pair: weights, settings, dtype and stop tokens of one target and its draft."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax import prompts
from ltd_jax.config import CycleConfig, PairConfig, TargetConfig
from ltd_jax.errors import UserError
from ltd_jax.model_config import told
from ltd_jax.models import blocks, hub, tensor_files, weights
from ltd_jax.models import draft_folder as draft_folder_reader
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.target import TargetParams
from ltd_jax.sampling import SamplingConfig

ASSETS = Path(__file__).parents[1] / "assets"


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
    folder: Path = ASSETS / "target"  # the target's, with its tokenizer
    names: tuple[str, str] = ("random target", "random draft")  # for reports
    remarks: tuple[str, ...] = ()  # how the folders were read, sentences for a person
    seed: int = 0  # of all random numbers that sampling draws

    @property
    def stops(self) -> jax.Array:
        """The stop tokens as the compiled loops take them, i32 [S]."""
        return jnp.asarray(self.stop_tokens, jnp.int32)

    def sampled(self, sampling: SamplingConfig, seed: int = 0) -> "Pair":
        """The same pair, decoding with other sampling settings."""
        config = dataclasses.replace(self.config, sampling=sampling)
        return dataclasses.replace(self, config=config, seed=seed)


def load(
    cycle: CycleConfig,
    target_folder: Path = ASSETS / "target",
    draft_folder: Path = ASSETS / "draft",
    dtype: jnp.dtype = jnp.float32,
    feature_layers: tuple[int, int, int] | None = None,
    draft_rope_theta: float | None = None,
    in_blocks: bool | None = None,
) -> Pair:
    """Loads a pair from two Hugging Face style folders; the default is the embedded one.

    Args:
      feature_layers: the layers before which features are taken; None = as the draft says.
      draft_rope_theta: the draft's rotary base; None = what its config.json says.
      in_blocks: weights in the layout of models.blocks; None = where that is fast.

    Raises:
      UserError: a file is missing or damaged, or the two are not a pair.
    """
    packs = blocks.wanted(dtype) if in_blocks is None else in_blocks
    target_config, target_params = weights.load_target(target_folder, dtype, in_blocks=packs)
    embedding, theta = target_params.embedding, draft_rope_theta
    draft = draft_folder_reader.load_draft(
        draft_folder, target_config, embedding, dtype, theta, head=target_params.head
    )
    try:
        seen = with_features(target_config, draft.feature_layers, feature_layers)
        config = PairConfig(seen, draft.config, cycle)
    except ValueError as error:
        raise UserError(f"{target_folder} and {draft_folder}: {error}") from error
    return Pair(
        config=config,
        params=PairParams(target_params, _laid_out(draft.params, packs)),
        dtype=dtype,
        stop_tokens=prompts.stop_tokens(target_folder),
        fingerprint=_identity(target_folder, draft_folder, config),
        folder=target_folder,
        names=(_name(target_folder), _name(draft_folder)),
        remarks=draft.remarks,
    )


def _identity(target_folder: Path, draft_folder: Path, config: PairConfig) -> str:
    """12 hex digits that name the weights, how they are read, and what ends a text."""
    stops = sorted(prompts.stop_tokens(target_folder))
    read_as = f"{told(config.target)} {told(config.draft)} {stops}"
    return tensor_files.fingerprint(target_folder, draft_folder, read_as=read_as)


def _laid_out(params: DraftParams, packs: bool) -> DraftParams:
    return blocks.block_draft(params) if packs else params


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
    return f"embedded {folder.name}" if folder.parent == ASSETS else hub.name_of(folder)
