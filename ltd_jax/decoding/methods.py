"""Methods by their names: what is needed before a pair is loaded, and the policy for a pair.

    plain | constant:levels=6,size=24 | eagle3 | ltd | sb3:size=FILE,depth=FILE,length=true
    ddd | svip | gammatune | gammatune+ | disco | specdec++ | c2t | c2t-as-run | tiers | cost-aware

`autoregressive` is another name of plain. The second line's numbers may be given, as in
ddd:threshold=-0.6,size=24 (`baselines.catalogue`). `parse_method` reads a name and the files that
the method needs, and says which cycle to load the pair with; `build_method` checks that they belong
to that pair.
"""

import dataclasses
import difflib
import re
from pathlib import Path

from ltd_jax import files
from ltd_jax.baselines import catalogue, published
from ltd_jax.baselines.catalogue import Baseline, Needs
from ltd_jax.baselines.classifiers import Classifiers
from ltd_jax.baselines.classifiers import check as check_classifiers
from ltd_jax.baselines.classifiers import load as load_classifiers
from ltd_jax.baselines.cost_aware import costs_of
from ltd_jax.baselines.published import PublishedPolicies
from ltd_jax.baselines.rules import FixedSize, Tiers
from ltd_jax.config import CycleConfig
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Method
from ltd_jax.files import UserError, user_errors
from ltd_jax.models.pair import Pair
from ltd_jax.policies import saved
from ltd_jax.policies.policy import Constant, Policy, eagle3_default
from ltd_jax.policies.saved import SavedPolicy
from ltd_jax.replay import latency as latencies
from ltd_jax.replay.latency import LatencyTable

PLAIN = ("plain", "autoregressive")
OTHERS = ("plain", "constant:levels=6,size=24", "eagle3", "ltd", "sb3:size=FILE,depth=FILE")
NAMES = ", ".join((*OTHERS, *catalogue.NAMES))


@dataclasses.dataclass(frozen=True, eq=False)
class MethodSpec:
    """A method before its pair is loaded."""

    name: str
    policy: Policy | None  # None = plain decoding
    cycle: CycleConfig  # the smallest that serves it
    trained: SavedPolicy | None = None  # the files that it was read from
    classifiers: Classifiers | None = None
    table: LatencyTable | None = None


def parse_method(
    name: str,
    base: CycleConfig,
    *,
    policy: Path | None = None,
    classifiers: Path | None = None,
    latency: str | Path | None = None,
    context: int | None = None,
) -> MethodSpec:
    """Reads a method's name and the files that it needs.

    Args:
      base: the cycle of a pair for which nothing was trained or measured.
      policy: file of trained policies, for ltd.
      classifiers: file of trained classifiers and the draft's calibration.
      latency: this device's latency table, shipped or a file, for cost-aware.
      context: most tokens of prompt and answer; None = as the cycle has it.

    Raises:
      UserError: the name is unknown, a number is impossible, a file that the method needs is not
        given or cannot be read, or one is given that it does not read.
    """
    kind = name.partition(":")[0]
    baseline = catalogue.find(kind)
    given = {"policy": policy, "classifiers": classifiers, "latency": latency}
    for argument, value in given.items():
        if value is not None and argument not in reads(name):
            raise UserError(
                f"The method {kind} does not read `{argument}`; leave it out or choose another one."
            )
    if name == "ltd":
        spec = _learned(policy, context)
    elif baseline is not None:
        spec = _baseline(name, baseline, base, classifiers=classifiers, latency=latency)
    else:
        chosen = _unnamed(name, base)
        label = benchmark.PLAIN if chosen is None else name
        spec = MethodSpec(label, chosen, smallest_cycle(name, chosen, base))
    if context is None:
        return spec
    with user_errors(spec.name, name_all=True):
        return dataclasses.replace(spec, cycle=dataclasses.replace(spec.cycle, context=context))


def build_method(spec: MethodSpec, pair: Pair, *, other_hardware: bool = False) -> Method:
    """The method, for a pair that was loaded with `spec.cycle`.

    Raises:
      UserError: policies, classifiers or the latency table belong to another pair, or to another
        device unless `other_hardware`.
    """
    here = dataclasses.replace(pair.identity, sampling=None)  # what is read serves every sampling
    if spec.trained is not None:
        saved.check(spec.trained, here, other_hardware=other_hardware)
    if spec.classifiers is not None:
        check_classifiers(spec.classifiers, here)
    if spec.table is not None:
        files.require_same(
            f"{spec.name}: the latency table is of",
            dataclasses.replace(spec.table.identity, cycle=None),
            here,
            remedy="measure here",
            other_hardware=other_hardware,
        )
    if spec.policy is not None:
        spec.policy.check(pair.config.cycle)
    return Method(spec.name, spec.policy)


