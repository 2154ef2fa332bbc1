"""From all stages to the report: what was measured, predicted, and there to gain."""

from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from ltd_jax.cycle.pair import Pair
from ltd_jax.decoding import benchmark, comparison, lossless
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.errors import UserError
from ltd_jax.pipeline import compare, questions, stages, training
from ltd_jax.pipeline.questions import Asking, Split
from ltd_jax.pipeline.stages import Recording, Settings
from ltd_jax.pipeline.training import Trained
from ltd_jax.replay import cycles, optimum
from ltd_jax.replay.cycles import Replay
from ltd_jax.report import Figures

REPORTED = (comparison.PLAIN, "eagle3", "best_constant", comparison.LEARNED)


class Results(NamedTuple):
    """A comparison: what the report is made of, and the runs behind it."""

    report: dict[str, Any]
    figures: Figures
    asking: Asking
    runs: list[Run]


class Evidence(NamedTuple):
    """What all stages gave."""

    pair: Pair
    trained: Trained
    replay: Replay  # of the texts that are compared
    methods: list[Method]
    asking: Asking
    runs: list[Run]


def run(pair: Pair, settings: Settings, console: Console) -> Results:
    """All stages, in order."""
    must_be_comparable(pair)
    trained = training.train(pair, settings, console)
    return evaluate(pair, trained, settings, "test", console)


def evaluate(
    pair: Pair, trained: Trained, settings: Recording, split: Split, console: Console
) -> Results:
    """The second half: all methods on the questions of a split, in turns."""
    must_be_comparable(pair)
    trace = stages.trace_of(pair, split, settings, console)
    replay = cycles.build(trace, trained.table, pair.config.cycle)
    asking = questions.ask(pair, settings.asked, split, settings.out / "traces")
    methods = compare.methods_of(pair, trained)
    runs = compare.runs_of(pair, methods, asking.prompts, settings, console)
    evidence = Evidence(pair, trained, replay, methods, asking, runs)
    return Results(report_of(evidence), figures_of(evidence), asking, runs)


def must_be_comparable(pair: Pair) -> None:
    """Raises UserError unless one seed gives one text: the report compares token by token."""
    if not pair.config.sampling.is_reproducible:
        raise UserError(
            "Texts of the sequential rule differ between methods, so they cannot be compared token "
            "by token, nor replayed; leave out --rule: the coupled rule has the same distribution."
        )


def report_of(evidence: Evidence) -> dict[str, Any]:
    """The report, schema 1."""
    pair, runs = evidence.pair, evidence.runs
    predictions = predicted(evidence)
    tasks, table = evidence.asking.tasks, evidence.trained.table
    rows = comparison.method_rows(runs, tasks, table)
    clean = comparison.without_repetition(runs, tasks, evidence.replay, table)
    return {
        "schema": 1,
        "environment": pair.environment,
        "pair": {
            "target": pair.names[0],
            "draft": pair.names[1],
            "fingerprint": pair.fingerprint,
            "parameters": [_count(pair.params.target), _count(pair.params.draft)],
        },
        "lossless": lossless.compare(pair, runs, evidence.asking.prompts, comparison.PLAIN),
        "methods": [row for row in rows if row["method"] in REPORTED],
        "without_repetition": [row for row in clean if row["method"] in REPORTED],
        "ltd_over_best_constant": comparison.over(runs, "ltd", "best_constant"),
        "replay_vs_live": predictions,
        "optimum": optimum_of(evidence, predictions),
        "learning": evidence.trained.learning,
    }


def predicted(evidence: Evidence) -> list[dict[str, Any]]:
    """Per method: the replay's tokens per second on the same prompts beside the measured ones."""
    replay, cycle = evidence.replay, evidence.pair.config.cycle
    rows = []
    for method in evidence.methods:
        if method.controller is None:
            rate = comparison.plain_rate(replay, evidence.trained.table)
        else:
            learned = method.name == comparison.LEARNED
            totals = cycles.run(replay, cycle, method.controller, method.params, learned)
            rate = float(cycles.throughput(totals))
        ours = [run for run in evidence.runs if run.method == method.name]
        rows.append(
            {
                "controller": method.name,
                "predicted_tokens_per_second": rate,
                "measured_tokens_per_second": benchmark.tokens_per_second(ours),
            }
        )
    return rows


def optimum_of(evidence: Evidence, predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """What there was to gain on these prompts, all by replay, and the share that LTD gained."""
    rate = {row["controller"]: row["predicted_tokens_per_second"] for row in predictions}
    most = optimum.dynamic_programme(evidence.replay).tokens_per_second
    gained = optimum.share_gained(rate["ltd"], rate["best_constant"], most)
    return {
        "best_constant": {
            "levels": evidence.trained.best.levels,
            "size": evidence.trained.best.size,
            "tokens_per_second": rate["best_constant"],
        },
        "dynamic_programme_tokens_per_second": most,
        "share_gained_by_ltd": 0.0 if np.isnan(gained) else float(gained),
    }


def figures_of(evidence: Evidence) -> Figures:
    """The arrays that the plots show."""
    cycle, trained, replay = evidence.pair.config.cycle, evidence.trained, evidence.replay
    every = cycles.constants(replay, cycle)
    ours = [run for run in evidence.runs if run.method == comparison.LEARNED]
    easy, hard = comparison.choices(ours, replay, trained.table)
    validation, constant, most = trained.validation, None, None
    if validation is not None:
        constant = trained.best.tokens_per_second
        most = optimum.dynamic_programme(validation).tokens_per_second
    return Figures(
        sizes=cycle.sizes,
        committed=np.asarray(every.committed.sum(-1) / every.cycles.sum(-1)),
        cycle_seconds=trained.table.cycle_seconds.mean(axis=0),
        draft_seconds=trained.table.draft_seconds.mean(axis=0),
        verify_seconds=trained.table.verify_seconds.mean(axis=0),
        curves=trained.curves,
        validation_constant=constant,
        validation_optimum=most,
        choices_easy=easy,
        choices_hard=hard,
    )


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
