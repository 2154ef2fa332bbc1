"""A Griffin draft of random weights for a target: shows that everything runs, and nothing else."""

import dataclasses
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
    shared = {field.name for field in dataclasses.fields(GriffinConfig)} - {"attention_bias"}
    return GriffinConfig(**{name: getattr(target, name) for name in shared})


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
