"""A loaded pair: weights, settings, dtype and stop tokens of one target and its draft."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
from flax import struct

from ltd_jax import prompts
from ltd_jax.config import CycleConfig, PairConfig
from ltd_jax.errors import UserError
from ltd_jax.models import safetensor_files, weights
from ltd_jax.models.draft import DraftParams
from ltd_jax.models.target import TargetParams

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


def load(
    cycle: CycleConfig,
    target_folder: Path = ASSETS / "target",
    draft_folder: Path = ASSETS / "draft",
    dtype: jnp.dtype = jnp.float32,
) -> Pair:
    """Loads a pair from two Hugging Face style folders; the default is the embedded one.

    Raises:
      UserError: a file is missing or damaged, or the two are not a pair.
    """
    target_config, target_params = weights.load_target(target_folder, dtype)
    draft_config, draft_params = weights.load_draft(
        draft_folder, target_config, target_params.embedding, dtype
    )
    try:
        config = PairConfig(target_config, draft_config, cycle)
    except ValueError as error:
        raise UserError(f"{target_folder} and {draft_folder}: {error}") from error
    return Pair(
        config=config,
        params=PairParams(target_params, draft_params),
        dtype=dtype,
        stop_tokens=prompts.stop_tokens(target_folder),
        fingerprint=safetensor_files.fingerprint(target_folder, draft_folder),
        folder=target_folder,
    )
