"""The compared methods of `policies.catalogue`, as names and numbers ask for them.

    ddd:threshold=-0.6,size=24      tiers:levels=1/2/4,sizes=1/3/8      cost-aware:speedup=2

Numbers that are not given are the published ones.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from ltd_jax import provenance
from ltd_jax.config import CycleConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.decoding.benchmark import Method
from ltd_jax.errors import UserError
from ltd_jax.policies import catalogue, saved_heads
from ltd_jax.policies.catalogue import Family
from ltd_jax.policies.saved_heads import SavedHeads
from ltd_jax.policies.settings import Costs, Parts, Setting
from ltd_jax.provenance import Place
from ltd_jax.replay import shipped
from ltd_jax.replay.latency import LatencyTable


class Files(NamedTuple):
    """What some methods need."""

    classifiers: Path | None = None  # folder of trained classifiers and the draft's calibration
    latency: Path | None = None  # a latency table


@dataclasses.dataclass(frozen=True, eq=False)
class Rival:
    """One method with all its numbers, before a pair is loaded."""

    family: Family
    setting: Setting
    cycle: CycleConfig  # the smallest one that serves it
    heads: SavedHeads | None
    table: LatencyTable | None


def parse(name: str, base: CycleConfig, files: Files) -> Rival | None:
    """Reads a method's name; None where there is no such method.

    Args:
      base: the cycle of a pair for which nothing was trained or measured.

    Raises:
      UserError: a number is unknown or impossible, or a file that the method needs is not named.
    """
    word, _, numbers = name.partition(":")
    family = catalogue.find(word)
    if family is None:
        return None
    heads = None if files.classifiers is None else saved_heads.load(files.classifiers)
    if family.needs_costs and files.latency is None:
        raise UserError(f"The controller {word} needs this device's latencies; name --latency.")
    if family.head is not None and (heads is None or family.head not in (heads.parts.heads or {})):
        raise UserError(
            f"The controller {word} needs its trained classifier; name its folder by --classifiers."
        )
    own = base if heads is None else saved_heads.cycle_of(heads)
    table = None
    if family.needs_costs:
        own, table = _with_table(name, own, shipped.find(str(files.latency)))
    setting = catalogue.setting_of(family, own, _numbers(name, numbers))
    return Rival(family, setting, _cycle(name, family, setting, own), heads, table)


def _with_table(
    name: str, own: CycleConfig, table: LatencyTable
) -> tuple[CycleConfig, LatencyTable]:
    """The levels and sizes that a pair's own table has, or another one fitted to the cycle."""
    if "fingerprint" not in table.provenance:
        return own, shipped.fit(table, own)
    try:
        return dataclasses.replace(own, max_levels=table.max_levels, sizes=table.sizes), table
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _numbers(name: str, text: str) -> Setting:
    """key=1,key=2/3 as numbers."""
    found: Setting = {}
    for part in filter(None, text.split(",")):
        key, _, values = part.partition("=")
        if key in found:
            raise UserError(f"{name!r} says {key} twice; leave one out.")
        try:
            found[key] = tuple(float(value) for value in values.split("/"))
        except ValueError as error:
            raise UserError(
                f"{name!r}: {part!r} is not key=number or key=number/number."
            ) from error
    return found


def _cycle(name: str, family: Family, setting: Setting, own: CycleConfig) -> CycleConfig:
    """Only the sizes that the method can choose."""
    if family.chooses_size and "sizes" not in setting:
        return own
    sizes = setting["sizes"] if "sizes" in setting else setting["size"]
    try:
        return dataclasses.replace(own, sizes=tuple(sorted({0, *(int(size) for size in sizes)})))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{name}: {error}") from error


def method(name: str, rival: Rival, pair: Pair, other_device: bool = False) -> Method:
    """The method for a pair that was loaded with the rival's cycle, but for the context.

    Raises:
      UserError: the classifiers or the table belong to another pair, a number is impossible, or the
        table is of another device and `other_device` does not allow that.
    """
    cycle = pair.config.cycle
    parts = Parts()
    if rival.heads is not None:
        saved_heads.check(rival.heads, pair.fingerprint, cycle)
        parts = rival.heads.parts
    if rival.table is not None:
        _check_table(name, rival.table, pair, other_device)
        parts = parts._replace(costs=costs_of(rival.table))
    return Method(name, *rival.family.build(cycle, rival.setting, parts))


def _check_table(name: str, table: LatencyTable, pair: Pair, other_device: bool) -> None:
    """Raises UserError unless a table is of the pair, and of how it runs here."""
    origin = table.provenance
    if origin.get("fingerprint", pair.fingerprint) != pair.fingerprint:
        raise UserError(
            f"{name}: the latency table was measured with pair {origin['fingerprint']}, not "
            f"{pair.fingerprint}; measure this one with profile_latency."
        )
    there = Place(str(origin.get("device")), origin.get("dtype"))
    here = Place(pair.device, jnp.dtype(pair.dtype).name)
    what, remedy = f"{name}: the latency table is of", "measure here with profile_latency"
    provenance.must_be_here(what, there, here, other_device, remedy)


def costs_of(table: LatencyTable) -> Costs:
    """A table as drafting plus verifying; verifying holds what every cycle costs."""
    cycle_LDV = table.cycle_seconds
    return Costs(
        contexts=table.contexts,
        draft_seconds=cycle_LDV[:, :, 0] - cycle_LDV[:, :1, 0],
        verify_seconds=cycle_LDV[:, 0],
        plain_seconds=float(table.plain_seconds.mean()),
    )
