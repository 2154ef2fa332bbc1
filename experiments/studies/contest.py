"""All compared methods on one pair: tuned alike, decoded in turns, every one's own time counted.

Thresholds are tuned on the validation split by replay; the test split is decoded live, interleaved,
and replayed for what there was to gain. A method at its published setting is one entry, the best of
its 25 settings another, named "ddd tuned". Policies that learned from sampled texts may take part
beside those of greedy ones.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from rich.console import Console

from experiments.studies import compare, programs
from ltd_jax import workflow
from ltd_jax.baselines import catalogue, train
from ltd_jax.baselines.catalogue import Family, Setting, eagle3_default
from ltd_jax.baselines.classifiers import SavedHeads
from ltd_jax.decoding import benchmark, methods
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.files import ResumableStore, UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.policy import Controller
from ltd_jax.policies.saved import SavedPolicies
from ltd_jax.replay import optimum, profile, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.profile import CycleTimer, Overhead, ProfileConfig
from ltd_jax.replay.simulate import Simulator
from ltd_jax.replay.trace import Trace
from ltd_jax.workflow import PromptSet, Recording, Split, Trained

BEST = "best constant"
EAGLE3 = "eagle3"
TUNED = " tuned"
SAMPLED = f"{benchmark.LEARNED} of sampled texts"


class Entry(NamedTuple):
    """One way to decode, with what it is and what its decisions cost."""

    method: Method
    setting: Setting
    source: str
    overhead: Overhead | None = None  # None = decides nothing


class Contesting(Recording, Protocol):
    """What a contest reads of a command's config."""

    @property
    def measure(self) -> ProfileConfig: ...


Prices = Callable[[str, Controller, Any], Overhead]  # of a method's name, controller, parameters


class Field(NamedTuple):
    """Who takes part."""

    trained: Trained
    heads: SavedHeads
    families: list[Family]
    sampled: SavedPolicies | None = None  # of the same shapes, from sampled texts


class Contest(NamedTuple):
    """What a contest gave."""

    pair: Pair
    table: LatencyTable
    entries: list[Entry]
    asking: PromptSet
    replay: Simulator  # of the test split
    runs: list[Run]


def families_of(names: tuple[str, ...], heads: SavedHeads) -> list[Family]:
    """The compared methods of these names; without names all that there are classifiers for.

    Raises:
      UserError: a name is unknown, or its classifier was not trained.
    """
    trained = heads.parts.heads or {}
    for name in names:
        family = catalogue.find(name)
        if family is None:
            known = ", ".join(family.name for family in catalogue.METHODS)
            raise UserError(f"There is no compared method {name!r}; choose {known}.")
        if family.head not in (None, *trained):
            raise UserError(f"{heads.folder} holds no classifier for {name}; train it first.")
    return [
        family
        for family in catalogue.METHODS
        if (family.name in names if names else family.head in (None, *trained))
    ]


def run(
    pair: Pair, field: Field, settings: Contesting, splits: tuple[Split, Split], console: Console
) -> Contest:
    """Tunes on the first split, decodes and replays the second."""
    with_hidden = any(family.head == "specdec" for family in field.families)
    lesson, test = (
        simulate.build(
            workflow.load_or_record(pair, split, settings, console, with_hidden=with_hidden),
            field.trained.table,
            pair.config.cycle,
        )
        for split in splits
    )
    entries = entries_of(pair, field, lesson, prices(pair, field, settings), console)
    programs.forget_if_many()  # each rival's cycle was compiled once to time its decisions
    asking = workflow.load_prompts(pair, settings.asked, splits[1], settings.out / "traces")
    methods = [entry.method for entry in entries]
    runs = compare.runs_of(pair, methods, asking.prompts, settings, console)
    programs.forget_if_many()
    return Contest(pair, field.trained.table, entries, asking, test, runs)