def reads(name: str) -> frozenset[str]:
    """The files that a method reads, by the arguments of `parse_method`."""
    baseline = catalogue.find(name.partition(":")[0])
    if baseline is None:
        return frozenset({"policy"} if name == "ltd" else ())
    return frozenset({"classifiers", "latency"} if baseline.needs_costs else {"classifiers"})


def smallest_cycle(name: str, policy: Policy | None, base: CycleConfig) -> CycleConfig:
    """`base` with only the levels and sizes that a policy can choose: no others are compiled.

    Raises:
      UserError: no tree has them.
    """
    levels, sizes = base.max_levels, base.sizes
    match policy:
        case None:
            levels, sizes = 1, (0,)
        case Constant():
            levels, sizes = int(policy.levels), (int(policy.size),)
        case FixedSize():
            sizes = (int(policy.size),)
        case Tiers():
            sizes = tuple(int(size) for size in policy.sizes)
        case PublishedPolicies():
            return policy.smallest_cycle(base)
        case _:
            return base
    with user_errors(name, name_all=True):
        return dataclasses.replace(base, max_levels=levels, sizes=tuple(sorted({0, *sizes})))


def _unnamed(name: str, base: CycleConfig) -> Policy | None:
    """The policy of a method that needs no other files than it names itself; None = plain."""
    if name in PLAIN:
        return None
    if name == "eagle3":
        return eagle3_default(base)
    kind, _, numbers = name.partition(":")
    if kind == "sb3":
        return _published(name)
    if kind == "constant":
        return _constant(name, numbers)
    known = [*(other.partition(":")[0] for other in OTHERS), *PLAIN, *catalogue.NAMES]
    if kind in known:
        raise UserError(f"The method {kind} has no settings; write {kind} alone.")
    similar = difflib.get_close_matches(kind, known, n=1)
    meant = f"did you mean {similar[0]}? The methods are" if similar else "choose"
    raise UserError(f"There is no method {name!r}; {meant} {NAMES}.")


def _constant(name: str, numbers: str) -> Constant:
    """The constant setting of "levels=6,size=24"."""
    parts = numbers.split(",")
    given = {key: value for key, _, value in (part.partition("=") for part in parts)}
    is_known = len(parts) == 2 and given.keys() == {"levels", "size"}
    is_whole = all(re.fullmatch(r"\d+", value, re.ASCII) for value in given.values())
    if not (is_known and is_whole) or int(given["levels"]) < 1:
        raise UserError(
            f"{name!r} is no constant setting: its settings are called levels (at least 1) and "
            "size (at least 0), as in constant:levels=6,size=24."
        )
    return Constant(levels=int(given["levels"]), size=int(given["size"]))


def _published(name: str) -> PublishedPolicies:
    """The policies that `sb3:size=FILE,depth=FILE,length=true` names; all parts but one are free.

    `length=true` shows the depth policy the true context length, as in its training; by default it
    sees the constant that the published decoding code shows it.
    """
    parts = [part.partition("=") for part in name.removeprefix("sb3:").split(",")]
    given = {key: value for key, _, value in parts}
    paths = {key: Path(value) for key, value in given.items() if key in ("size", "depth")}
    length = given.get("length", "constant")
    is_known = set(given) <= {"size", "depth", "length"} and length in ("true", "constant")
    if len(given) != len(parts) or not paths or not is_known:
        raise UserError(f"{name!r} is no method; write sb3:size=FILE,depth=FILE,length=true.")
    depth, size = paths.get("depth"), paths.get("size")
    return published.load(depth, size, constant_length=length == "constant")


def _learned(path: Path | None, context: int | None) -> MethodSpec:
    if path is None:
        raise UserError("The method ltd needs trained policies; give their file as `policy`.")
    policies = saved.load(path)
    known = policies.cycle.context
    if context not in (None, known):
        raise UserError(
            f"The policies in {path} see the context length as a share of {known}; leave out "
            f"`context` or train them for {context}."
        )
    return MethodSpec("ltd", policies.policy, policies.cycle, trained=policies)


def _baseline(
    name: str,
    baseline: Baseline,
    base: CycleConfig,
    *,
    classifiers: Path | None,
    latency: str | Path | None,
) -> MethodSpec:
    """A compared method, with the levels and sizes of a pair's own table; others are fitted."""
    trained = None if classifiers is None else load_classifiers(classifiers)
    cycle = base if trained is None else trained.cycle
    table = None if latency is None else LatencyTable.find(str(latency))
    if table is not None and "fingerprint" in table.provenance:
        with user_errors(name, name_all=True):
            cycle = dataclasses.replace(cycle, max_levels=table.max_levels, sizes=table.sizes)
    elif table is not None:
        table = latencies.fit(table, cycle)
    costs = None if table is None else costs_of(table)
    policy = catalogue.parse(name, baseline, cycle, Needs(trained, costs))
    cycle = smallest_cycle(name, policy, cycle)
    with user_errors(baseline.name, name_all=True):
        policy.check(cycle)
    return MethodSpec(name, policy, cycle, classifiers=trained, table=table)
