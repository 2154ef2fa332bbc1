"""A Griffin draft of random weights for a target: shows that everything runs, and nothing else."""

from pathlib import Path

import jax
import jax.numpy as jnp

from ltd_jax.config import GriffinConfig, TargetConfig
from ltd_jax.models import griffin
from ltd_jax.models.hf import weights
from ltd_jax.models.hf.config import target_config
from ltd_jax.models.hf.tensors import TensorFolder
from ltd_jax.models.hf.weights import Loader, target_table


def griffin_config(target: TargetConfig) -> GriffinConfig:
    """A Griffin draft of one of the target's layers."""
    return GriffinConfig(
        vocab_size=target.vocab_size,
        hidden_size=target.hidden_size,
        intermediate_size=target.intermediate_size,
        head_count=target.head_count,
        kv_head_count=target.kv_head_count,
        head_dim=target.head_dim,
        rms_norm_eps=target.rms_norm_eps,
        rope_theta=target.rope_theta,
        rope_scaling=target.rope_scaling,
    )


def write_griffin(folder: Path, target_folder: Path, seed: int = 0) -> None:
    """Writes the draft's folder.

    Raises:
      UserError: the target cannot be read, or the folder cannot be written.
    """
    target = target_config(target_folder)
    loader = Loader(TensorFolder(target_folder), jnp.dtype("float32"))
    embedding = loader.read(target_table(target).embedding)  # nothing else is needed
    config = griffin_config(target)
    params = griffin.init(jax.random.key(seed), config, embedding, None)
    weights.save_draft(folder, config, params, "float32")
