"""From all stages to the report: what was measured, predicted, and there to gain."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.pretrain import repetition
from experiments.report.figures import Figures
from experiments.studies import compare, results
from ltd_jax import workflow
from ltd_jax.decoding import benchmark, lossless
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.replay import latency, optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator
from ltd_jax.workflow import PromptSet, Recording, Settings, Split, Trained

REPORTED = (benchmark.PLAIN, "eagle3", "best_constant", benchmark.LEARNED)


class Results(NamedTuple):
    """A comparison: what the report is made of, and the runs behind it."""

    report: dict[str, Any]
    figures: Figures
    asking: PromptSet
    runs: list[Run]


class Evidence(NamedTuple):
    """What all stages gave."""

    pair: Pair
    trained: Trained
    replay: Simulator  # of the texts that are compared
    methods: list[Method]
    asking: PromptSet
    runs: list[Run]


def run(pair: Pair, settings: Settings, console: Console) -> Results:
    """All stages, in order."""
    must_be_comparable(pair)
    trained = workflow.train_policies(pair, settings, console)
    return evaluate(pair, trained, settings, "test", console)


def evaluate(
    pair: Pair, trained: Trained, settings: Recording, split: Split, console: Console
) -> Results:
    """The second half: all methods on the questions of a split, in turns."""
    must_be_comparable(pair)
    trace = workflow.load_or_record(pair, split, settings, console)
    replay = simulate.build(trace, trained.table, pair.config.cycle)
    asking = workflow.load_prompts(pair, settings.asked, split, settings.out / "traces")
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
    rows = benchmark.method_rows(runs, tasks, table)
    clean = without_repetition(runs, tasks, evidence.replay, table)
    return {
        "schema": 1,
        "environment": pair.environment,
        "pair": {
            "target": pair.names[0],
            "draft": pair.names[1],
            "fingerprint": pair.fingerprint,
            "parameters": [_count(pair.params.target), _count(pair.params.draft)],
        },
        "lossless": lossless.compare(pair, runs, evidence.asking.prompts, benchmark.PLAIN),
        "methods": [row for row in rows if row["method"] in REPORTED],
        "without_repetition": [row for row in clean if row["method"] in REPORTED],
        "ltd_over_best_constant": benchmark.over(runs, "ltd", "best_constant"),
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
            rate = benchmark.plain_rate(replay, evidence.trained.table)
        else:
            learned = method.name == benchmark.LEARNED
            totals = simulate.run(replay, cycle, method.controller, method.params, learned)
            rate = float(simulate.throughput(totals))
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
    every = simulate.constants(replay, cycle)
    ours = [run for run in evidence.runs if run.method == benchmark.LEARNED]
    easy, hard = choices(ours, replay, trained.table)
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


def without_repetition(
    runs: Sequence[Run], tasks: Sequence[str], replay: Simulator, table: LatencyTable
) -> list[dict[str, Any]]:
    """What the speculative methods gain in cycles that start outside of repeated stretches.

    Cycles are the measured ones, their time is the table's: single cycles are too short to be timed
    alone. A task without such a cycle has no row; the mean is over the tasks that have one.
    """
    rows, text = [], results._texts(runs)
    for method in dict.fromkeys(run.method for run in runs if run.method != benchmark.PLAIN):
        ours = [run for run in runs if run.method == method and run.prompt in text]
        found = []
        for index, task in enumerate(tasks):
            mine = [run for run in ours if run.task == index]
            parts = [results._outside(run, replay, text[run.prompt], table) for run in mine]
            committed, plain, seconds = np.concatenate(parts, axis=1) if mine else np.zeros((3, 0))
            if len(committed):
                speedup = float(plain.sum() / seconds.sum())
                share = repetition.share([np.asarray(run.tokens) for run in mine])
                found.append((task, share, float(committed.mean()), speedup))
        if found:
            means = [float(value) for value in np.mean([row[1:] for row in found], axis=0)]
            names = ("task", "repetition_share", "committed_per_cycle", "speedup")
            every = [*found, (benchmark.MEAN, *means)]
            rows += [{"method": method, **dict(zip(names, row, strict=True))} for row in every]
    return rows


def _texts(runs: Sequence[Run]) -> dict[int, int]:
    """Which text of a replay of the same prompts each prompt's is.

    The replay has no text of a prompt whose text ended with its first token.
    """
    longer = sorted({run.prompt for run in runs if len(run.tokens) > 1})
    return {prompt: text for text, prompt in enumerate(longer)}


def _outside(run: Run, replay: Simulator, text: int, table: LatencyTable) -> np.ndarray:
    """Of each cycle outside of repetitions [3, cycles]: tokens, plain seconds of them, seconds."""
    committed, levels = np.asarray(run.committed), np.asarray(run.levels)
    start = np.cumsum(committed) - committed
    clean = ~repetition.repeated(np.asarray(run.tokens))[start]
    length = int(replay.length[replay.first[text]]) + start
    plain = committed * latency.interpolate(table, table.plain_seconds, length)
    size = np.searchsorted(table.sizes, run.sizes)
    seconds = latency.interpolate(table, table.cycle_seconds, length)
    seconds = seconds[np.arange(len(levels)), levels - 1, size]
    if run.method == benchmark.LEARNED:
        seconds = seconds + levels * table.depth_seconds + table.size_seconds
    return np.stack([committed, plain, seconds])[:, clean]


def choices(runs: Sequence[Run], replay: Simulator, table: LatencyTable) -> tuple[np.ndarray, ...]:
    """Cycles of some runs by levels and size [D, V], at easy and at hard places.

    Easy = the most that any setting gets accepted there is above the median. Texts must be the
    replay's own, all of them.
    """
    text = results._texts(runs)
    most_P = np.asarray(jnp.max(replay.accepted, axis=(1, 2)))
    easy_P = most_P > np.median(most_P)
    counts = np.zeros((2, table.max_levels, len(table.sizes)))
    for run in (run for run in runs if run.prompt in text):
        position = int(replay.first[text[run.prompt]])
        for levels, size, committed in zip(run.levels, run.sizes, run.committed, strict=True):
            column = table.sizes.index(size)
            counts[int(easy_P[position]), levels - 1, column] += 1
            position = min(position + committed, len(easy_P) - 1)
    return counts[1], counts[0]