def prices(pair: Pair, field: Field, settings: Contesting) -> Prices:
    """What decisions cost on this device, measured when asked and kept in OUT/decisions.json.

    Methods with one controller, such as GammaTune and GammaTune+, are measured once.
    """
    timing, heads = settings.measure, field.heads.parts
    bare = CycleTimer(pair, policy_module.constant(), timing.contexts[0], timing.cycles)
    subject = profile.profile_identity(pair, timing) | {"classifiers": heads.widths}
    kept = ResumableStore(settings.out / "decisions.json", subject)
    names: dict[Controller, str] = {}

    def price(name: str, rule: Controller, params: Any) -> Overhead:
        first = names.setdefault(rule, name)
        visits = timing.policy_visits
        found = kept.entry(first, lambda: profile.time_decisions(bare, rule, params, visits))
        return Overhead(*found.tolist())

    return price


def entries_of(
    pair: Pair, field: Field, lesson: Simulator, own: Prices, console: Console
) -> list[Entry]:
    """Plain decoding, the constants, every method published and tuned, LTD of either texts."""
    cycle = pair.config.cycle
    parts = field.heads.parts._replace(costs=methods.costs_of(field.trained.table))
    entries = fixed_entries(pair, lesson)
    with workflow.bar(console, "time and tune") as advance:
        for place, family in enumerate(field.families, 1):
            first = train.at_published(lesson, cycle, family, parts, own)
            best = train.tune(lesson, cycle, first, parts)
            entries.append(_entry(first, family.name))
            if best is not first:
                entries.append(_entry(best, family.name + TUNED))
            advance(place / len(field.families))
    entries.append(learned_entry(pair, field.trained))
    if field.sampled is not None:  # one program and one cost with those before
        greedy = entries[-1]
        method = dataclasses.replace(greedy.method, name=SAMPLED, params=field.sampled.params)
        entries.append(greedy._replace(method=method))
    return entries


def fixed_entries(pair: Pair, lesson: Simulator) -> list[Entry]:
    """Plain decoding, EAGLE-3's constants and the best ones on the validation split."""
    cycle, constant = pair.config.cycle, policy_module.constant()
    best = optimum.best_constant(lesson, cycle)
    entries = [Entry(Method(benchmark.PLAIN), {}, "the target alone")]
    for name, (levels, size), source in (
        (EAGLE3, eagle3_default(cycle), "EAGLE-3's constants, scaled"),
        (BEST, (best.levels, best.size), "grid search over all constants by replay"),
    ):
        params = policy_module.constant_params(levels, size, cycle)
        setting: Setting = {"levels": (float(levels),), "size": (float(size),)}
        entries.append(Entry(Method(name, constant, params), setting, source))
    return entries


def learned_entry(pair: Pair, trained: Trained) -> Entry:
    """The two learned policies."""
    policies, table = trained.policies, trained.table
    learned = networks.learned(pair.config.cycle, policies.widths)
    cost = Overhead(table.depth_seconds, table.size_seconds)
    return Entry(Method(benchmark.LEARNED, learned, policies.params), {}, "this library", cost)


def _entry(tuned: train.Tuned, name: str) -> Entry:
    method = Method(name, tuned.controller, tuned.params)
    return Entry(method, tuned.setting, tuned.family.source, tuned.overhead)


def predicted(pair: Pair, replay: Simulator, entry: Entry) -> simulate.Totals | None:
    """What a replay says of an entry, its own time counted; None for plain decoding."""
    method = entry.method
    if method.controller is None:
        return None
    priced = profile.with_overhead(replay, entry.overhead or profile.FREE)
    return simulate.run(priced, pair.config.cycle, method.controller, method.params, learned=True)


def domains(asking: PromptSet, trace: Trace) -> list[str]:
    """Per recorded text the first part of its question's category."""
    if len(asking.turns) != len(trace.first):
        raise UserError("Some texts ended with their first token; leave out those questions.")
    return [asked.question.category.split(".")[0] for asked in asking.turns]


def own_seconds(entry: Entry, runs: list[Run]) -> float:
    """Seconds that an entry's decisions took in some runs."""
    if entry.overhead is None:
        return 0.0
    levels = benchmark.per_cycle(runs, "levels")
    cost = entry.overhead
    return float(levels.sum() * cost.depth_seconds + len(levels) * cost.size_seconds)
