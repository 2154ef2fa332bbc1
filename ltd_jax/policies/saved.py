"""Trained policies on disk: actors beside what they were trained for.

A policy is only right for its pair and its device, so both are part of its identity: the weights'
fingerprint and the latency table's. Loading for another pair or table is refused.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from ltd_jax import checkpoint
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.errors import UserError
from ltd_jax.policies import networks
from ltd_jax.policies.networks import LearnedParams


def save(
    folder: Path,
    params: LearnedParams,
    config: CycleConfig,
    widths: PolicyConfig,
    provenance: dict[str, Any],
) -> None:
    """Writes the actors; provenance must hold "fingerprint" (weights) and "latency" (table)."""
    shapes = {"cycle": dataclasses.asdict(config), "policy": dataclasses.asdict(widths)}
    with checkpoint.manager(folder, keep=1) as checkpoints:
        step = (checkpoints.latest_step() or 0) + 1
        checkpoint.save(checkpoints, step, params, {**provenance, **shapes})


def load(
    folder: Path,
    config: CycleConfig,
    widths: PolicyConfig,
    *,
    fingerprint: str,
    latency: str,
) -> LearnedParams:
    """Reads the actors for a pair and a latency table, both named by their fingerprints.

    Raises:
      UserError: there are none, they are damaged, or they belong to another pair, table or shape.
    """
    if not folder.is_dir():
        raise UserError(f"There are no policies in {folder}; train them first.")
    abstract = jax.eval_shape(lambda: networks.init_learned(jax.random.key(0), config, widths))
    with checkpoint.manager(folder) as checkpoints:
        found = checkpoint.restore(checkpoints, abstract)
    if found is None:
        raise UserError(f"There are no policies in {folder}; train them first.")
    for name, here in (("fingerprint", fingerprint), ("latency", latency)):
        there = found.provenance.get(name)
        if there != here:
            what = {"fingerprint": "pair", "latency": "latency table"}[name]
            raise UserError(
                f"The policies in {folder} were trained for {what} {there}, not {here}; "
                "train them again for this one."
            )
    return found.state
