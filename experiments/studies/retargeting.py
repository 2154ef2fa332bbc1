"""Policies on other hardware: as they were trained, trained again, or made to see what things cost.

Every table is the device of one study on the same recorded texts. All numbers are throughput on the
test texts relative to the best constant setting of the table that is decoded under.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from rich.console import Console

from experiments.studies import ground as studies
from experiments.studies import many_tables, observing, observing_policies, scores, synthetic_tables
from experiments.studies.ground import Ground
from ltd_jax import workflow
from ltd_jax.learning.loop import Point
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import latency, optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.workflow import Settings

HERE = "here"  # the name of the study's own table
SYNTHETIC = 64  # tables that an observing policy learns on


class Cell(TypedDict):
    """Something made for one table, under another one."""

    made: str  # "policies", "constant" or "observing"
    made_for: str  # a table's name; of "observing" the tables that it did not see, "-" for none
    run_on: str
    ratio: float  # throughput over run_on's best constant, mean over seeds
    low: float
    high: float
    seconds: float | None  # of training, mean over seeds


def grounds(here: Ground, names: tuple[str, ...]) -> dict[str, Ground]:
    """The same texts under every table, by name; `here` comes first, its own table only once."""
    found = {HERE: here}
    for name in names:
        ground = under(here, latency.fit(latency.find(name), here.cycle))
        if ground.origin["latency"] != here.origin["latency"]:
            found[name] = ground
    return found


def under(here: Ground, table: LatencyTable) -> Ground:
    """A study's texts under another table."""
    train, validation, test = (
        simulate.with_latency(replay, table, here.cycle)
        for replay in (here.train, here.validation, here.test)
    )
    identity = {
        "latency": latency.fingerprint(table),
        "device": table.provenance["device"],
        "dtype": table.provenance["dtype"],
    }
    return here._replace(
        table=table,
        train=train,
        validation=validation,
        test=test,
        best=optimum.best_constant(validation, here.cycle),
        origin=here.origin | identity,
    )


def moved(every: dict[str, Ground], settings: Settings, seeds: int, console: Console) -> list[Cell]:
    """Policies of every table under every table; on the diagonal they are the retrained ones."""
    cells = []
    for name, ground in every.items():
        learned = [studies.train(ground, settings, seed, console) for seed in range(seeds)]
        seconds = float(np.mean([training_seconds(each.curves) for each in learned]))
        for other, target in every.items():
            ratios = [
                scores.of_policies(target, each.params).tokens_per_second / best_rate(target)
                for each in learned
            ]
            cells.append(cell("policies", name, other, ratios, seconds))
    return cells


def constants(every: dict[str, Ground]) -> list[Cell]:
    """The best constant setting of every table under every table."""
    return [
        cell("constant", name, other, [rate_of_constant(target, ground) / best_rate(target)], None)
        for name, ground in every.items()
        for other, target in every.items()
    ]


def observed(
    every: dict[str, Ground], settings: Settings, seeds: int, console: Console
) -> list[Cell]:
    """For every table an observing policy that learned from the others' range, and not from it."""
    return [
        cell("observing", name, name, *_observing_ratios(every, name, settings, seeds, console))
        for name in every
    ]


def _observing_ratios(
    every: dict[str, Ground], unseen: str, settings: Settings, seeds: int, console: Console
) -> tuple[list[float], float]:
    """Ratios by seed under the unseen table, and the mean seconds of a training."""
    target = every[unseen]
    known = [ground.table for name, ground in every.items() if name != unseen]
    drawn = synthetic_tables.draw(known, target.cycle, SYNTHETIC, seed=0)
    identities = [latency.fingerprint(table) for table in known]
    trained = []
    for seed in range(seeds):
        learning = dataclasses.replace(settings.learning, seed=seed)
        folder = studies.kept_at(target, settings, learning, "observing", *identities)
        with workflow.bar(console, f"not {unseen}, seed {seed}") as advance:
            progress = functools.partial(_advance, advance)
            trained.append(
                observing.train(
                    target.lessons,
                    drawn,
                    target.cycle,
                    target.policy,
                    learning,
                    folder=folder,
                    progress=progress,
                )
            )
    ratios = [of_observing(target, each.params) / best_rate(target) for each in trained]
    return ratios, float(np.mean([training_seconds(each.curves) for each in trained]))


def _advance(advance: Callable[[float], None], point: Point, share: float) -> None:
    advance(share)


def of_observing(target: Ground, params: LearnedParams) -> float:
    """Tokens per second of observing policies that see the table they run under."""
    seeing = observing_policies.specialised(params, many_tables.costs_of(target.table))
    return scores.of_policies(target, seeing).tokens_per_second


def best_rate(ground: Ground) -> float:
    """Tokens per second of a table's best constant setting."""
    return rate_of_constant(ground, ground)


def rate_of_constant(target: Ground, chosen_for: Ground) -> float:
    """Tokens per second under one table of the best constant setting of another."""
    best = chosen_for.best
    return scores.of_constant(target, best.levels, best.size).tokens_per_second


def training_seconds(curves: Sequence[Point]) -> float:
    """Of all stages."""
    last = {point.stage: point.seconds for point in curves}
    return sum(last.values())


def cell(made: str, made_for: str, run_on: str, ratios: list[float], seconds: float | None) -> Cell:
    """One cell from the ratios of all seeds."""
    ratio, low, high = scores.over_seeds(ratios)
    return Cell(
        made=made,
        made_for=made_for,
        run_on=run_on,
        ratio=ratio,
        low=low,
        high=high,
        seconds=seconds,
    )
