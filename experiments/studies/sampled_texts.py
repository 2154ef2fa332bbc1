"""Do policies that learn from sampled texts beat greedy-trained ones where texts are sampled?

The paper uses its greedy-trained policies at temperature 1, too. Here three pairs of policies learn
from the same prompts with the same settings and the same latency table: on greedy texts, on sampled
texts with the tokens that were drawn, and on sampled texts with the tokens that were expected.
All are replayed on sampled texts of other prompts, beside the best constants of both kinds.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from rich.console import Console

from ltd_jax import workflow
from ltd_jax.config import GREEDY
from ltd_jax.files import UserError
from ltd_jax.learning import loop
from ltd_jax.models.pair import Pair
from ltd_jax.policies import networks
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.policy import Controller
from ltd_jax.replay import latency, optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Totals
from ltd_jax.workflow import Settings, Split

RESAMPLES = 2000
SPLITS: tuple[Split, ...] = ("train", "validation")


class StudySettings(Settings, Protocol):
    """What the study reads of a command's config."""

    @property
    def repeats(self) -> int: ...


class Compared(NamedTuple):
    """One controller of the study."""

    name: str
    seed: int
    controller: Controller
    params: Any
    learned: bool


def study(pair: Pair, settings: StudySettings, console: Console) -> dict[str, Any]:
    """Everything, from recording to the rows.

    Raises:
      UserError: the pair decodes greedily.
    """
    if pair.config.sampling.temperature == 0:
        raise UserError("There is nothing to study at temperature 0; give --temperature 1.")
    cycle = pair.config.cycle
    table = workflow.load_or_profile(pair, settings, console)
    lessons = lessons_of(pair, table, settings, console)
    trace = workflow.load_or_record(pair, "test", settings, console, with_reach=True)
    tests = {
        "drawn": simulate.build(trace, table, cycle),
        "expected": simulate.build(trace, table, cycle, expected=True),
    }
    compared = list(compared_of(pair, lessons, table, settings, console))
    totals = {
        kind: [simulate.run(replay, cycle, *one[2:]) for one in compared]
        for kind, replay in tests.items()
    }
    rows = [
        {"policies": one.name, "seed": one.seed}
        | {kind: row_of(totals[kind][index], totals[kind][0]) for kind in tests}
        for index, one in enumerate(compared)
    ]
    most = optimum.dynamic_programme(tests["drawn"]).tokens_per_second
    return {"rows": rows, "clairvoyant_tokens_per_second": most, "texts": len(trace.first)}


def lessons_of(
    pair: Pair, table: LatencyTable, settings: StudySettings, console: Console
) -> dict[str, loop.Splits]:
    """What the three pairs of policies learn from; the first kind's best constant is the base."""
    cycle = pair.config.cycle
    greedy_settings = dataclasses.replace(settings, out=settings.out / "greedy")  # type: ignore
    sampled = [
        workflow.load_or_record(pair, split, settings, console, with_reach=True) for split in SPLITS
    ]
    greedy = [
        workflow.load_or_record(pair.sampled(GREEDY), split, greedy_settings, console)
        for split in SPLITS
    ]
    build = simulate.build
    return {
        "expected": loop.Splits(*[build(one, table, cycle, expected=True) for one in sampled]),
        "drawn": loop.Splits(*[build(one, table, cycle) for one in sampled]),
        "greedy": loop.Splits(*[build(one, table, cycle) for one in greedy]),
    }


def compared_of(
    pair: Pair,
    lessons: dict[str, loop.Splits],
    table: LatencyTable,
    settings: StudySettings,
    console: Console,
) -> Iterator[Compared]:
    """The best constant of sampled and of greedy texts, then all policies."""
    cycle, constant = pair.config.cycle, policy_module.constant()
    best = {name: optimum.best_constant(one.validation, cycle) for name, one in lessons.items()}
    for name in ("expected", "greedy"):
        params = policy_module.constant_params(best[name].levels, best[name].size, cycle)
        label = f"constant of {name} texts: levels {best[name].levels}, size {best[name].size}"
        yield Compared(label, 0, constant, params, False)
    policies = networks.learned(cycle, settings.policy)
    origin = {"fingerprint": pair.fingerprint, "latency": latency.fingerprint(table)}
    for name, replays in lessons.items():
        for seed in range(settings.repeats):
            console.print(f"policies of {name} texts, seed {seed}")
            own = dataclasses.replace(  # type: ignore
                settings,
                out=settings.out / name / f"seed-{seed}",
                learning=dataclasses.replace(settings.learning, seed=seed),
            )
            learned = workflow.train_or_resume(pair, replays, origin, own, console)
            yield Compared(f"ltd of {name} texts", seed, policies, learned.params, True)


def row_of(totals: Totals, base: Totals) -> dict[str, float]:
    """Tokens per second, and over the base's with its 95 % interval by resampling texts."""
    ours, theirs = (
        np.stack([np.asarray(one.committed), np.asarray(one.seconds)]) for one in (totals, base)
    )
    rate = lambda sums: sums[0] / sums[1]
    ratio = rate(ours.sum(axis=1)) / rate(theirs.sum(axis=1))
    texts = ours.shape[1]
    draw = np.random.default_rng(0).integers(0, texts, (RESAMPLES, texts))
    draws = rate(ours[:, draw].sum(axis=-1)) / rate(theirs[:, draw].sum(axis=-1))
    low, high = np.percentile(draws, (2.5, 97.5))
    names = ("tokens_per_second", "over_best_constant", "low", "high")
    values = (rate(ours.sum(axis=1)), ratio, low, high)
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Per kind of policies: expected tokens per second over the best constant's, mean of seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["policies"], []).append(row["expected"]["over_best_constant"])
    return {name: float(np.mean(values)) for name, values in found.items()}
