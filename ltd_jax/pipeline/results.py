"""From all stages to the report: what was measured, predicted, and there to gain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from ltd_jax import prompts, provenance
from ltd_jax.cycle.pair import Pair
from ltd_jax.decoding import benchmark, comparison, lossless
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.learning import coadapt
from ltd_jax.learning.coadapt import Learned
from ltd_jax.learning.stage import Point
from ltd_jax.pipeline import compare, stages
from ltd_jax.pipeline.stages import Settings
from ltd_jax.replay import cycles, optimum
from ltd_jax.replay.cycles import Replay
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.optimum import BestConstant
from ltd_jax.replay.record import Prompt
from ltd_jax.replay.trace import Trace
from ltd_jax.report import Figures

REPORTED = (comparison.PLAIN, "eagle3", "best_constant", comparison.LEARNED)


class Results(NamedTuple):
    """What the report is made of."""

    report: dict[str, Any]
    figures: Figures


class Evidence(NamedTuple):
    """What all stages gave."""

    pair: Pair
    traces: dict[str, Trace]  # by split
    replays: dict[str, Replay]  # by split
    table: LatencyTable
    best: BestConstant  # on the validation split
    learned: Learned
    methods: list[Method]
    prompts: list[Prompt]  # of the test split
    runs: list[Run]  # on them


def run(pair: Pair, settings: Settings, console: Console) -> Results:
    """All stages, in order."""
    traces = {split: stages.trace_of(pair, split, settings, console) for split in stages.SPLITS}
    table = stages.table_of(pair, settings, console)
    replays = {
        split: cycles.build(trace, table, pair.config.cycle) for split, trace in traces.items()
    }
    best = optimum.best_constant(replays["validation"], pair.config.cycle)
    console.print(f"best constant on validation: levels {best.levels}, size {best.size}")
    lessons = coadapt.Replays(replays["train"], replays["validation"])
    learned = stages.policies_of(pair, lessons, best, table, settings, console)
    found = stages.embedded_prompts(pair, "test", settings.prompts, settings.new_tokens)
    methods = compare.methods_of(pair, best, learned.params, settings)
    runs = compare.runs_of(pair, methods, found, settings, console)
    evidence = Evidence(pair, traces, replays, table, best, learned, methods, found, runs)
    return Results(report_of(evidence), figures_of(evidence))


def report_of(evidence: Evidence) -> dict[str, Any]:
    """The report, schema 1."""
    pair, runs = evidence.pair, evidence.runs
    predictions = predicted(evidence)
    rows = comparison.method_rows(runs, prompts.TASKS, evidence.table)
    clean = comparison.without_repetition(
        runs, prompts.TASKS, evidence.replays["test"], evidence.table
    )
    return {
        "schema": 1,
        "environment": provenance.environment(jnp.dtype(pair.dtype).name),
        "pair": {
            "target": "embedded target",
            "draft": "embedded draft",
            "fingerprint": pair.fingerprint,
            "parameters": [_count(pair.params.target), _count(pair.params.draft)],
        },
        "lossless": lossless.compare(pair, runs, evidence.prompts, comparison.PLAIN),
        "methods": [row for row in rows if row["method"] in REPORTED],
        "without_repetition": [row for row in clean if row["method"] in REPORTED],
        "ltd_over_best_constant": comparison.over(runs, "ltd", "best_constant"),
        "replay_vs_live": predictions,
        "optimum": optimum_of(evidence, predictions),
        "learning": learning_of(evidence),
    }


def predicted(evidence: Evidence) -> list[dict[str, Any]]:
    """Per method: the replay's tokens per second on the test prompts beside the measured ones."""
    test, cycle = evidence.replays["test"], evidence.pair.config.cycle
    rows = []
    for method in evidence.methods:
        if method.controller is None:
            rate = comparison.plain_rate(test, evidence.table)
        else:
            learned = method.name == comparison.LEARNED
            totals = cycles.run(test, cycle, method.controller, method.params, learned)
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
    """What there was to gain on the test prompts, all by replay, and the share that LTD gained."""
    rate = {row["controller"]: row["predicted_tokens_per_second"] for row in predictions}
    most = optimum.dynamic_programme(evidence.replays["test"]).tokens_per_second
    gained = optimum.share_gained(rate["ltd"], rate["best_constant"], most)
    return {
        "best_constant": {
            "levels": evidence.best.levels,
            "size": evidence.best.size,
            "tokens_per_second": rate["best_constant"],
        },
        "dynamic_programme_tokens_per_second": most,
        "share_gained_by_ltd": 0.0 if np.isnan(gained) else float(gained),
    }


def learning_of(evidence: Evidence) -> dict[str, Any]:
    """What the policies cost."""
    last: dict[str, Point] = {point.stage: point for point in evidence.learned.curves}
    traces = evidence.traces.values()
    return {
        "decisions": sum(point.decisions for point in last.values()),
        "seconds": sum(point.seconds for point in last.values()),
        "positions_recorded": sum(len(trace.remaining) for trace in traces),
        "recording_seconds": sum(trace.provenance["seconds"] for trace in traces),
    }


def figures_of(evidence: Evidence) -> Figures:
    """The arrays that the plots show."""
    cycle, table = evidence.pair.config.cycle, evidence.table
    test, validation = evidence.replays["test"], evidence.replays["validation"]
    every = cycles.constants(test, cycle)
    ours = [run for run in evidence.runs if run.method == "ltd"]
    easy, hard = comparison.choices(ours, test, table)
    return Figures(
        sizes=cycle.sizes,
        committed=np.asarray(every.committed.sum(-1) / every.cycles.sum(-1)),
        cycle_seconds=table.cycle_seconds.mean(axis=0),
        draft_seconds=table.draft_seconds.mean(axis=0),
        verify_seconds=table.verify_seconds.mean(axis=0),
        curves=evidence.learned.curves,
        validation_constant=optimum.best_constant(validation, cycle).tokens_per_second,
        validation_optimum=optimum.dynamic_programme(validation).tokens_per_second,
        choices_easy=easy,
        choices_hard=hard,
    )


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
