"""A trained policy beside constants and plain decoding: decoded live in turns, and by replay.

What the quickstart reports; `experiments.report` lists the report's fields.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pretrain import repetition
from experiments.report import Figures
from ltd_jax import workflow
from ltd_jax.decoding import benchmark, lossless, runs
from ltd_jax.decoding.benchmark import LEARNED, MEAN, PLAIN, Method, Run
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Constant, eagle3_default
from ltd_jax.replay import latency, optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator
from ltd_jax.workflow import Progress, PromptSet, StageConfig, Trained

REPORTED = (PLAIN, "eagle3", "best_constant", LEARNED)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """All methods on the same prompts."""

    pair: Pair
    trained: Trained
    simulator: Simulator  # of the texts that are compared
    methods: list[Method]
    prompts: PromptSet
    runs: list[Run]


def compare(pair: Pair, stages: StageConfig, progress: Progress = workflow.silent) -> Comparison:
    """All stages in order, then the test questions decoded with every method in turns."""
    require_comparable(pair)
    trained = workflow.train_policies(pair, stages, progress=progress)
    trace = workflow.load_or_record(pair, stages, "test", progress=progress)
    prompts = workflow.load_prompts(pair, stages, "test")
    methods = methods_of(pair, trained)
    done = runs.load_or_decode(
        pair,
        methods,
        prompts.prompts,
        stages.questions.new_tokens,
        stages.folder / "runs.jsonl",
        progress=progress,
    )
    simulator = simulate.build(trace, trained.table, pair.config.cycle)
    return Comparison(pair, trained, simulator, methods, prompts, done)


def require_comparable(pair: Pair) -> None:
    """Raises UserError unless one seed gives one text: the report compares token by token."""
    if not pair.config.sampling.is_reproducible:
        raise UserError(
            "Texts of the sequential rule differ between methods, so they cannot be compared token "
            "by token, nor replayed; leave out `rule`: the coupled rule has the same distribution."
        )


def methods_of(pair: Pair, trained: Trained) -> list[Method]:
    """The four methods of the report, and a constant that tests the replay."""
    cycle = pair.config.cycle
    middle = Constant((cycle.max_levels + 1) // 2, cycle.sizes[len(cycle.sizes) // 2])
    return [
        Method(PLAIN),
        Method("eagle3", eagle3_default(cycle)),
        Method("best_constant", trained.best.policy),
        Method("constant:middle", middle),
        Method(LEARNED, trained.saved.policy),
    ]


def report_of(comparison: Comparison) -> dict[str, Any]:
    """The report, schema 2."""
    pair, done, prompts = comparison.pair, comparison.runs, comparison.prompts
    table, model = comparison.trained.table, pair.model
    methods = with_policy_share(benchmark.method_rows(done, prompts.tasks), comparison)
    over_constant = benchmark.over(done, LEARNED, "best_constant")
    assert over_constant is not None  # else there were no rows
    clean = without_repetition(done, prompts.tasks, comparison.simulator, table)
    predictions = replay_rows(comparison)
    return {
        "schema": 2,
        "environment": pair.environment,
        "pair": {
            "target": pair.names[0],
            "draft": pair.names[1],
            "fingerprint": pair.fingerprint,
            "parameters": [
                sum(leaf.size for leaf in jax.tree.leaves(params))
                for params in (model.target, model.draft)
            ],
        },
        "lossless": lossless.compare(pair, done, prompts.prompts, PLAIN),
        "methods": [row for row in methods if row["method"] in REPORTED],
        "without_repetition": [row for row in clean if row["method"] in REPORTED],
        "ltd_over_best_constant": dataclasses.asdict(over_constant),
        "replay_vs_live": predictions,
        "optimum": optimum_row(comparison, predictions),
        "learning": comparison.trained.learning,
        "skipped": list(prompts.skipped),
    }


def with_policy_share(
    rows: Sequence[dict[str, Any]], comparison: Comparison
) -> list[dict[str, Any]]:
    """The rows of `benchmark.method_rows` with `policy_share`, which is 0 but for LTD."""
    learned = [run for run in comparison.runs if run.method == LEARNED and run.committed]
    table, tasks = comparison.trained.table, comparison.prompts.tasks
    shares = {
        tasks[index]: policy_share([run for run in learned if run.task == index], table)
        for index in sorted({run.task for run in learned})
    }
    shares[MEAN] = float(np.mean(list(shares.values())))
    decides = lambda row: row["method"] == LEARNED
    return [row | {"policy_share": shares[row["task"]] if decides(row) else 0.0} for row in rows]


def policy_share(done: Sequence[Run], table: LatencyTable) -> float:
    """The policies' share of the time of the cycles that they chose.

    Both times are the latency table's, which measured them in turns inside the compiled cycle. Over
    the seconds of decoding, which are of another minute, it would show the machine's drift.
    """
    levels, sizes = benchmark.per_cycle(done, "levels"), benchmark.per_cycle(done, "sizes")
    cycles_DV = table.cycle_seconds.mean(axis=0)
    cycles = cycles_DV[levels - 1, np.searchsorted(table.sizes, sizes)].sum()
    decisions = levels.sum() * table.depth_seconds + len(levels) * table.size_seconds
    return float(decisions / (cycles + decisions))


def replay_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Per method: the replay's tokens per second on the same prompts beside the measured ones.

    Both are means of tasks, as in the table of methods.
    """
    simulator, rows = comparison.simulator, []
    measured = {
        row["method"]: row["tokens_per_second"]
        for row in benchmark.method_rows(comparison.runs, comparison.prompts.tasks)
        if row["task"] == MEAN
    }
    for method in comparison.methods:
        predicted = 1 / float(simulator.plain_seconds)
        if method.policy is not None:
            decides = method.name == LEARNED
            totals = simulate.run(simulator, method.policy, charge_decisions=decides)
            mean = simulate.mean_of_tasks(simulator, totals.committed, totals.seconds)
            predicted = float(mean)
        rows.append(
            {
                "controller": method.name,
                "predicted_tokens_per_second": predicted,
                "measured_tokens_per_second": measured[method.name],
            }
        )
    return rows


