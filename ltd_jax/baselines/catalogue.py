"""The compared methods by name: kinds of policies, sources, what they need, and their settings.

A name with numbers, as in

    ddd:threshold=-0.6,size=24      tiers:levels=1/2/4,sizes=1/3/8      cost-aware:speedup=2

gives the method's published settings for a cycle with some of its fields replaced. Published ones
are those of LTD's comparison (Sec. 5) where it names them, else the method's own.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from ltd_jax.baselines.classifiers import C2T, Classifiers, Disco, SpecDecPP
from ltd_jax.baselines.cost_aware import CostAware, Costs
from ltd_jax.baselines.rules import DDD, SVIP, GammaTune, Tiers
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import Constant, Policy
from ltd_jax.presets import eagle3_default

BUDGET = 25  # settings that tuning tries of a method, at most

Settings = dict[str, int | float | tuple[int | float, ...]]


@dataclasses.dataclass(frozen=True)
class Needs:
    """What some methods read beside their settings; None = not there."""

    classifiers: Classifiers | None = None  # also the draft's calibration
    costs: Costs | None = None  # of a device

    @property
    def networks(self) -> dict[str, Any]:
        """The Linen variables of the classifiers that are there, by name."""
        return {} if self.classifiers is None else self.classifiers.networks


@dataclasses.dataclass(frozen=True)
class Baseline:
    """One of the compared methods."""

    name: str
    make: Callable[..., Policy]  # of a cycle and what the method needs, by name
    source: str  # of the published settings
    classifier: str | None = None  # that it needs
    needs_costs: bool = False

    def lacks(self, needs: Needs) -> str | None:
        """What it needs and is not there, for a sentence."""
        if self.classifier not in (None, *needs.networks):
            return "its trained classifier; give the file with it as `classifiers`"
        if self.needs_costs and needs.costs is None:
            return "this device's latencies; give their file as `latency`"
        return None

    def published(self, config: CycleConfig, needs: Needs) -> Policy:
        """The policy with the published settings, scaled to a cycle.

        Raises:
          UserError: something that it needs is not there.
        """
        lacking = self.lacks(needs)
        if lacking is not None:
            raise UserError(f"The method {self.name} needs {lacking}.")
        if self.needs_costs:
            power_D = None if needs.classifiers is None else needs.classifiers.power
            return self.make(config, costs=needs.costs, power=power_D)
        if self.classifier is not None:
            return self.make(config, network=needs.networks[self.classifier])
        return self.make(config)

    def grid(self, policy: Any, config: CycleConfig) -> list[Any]:
        """Settings that tuning tries, of the published policy; none of a constant."""
        return [] if policy.is_constant else policy.grid(config)


BASELINES = (
    Baseline("ddd", DDD.published, "2409.00142; LTD Sec. 5: checks 5, 7, 9, threshold -0.3"),
    Baseline("svip", SVIP.published, "2411.18462, its code and LTD: scale 0.15, threshold 0.3"),
    Baseline(
        "gammatune",
        GammaTune.published,
        "2504.00030; LTD Sec. 5: share 0.2, half to 1.5 times EAGLE-3's levels",
    ),
    Baseline(
        "gammatune+",
        partial(GammaTune.published, confidence=0.4),
        "2504.00030 with the confidence 0.4 of Hugging Face's assistant",
    ),
    Baseline("disco", Disco.published, "2405.04304; LTD: threshold 0.5", classifier="disco"),
    Baseline(
        "specdec++",
        SpecDecPP.published,
        "2405.19715: threshold 0.7, at least 2 tokens; LTD's head",
        classifier="specdec",
    ),
    Baseline(
        "c2t",
        C2T.published,
        "2502.13652: threshold 0.5, 15 nodes per level, 10 levels",
        classifier="c2t",
    ),
    Baseline(
        "c2t-as-run",
        lambda config: Constant(*eagle3_default(config)),
        "LTD's comparison: the classifier removes no node, so the tree is EAGLE-3's",
    ),
    Baseline(
        "tiers",
        Tiers.published,
        "SGLang: tiers 1, 3, 7 of a chain, share 0.2, every 5 cycles after 10",
    ),
    Baseline(
        "cost-aware",
        CostAware.published,
        "expected tokens against measured time; speedup 1.5 and ratio 0.6 untuned",
        needs_costs=True,
    ),
)
NAMES = tuple(baseline.name for baseline in BASELINES)


def find(name: str) -> Baseline | None:
    """The method of a name; None where there is none."""
    return next((baseline for baseline in BASELINES if baseline.name == name), None)


def parse(name: str, baseline: Baseline, config: CycleConfig, needs: Needs) -> Policy:
    """The policy of a name such as ddd:threshold=-0.6,size=24.

    Numbers may still be impossible in a cycle, which `policy.check` says.

    Raises:
      UserError: what is given is no number, the method has no such setting, or what it reads is not
        there.
    """
    policy = baseline.published(config, needs)
    published, given = settings(policy), _numbers(name)
    unknown = [key for key in given if key not in published]
    if unknown:
        known = ", ".join(published)
        raise UserError(f"{baseline.name} has no setting {unknown[0]!r}; it has {known}.")
    numbers = {
        key: _like(f"{baseline.name}: {key}", published[key], values)
        for key, values in given.items()
    }
    return policy.replace(**numbers)


def settings(policy: Policy) -> Settings:
    """The fields of a policy that are numbers, by name: what can be set, as JSON."""
    fields = [(field.name, getattr(policy, field.name)) for field in dataclasses.fields(policy)]
    return {name: value for name, value in fields if isinstance(value, int | float | tuple)}


def _numbers(name: str) -> dict[str, list[float]]:
    """What method:key=1,key=2/3 says of each key."""
    numbers: dict[str, list[float]] = {}
    for part in filter(None, name.partition(":")[2].split(",")):
        key, _, values = part.partition("=")
        if key in numbers:
            raise UserError(f"{name!r} says {key} twice; leave one out.")
        try:
            numbers[key] = [float(value) for value in values.split("/")]
        except ValueError as error:
            raise UserError(
                f"{name!r}: {part!r} is not key=number or key=number/number."
            ) from error
    return numbers


def _like(what: str, published: Any, values: list[float]) -> Any:
    """Numbers of the kind of a published setting: as many, and whole where those are."""
    if isinstance(published, tuple):
        return tuple(_like(what, published[0], [value]) for value in values)
    if len(values) > 1:
        raise UserError(f"{what} takes one number, not {len(values)}.")
    if isinstance(published, int) and values[0] % 1 != 0:  # also of inf and nan
        raise UserError(f"{what} is {values[0]:g} but must be a whole number.")
    if isinstance(published, bool) and values[0] not in (0, 1):
        raise UserError(f"{what} is {values[0]:g} but must be 0 or 1.")
    return type(published)(values[0])
