"""Methods by their names on the command line.

autoregressive | constant:levels=6,size=24 | eagle3 | ltd
"""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from ltd_jax import presets, provenance
from ltd_jax.config import CycleConfig
from ltd_jax.cycle.pair import ASSETS, Pair
from ltd_jax.decoding.benchmark import Method
from ltd_jax.errors import UserError
from ltd_jax.policies import controller, networks, saved
from ltd_jax.policies.saved import SavedPolicies

NAMES = "autoregressive, constant:levels=6,size=24, eagle3 or ltd"
CONSTANT = re.compile(r"constant:levels=(\d+),size=(\d+)")


class Named(NamedTuple):
    """What a name asks for, before a pair is loaded."""

    name: str
    levels: int = 0  # of a constant setting
    size: int = 0
    policies: SavedPolicies | None = None


def parse(name: str, target: Path, policies: Path | None) -> Named:
    """Reads a controller's name.

    Args:
      target: the target's folder; the embedded one has its own EAGLE-3 constants.
      policies: the folder of trained policies, for `ltd`.

    Raises:
      UserError: the name is unknown, or there are no policies.
    """
    if name == "autoregressive":
        return Named(name)
    if name == "eagle3":
        embedded = target == ASSETS / "target"
        own, paper = (presets.EAGLE3_LEVELS, presets.EAGLE3_SIZE), presets.PAPER_EAGLE3
        return Named(name, *(own if embedded else paper))
    if name == "ltd":
        if policies is None:
            raise UserError("The controller ltd needs trained policies; name them by --policies.")
        return Named(name, policies=saved.load(policies))
    found = CONSTANT.fullmatch(name)
    if found is None or int(found[1]) < 1:
        raise UserError(f"There is no controller {name!r}; choose {NAMES}.")
    return Named(name, int(found[1]), int(found[2]))


def cycle_for(named: Named, target: Path, context: int | None) -> CycleConfig:
    """The smallest cycle that serves a method: only what it can choose is compiled.

    Raises:
      UserError: the policies were trained for another context, or the setting is impossible.
    """
    if named.policies is not None:
        own = named.policies.cycle
        if context not in (None, own.context):
            raise UserError(
                f"The policies in {named.policies.folder} see the context length as a share of "
                f"{own.context}; leave out --context or train them for {context}."
            )
        return own
    base = presets.EMBEDDED_CYCLE if target == ASSETS / "target" else presets.PAPER_CYCLE
    try:
        return dataclasses.replace(
            base,
            max_levels=max(named.levels, 1),
            sizes=tuple(sorted({0, named.size})),
            context=base.context if context is None else context,
        )
    except ValueError as error:
        raise UserError(f"{named.name}: {error}") from error


def method(named: Named, pair: Pair, other_device: bool = False) -> Method:
    """The method, for a pair that was loaded with `cycle_for`.

    Raises:
      UserError: the policies belong to another pair, or to another device unless `other_device`.
    """
    if named.name == "autoregressive":
        return Method(named.name)
    policies, cycle = named.policies, pair.config.cycle
    if policies is None:
        setting = controller.constant_params(named.levels, named.size, cycle)
        return Method(named.name, controller.constant(), setting)
    dtype = jnp.dtype(pair.dtype).name
    saved.check(policies, pair.fingerprint, provenance.device_name(), other_device, dtype)
    return Method(named.name, networks.learned(cycle, policies.widths), policies.params)
