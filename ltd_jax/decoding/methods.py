"""The compared methods of `policies.catalogue`, as names and numbers ask for them.

    ddd:threshold=-0.6,size=24      tiers:levels=1/2/4,sizes=1/3/8      cost-aware:speedup=2

Numbers that are not given are the published ones.
"""
# DOC """Methods by their names on the command line.
# DOC
# DOC     autoregressive | constant:levels=6,size=24 | eagle3 | ltd | sb3:size=FILE,depth=FILE,length=true
# DOC     ddd | svip | gammatune | gammatune+ | disco | specdec++ | c2t | c2t-as-run | tiers | cost-aware
# DOC
# DOC The second line's numbers may be given, as in ddd:threshold=-0.6,size=24 (`decoding.rivals`).
# DOC """

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from ltd_jax import files, presets
from ltd_jax.baselines import catalogue, classifiers
from ltd_jax.baselines import published as published_code
from ltd_jax.baselines.catalogue import Family, Setting
from ltd_jax.baselines.classifiers import Parts, SavedHeads
from ltd_jax.baselines.cost_aware import Costs
from ltd_jax.config import CycleConfig
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import Place, UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks, saved
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.saved import SavedPolicies
from ltd_jax.replay import latency
from ltd_jax.replay.latency import LatencyTable


class Files(NamedTuple):
    """What some methods need."""

    classifiers: Path | None = None  # folder of trained classifiers and the draft's calibration
    latency: Path | None = None  # a latency table


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """One method with all its numbers, before a pair is loaded."""

    family: Family
    setting: Setting
    cycle: CycleConfig  # the smallest one that serves it
    heads: SavedHeads | None
    table: LatencyTable | None


def parse_baseline(name: str, base: CycleConfig, files: Files) -> Baseline | None:
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
    heads = None if files.classifiers is None else classifiers.load_heads(files.classifiers)
    if family.needs_costs and files.latency is None:
        raise UserError(f"The controller {word} needs this device's latencies; name --latency.")
    if family.head is not None and (heads is None or family.head not in (heads.parts.heads or {})):
        raise UserError(
            f"The controller {word} needs its trained classifier; name its folder by --classifiers."
        )
    own = base if heads is None else classifiers.cycle_of(heads)
    table = None
    if family.needs_costs:
        own, table = _with_table(name, own, latency.find(str(files.latency)))
    setting = catalogue.setting_of(family, own, _numbers(name, numbers))
    return Baseline(family, setting, _baseline_cycle(name, family, setting, own), heads, table)


def _with_table(
    name: str, own: CycleConfig, table: LatencyTable
) -> tuple[CycleConfig, LatencyTable]:
    """The levels and sizes that a pair's own table has, or another one fitted to the cycle."""
    if "fingerprint" not in table.provenance:
        return own, latency.fit(table, own)
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


def _baseline_cycle(name: str, family: Family, setting: Setting, own: CycleConfig) -> CycleConfig:
    """Only the sizes that the method can choose."""
    if family.chooses_size and "sizes" not in setting:
        return own
    sizes = setting["sizes"] if "sizes" in setting else setting["size"]
    try:
        return dataclasses.replace(own, sizes=tuple(sorted({0, *(int(size) for size in sizes)})))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{name}: {error}") from error


def baseline_method(name: str, rival: Baseline, pair: Pair, other_device: bool = False) -> Method:
    """The method for a pair that was loaded with the rival's cycle, but for the context.

    Raises:
      UserError: the classifiers or the table belong to another pair, a number is impossible, or the
        table is of another device and `other_device` does not allow that.
    """
    cycle = pair.config.cycle
    parts = Parts()
    if rival.heads is not None:
        classifiers.check_heads(rival.heads, pair.fingerprint, cycle)
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
    files.must_be_here(what, there, here, other_device, remedy)


def costs_of(table: LatencyTable) -> Costs:
    """A table as drafting plus verifying; verifying holds what every cycle costs."""
    cycle_LDV = table.cycle_seconds
    return Costs(
        contexts=table.contexts,
        draft_seconds=cycle_LDV[:, :, 0] - cycle_LDV[:, :1, 0],
        verify_seconds=cycle_LDV[:, 0],
        plain_seconds=float(table.plain_seconds.mean()),
    )


OWN = ("autoregressive", "constant:levels=6,size=24", "eagle3", "ltd", "sb3:size=FILE,depth=FILE")
NAMES = ", ".join((*OWN, *(family.name for family in catalogue.METHODS)))
CONSTANT = re.compile(r"constant:levels=(\d+),size=(\d+)")


_NO_FILES = Files()


class MethodSpec(NamedTuple):
    """What a name asks for, before a pair is loaded."""

    name: str
    levels: int = 0  # of a constant setting
    size: int = 0
    policies: SavedPolicies | None = None
    published: tuple[published_code.PublishedSetting, published_code.PublishedParams] | None = None
    rival: Baseline | None = None  # one of the compared methods


def parse_method(
    name: str, target: Path, policies: Path | None, files: Files = _NO_FILES
) -> MethodSpec:
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
        return MethodSpec(name)
    if name == "eagle3":
        return MethodSpec(name, *presets.of(target).eagle3)
    if name == "ltd":
        if policies is None:
            raise UserError("The controller ltd needs trained policies; name them by --policies.")
        return MethodSpec(name, policies=saved.load(policies))
    if name.startswith("sb3:"):
        return MethodSpec(name, published=_published(name))
    rival = parse_baseline(name, presets.of(target).cycle, files)
    if rival is not None:
        return MethodSpec(name, rival=rival)
    found = CONSTANT.fullmatch(name)
    if found is None or int(found[1]) < 1:
        raise UserError(f"There is no controller {name!r}; choose {NAMES}.")
    return MethodSpec(name, int(found[1]), int(found[2]))


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
    named: MethodSpec, target: Path, context: int | None, base: CycleConfig | None = None
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
            base = published_code.smallest_cycle(named.published[0], base)
        elif named.rival is None:
            sizes = tuple(sorted({0, named.size}))
            base = dataclasses.replace(base, max_levels=max(named.levels, 1), sizes=sizes)
        return base if context is None else dataclasses.replace(base, context=context)
    except ValueError as error:
        raise UserError(f"{named.name}: {error}") from error


def build_method(named: MethodSpec, pair: Pair, other_device: bool = False) -> Method:
    """The method, for a pair that was loaded with `cycle_for`.

    Raises:
      UserError: the policies or the latency table belong to another pair, or to another device
        unless `other_device`.
    """
    if named.name == "autoregressive":
        return Method(named.name)
    if named.rival is not None:
        return baseline_method(named.name, named.rival, pair, other_device)
    policies, cycle = named.policies, pair.config.cycle
    if named.published is not None:
        choice, params = named.published
        return Method(named.name, published_code.controller(cycle, choice), params)
    if policies is None:
        setting = policy_module.constant_params(named.levels, named.size, cycle)
        return Method(named.name, policy_module.constant(), setting)
    dtype = jnp.dtype(pair.dtype).name
    saved.check(policies, pair.fingerprint, pair.device, other_device, dtype)
    return Method(named.name, networks.learned(cycle, policies.widths), policies.params)


def _published(name: str) -> tuple[published_code.PublishedSetting, published_code.PublishedParams]:
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
    return published_code.load(
        files.get("depth"), files.get("size"), constant_length=length == "constant"
    )
