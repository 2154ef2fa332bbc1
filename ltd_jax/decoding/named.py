"""Methods by their names on the command line.

    autoregressive | constant:levels=6,size=24 | eagle3 | ltd | sb3:size=FILE,depth=FILE,length=true
    ddd | svip | gammatune | gammatune+ | disco | specdec++ | c2t | c2t-as-run | tiers | cost-aware

The second line's numbers may be given, as in ddd:threshold=-0.6,size=24 (`decoding.rivals`).
"""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from ltd_jax import presets
from ltd_jax.config import CycleConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.decoding import rivals
from ltd_jax.decoding.benchmark import Method
from ltd_jax.decoding.rivals import Files, Rival
from ltd_jax.errors import UserError
from ltd_jax.policies import catalogue, controller, networks, saved, sb3
from ltd_jax.policies.saved import SavedPolicies

OWN = ("autoregressive", "constant:levels=6,size=24", "eagle3", "ltd", "sb3:size=FILE,depth=FILE")
NAMES = ", ".join((*OWN, *(family.name for family in catalogue.METHODS)))
CONSTANT = re.compile(r"constant:levels=(\d+),size=(\d+)")


_NO_FILES = Files()


class Named(NamedTuple):
    """What a name asks for, before a pair is loaded."""

    name: str
    levels: int = 0  # of a constant setting
    size: int = 0
    policies: SavedPolicies | None = None
    published: tuple[sb3.Setting, sb3.Params] | None = None
    rival: Rival | None = None  # one of the compared methods


def parse(name: str, target: Path, policies: Path | None, files: Files = _NO_FILES) -> Named:
    """Reads a controller's name.

    Args:
      target: the target's folder; the embedded one has its own EAGLE-3 constants.
      policies: the folder of trained policies, for `ltd`.
      files: what the compared methods need.

    Raises:
      UserError: the name is unknown, what the method needs is not there, or what is there is
        nothing that the method reads.
    """
    _must_be_read(name, policies, files)
    if name == "autoregressive":
        return Named(name)
    if name == "eagle3":
        return Named(name, *presets.of(target).eagle3)
    if name == "ltd":
        if policies is None:
            raise UserError("The controller ltd needs trained policies; name them by --policies.")
        return Named(name, policies=saved.load(policies))
    if name.startswith("sb3:"):
        return Named(name, published=_published(name))
    rival = rivals.parse(name, presets.of(target).cycle, files)
    if rival is not None:
        return Named(name, rival=rival)
    found = CONSTANT.fullmatch(name)
    if found is None or int(found[1]) < 1:
        raise UserError(f"There is no controller {name!r}; choose {NAMES}.")
    return Named(name, int(found[1]), int(found[2]))


def _must_be_read(name: str, policies: Path | None, files: Files) -> None:
    """Raises UserError for a file that was meant for another method."""
    word = name.partition(":")[0]
    family = catalogue.find(word)
    unread = {
        "--policies": policies is not None and name != "ltd",
        "--classifiers": files.classifiers is not None and family is None,
        "--latency": files.latency is not None and (family is None or not family.needs_costs),
    }
    for flag in (flag for flag, is_unread in unread.items() if is_unread):
        raise UserError(
            f"The controller {word} does not read {flag}; leave it out or choose another one."
        )


def cycle_for(
    named: Named, target: Path, context: int | None, base: CycleConfig | None = None
) -> CycleConfig:
    """The smallest cycle that serves a method: only what it can choose is compiled.

    Args:
      base: what the method does not say, such as the beam width; None = the target's preset.

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
    if named.rival is not None:
        base = named.rival.cycle
    base = base or presets.of(target).cycle
    try:
        if named.published is not None:
            base = sb3.smallest_cycle(named.published[0], base)
        elif named.rival is None:
            sizes = tuple(sorted({0, named.size}))
            base = dataclasses.replace(base, max_levels=max(named.levels, 1), sizes=sizes)
        return base if context is None else dataclasses.replace(base, context=context)
    except ValueError as error:
        raise UserError(f"{named.name}: {error}") from error


def method(named: Named, pair: Pair, other_device: bool = False) -> Method:
    """The method, for a pair that was loaded with `cycle_for`.

    Raises:
      UserError: the policies or the latency table belong to another pair, or to another device
        unless `other_device`.
    """
    if named.name == "autoregressive":
        return Method(named.name)
    if named.rival is not None:
        return rivals.method(named.name, named.rival, pair, other_device)
    policies, cycle = named.policies, pair.config.cycle
    if named.published is not None:
        choice, params = named.published
        return Method(named.name, sb3.controller(cycle, choice), params)
    if policies is None:
        setting = controller.constant_params(named.levels, named.size, cycle)
        return Method(named.name, controller.constant(), setting)
    dtype = jnp.dtype(pair.dtype).name
    saved.check(policies, pair.fingerprint, pair.device, other_device, dtype)
    return Method(named.name, networks.learned(cycle, policies.widths), policies.params)


def _published(name: str) -> tuple[sb3.Setting, sb3.Params]:
    """The policies that `sb3:size=FILE,depth=FILE,length=true` names; all parts but one are free.

    `length=true` shows the depth policy the true context length, as in its training; by default it
    sees the constant that the published decoding code shows it.
    """
    parts = [part.partition("=") for part in name.removeprefix("sb3:").split(",")]
    given = {key: value for key, _, value in parts}
    files = {key: Path(value) for key, value in given.items() if key in ("size", "depth")}
    length = given.get("length", "constant")
    known = set(given) <= {"size", "depth", "length"} and length in ("true", "constant")
    if len(given) != len(parts) or not files or not known:
        raise UserError(f"{name!r} is no controller; write sb3:size=FILE,depth=FILE,length=true.")
    return sb3.load(files.get("depth"), files.get("size"), constant_length=length == "constant")