def optimum_row(comparison: Comparison, predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """The clairvoyant optimum on these prompts, by replay, and the share of it that LTD gained."""
    rate = {row["controller"]: row["predicted_tokens_per_second"] for row in predictions}
    most = optimum.mean_of_tasks(comparison.simulator)
    constant = rate["best_constant"]
    gained = optimum.share_gained(rate[LEARNED], constant, most)
    return {
        "best_constant": comparison.trained.best._replace(tokens_per_second=constant)._asdict(),
        "dynamic_programme_tokens_per_second": most,
        "share_gained_by_ltd": 0.0 if np.isnan(gained) else float(gained),
    }


def without_repetition(
    done: Sequence[Run], tasks: Sequence[str], simulator: Simulator, table: LatencyTable
) -> list[dict[str, Any]]:
    """Gains of the speculative methods in cycles that start outside of repeated stretches.

    Cycles are the measured ones, their time is the table's: single cycles are too short to be timed
    alone. A task without such a cycle has no row; the mean is over the tasks that have one.
    """
    text_of, rows = _text_by_prompt(done), []
    for method in dict.fromkeys(run.method for run in done if run.method != PLAIN):
        by_task: list[dict[str, Any]] = []
        for index, task in enumerate(tasks):
            mine = [run for run in done if (run.method, run.task) == (method, index)]
            mine = [run for run in mine if run.prompt in text_of]
            cycles = [_clean_cycles(run, simulator, text_of[run.prompt], table) for run in mine]
            committed, plain, seconds = np.concatenate(cycles, axis=1) if mine else np.zeros((3, 0))
            if len(committed):
                by_task.append(
                    {
                        "task": task,
                        "repetition_share": repetition.share([np.asarray(r.tokens) for r in mine]),
                        "committed_per_cycle": float(committed.mean()),
                        "speedup": float(plain.sum() / seconds.sum()),
                    }
                )
        if by_task:
            names = ("repetition_share", "committed_per_cycle", "speedup")
            means = {name: float(np.mean([row[name] for row in by_task])) for name in names}
            rows += [{"method": method, **row} for row in (*by_task, {"task": MEAN, **means})]
    return rows


def _text_by_prompt(done: Sequence[Run]) -> dict[int, int]:
    """Which text of a trace of the same prompts each prompt's is.

    The trace has no text of a prompt whose text ended with its first token.
    """
    longer = sorted({run.prompt for run in done if len(run.tokens) > 1})
    return {prompt: text for text, prompt in enumerate(longer)}


def _clean_cycles(run: Run, simulator: Simulator, text: int, table: LatencyTable) -> np.ndarray:
    """Tokens, their plain seconds and seconds of the cycles outside of repetitions: [3, cycles]."""
    committed, levels = np.asarray(run.committed), np.asarray(run.levels)
    start = np.cumsum(committed) - committed
    is_clean = ~repetition.repeated(np.asarray(run.tokens))[start]
    length = int(simulator.length[simulator.text_start[text]]) + start
    plain = committed * latency.interpolate(table, table.plain_seconds, length)
    size_index = np.searchsorted(table.sizes, run.sizes)
    by_setting = latency.interpolate(table, table.cycle_seconds, length)
    seconds = by_setting[np.arange(len(levels)), levels - 1, size_index]
    if run.method == LEARNED:
        seconds = seconds + levels * table.depth_seconds + table.size_seconds
    return np.stack([committed, plain, seconds])[:, is_clean]


def figures_of(comparison: Comparison) -> Figures:
    """The arrays that the plots show."""
    trained, simulator = comparison.trained, comparison.simulator
    table, validation = trained.table, trained.validation
    constants = simulate.constants(simulator)
    mean_of_tasks = functools.partial(simulate.mean_of_tasks, simulator)
    learned = [run for run in comparison.runs if run.method == LEARNED]
    easy, hard = choices(learned, simulator)
    most = None if validation is None else optimum.clairvoyant(validation).tokens_per_second
    return Figures(
        sizes=table.sizes,
        tokens_per_second=mean_of_tasks(constants.committed, constants.seconds),
        committed=mean_of_tasks(constants.committed, constants.cycles),
        cycle_seconds=table.cycle_seconds.mean(axis=0),
        draft_seconds=table.draft_seconds.mean(axis=0),
        verify_seconds=table.verify_seconds.mean(axis=0),
        plain_seconds=float(table.plain_seconds.mean()),
        curves=trained.curves,
        validation_constant=None if validation is None else trained.best.tokens_per_second,
        validation_optimum=most,
        choices_easy=easy,
        choices_hard=hard,
    )


def choices(done: Sequence[Run], simulator: Simulator) -> tuple[np.ndarray, np.ndarray]:
    """Counts [D, V] of the cycles of some runs by levels and size, at easy and at hard places.

    Easy = the most that any setting gets accepted there is above the median. Texts must be the
    simulator's own, all of them.
    """
    text_of, config = _text_by_prompt(done), simulator.config
    most_P = np.asarray(jnp.max(simulator.accepted, axis=(1, 2)))
    is_easy_P = most_P > np.median(most_P)
    easy, hard = np.zeros((2, config.max_levels, len(config.sizes)))
    for run in (run for run in done if run.prompt in text_of):
        position = int(simulator.text_start[text_of[run.prompt]])
        for levels, size, committed in zip(run.levels, run.sizes, run.committed, strict=True):
            counts = easy if is_easy_P[position] else hard
            counts[levels - 1, config.sizes.index(size)] += 1
            position = min(position + committed, len(is_easy_P) - 1)
    return easy, hard
