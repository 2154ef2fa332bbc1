"""All compared methods on one pair: tuned alike, decoded in turns, every one's own time counted.

Thresholds are tuned on one split by replay; another split is decoded live, interleaved, and
replayed for what there was to gain. A method at its published setting is one entry, the best of its
25 settings another, named "ddd tuned". Policies that learned from sampled texts may take part
beside those of greedy ones.

    contest     decodes at one temperature, or reads what was decoded before
    document    what contests gave, as JSON
    show        one contest as a table beside the paper's, NAME.json and NAME.png
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console

from experiments import comparison, output
from experiments.output import ResultFlags
from experiments.report import paper as papers
from experiments.report import plots, tables
from experiments.report.paper import PaperTable
from experiments.studies import tuning
from ltd_jax import flags, workflow
from ltd_jax.baselines import catalogue, classifiers
from ltd_jax.baselines.catalogue import Baseline, Needs
from ltd_jax.baselines.classifiers import Classifiers
from ltd_jax.baselines.cost_aware import costs_of
from ltd_jax.config import CycleConfig, describe_sampling
from ltd_jax.decoding import benchmark, lossless, runs
from ltd_jax.decoding.benchmark import LEARNED, MEAN, PLAIN, Method, Run
from ltd_jax.files import ResumableStore, UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies import saved
from ltd_jax.policies.policy import Policy, eagle3_default
from ltd_jax.policies.saved import SavedPolicy
from ltd_jax.questions import QuestionConfig, Split
from ltd_jax.replay import optimum, profile, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.profile import CycleTimer, Overhead, ProfileConfig
from ltd_jax.replay.simulate import Simulator, Totals
from ltd_jax.workflow import Progress, PromptSet, StageConfig, Trained

BEST = "best constant"
EAGLE3 = "eagle3"
TUNED = " tuned"
SAMPLED = f"{LEARNED} of sampled texts"
MAPS = Path("/proc/self/maps")
MOST_MAPS = 25_000  # before the next stage, which may need as many again


@dataclasses.dataclass(frozen=True)
class ArenaFlags(ResultFlags):
    """Which pair, trained where, on which questions; one --out is one decoding run."""

    trained: Path = Path("runs/embedded")  # output folder of `ltd train`
    classifiers: Path | None = None  # file of trained ones; None = TRAINED/classifiers.safetensors
    out: Path = Path("runs/arena")
    splits: tuple[Split, Split] = ("validation", "test")  # to tune on, to decode
    methods: tuple[str, ...] = ()  # of the compared ones; none = all that there are classifiers for
    asked: tyro.conf.OmitArgPrefixes[QuestionConfig] = QuestionConfig(prompts=6)
    profiling: ProfileConfig = ProfileConfig(policy_visits=160)
    """of what decisions cost, and of the device at temperatures above 0"""
    allow_other_hardware: bool = False  # use policies that were trained for another device


@dataclasses.dataclass(frozen=True)
class SampledFlags(ArenaFlags):
    """And policies that learned at the temperature of the comparison."""

    sampled: Path | None = None
    """output folder of `ltd train --temperature T`; decodes beside the greedy-trained ones"""


@dataclasses.dataclass(frozen=True, eq=False)
class Entry(Method):
    """One way to decode, where its setting comes from and what its decisions cost."""

    source: str = dataclasses.field(kw_only=True)
    overhead: Overhead = profile.FREE


@dataclasses.dataclass(frozen=True, eq=False)
class Contest:
    """What decoding with all methods in turns gave."""

    pair: Pair
    table: LatencyTable
    entries: tuple[Entry, ...]
    prompts: PromptSet
    simulator: Simulator  # of the split that was decoded
    runs: Sequence[Run]

    @functools.cached_property
    def measured(self) -> list[dict[str, Any]]:
        """Every method on every task and on their mean, in the order of the entries."""
        names = [entry.name for entry in self.entries]
        rows = benchmark.method_rows(self.runs, self.prompts.tasks)
        return sorted(rows, key=lambda row: names.index(row["method"]))

    @functools.cached_property
    def predicted(self) -> dict[str, Totals]:
        """What the simulator says of every method but plain decoding, its own time counted."""
        return {
            entry.name: simulate.run(
                profile.with_overhead(self.simulator, entry.overhead), entry.policy
            )
            for entry in self.entries
            if entry.policy is not None
        }


# Decoding


def contest(
    config: ArenaFlags, temperature: float, console: Console, *, sampled: Path | None = None
) -> Contest:
    """Decodes with all methods in turns; what was decoded before is read.

    Above 0 the device is measured again, the same policies and classifiers decide, and constants
    and thresholds are tuned on texts of that temperature.

    Args:
      sampled: output folder of policies that learned from texts of this temperature.

    Raises:
      UserError: something is missing or of another pair, or `temperature` says another one.
    """
    if config.sampling.temperature not in (0, temperature):
        raise UserError(
            f"`temperature` {config.sampling.temperature:g} is not this experiment's, which is "
            f"{temperature:g}; leaderboard takes others by `temperatures`."
        )
    out = flags.writable(config.out / f"temperature-{temperature:g}")
    sampling = dataclasses.replace(config.sampling, temperature=temperature)
    trained = workflow.load_trained(config.trained)
    _require_trained_shapes(config, trained)
    heated = dataclasses.replace(config, sampling=sampling)
    pair = flags.load_pair(heated, trained.saved.cycle)
    comparison.require_comparable(pair)
    stages = dataclasses.replace(config.stages, folder=out, widths=trained.saved.policy.widths)
    with flags.progress_bars(console) as progress:
        if temperature > 0:
            table = workflow.load_or_profile(pair, stages, progress=progress)
            trained = dataclasses.replace(trained, table=table)
        entrants = _load_entrants(config, pair, trained, sampled)
        return _decode(pair, entrants, stages, config.splits, progress)


def _require_trained_shapes(config: ArenaFlags, trained: Trained) -> None:
    for name, asked in config.shapes.changes.items():
        known = getattr(trained.saved.cycle, name)
        if asked != known:
            raise UserError(
                f"The policies in {trained.saved.path} were trained with {name} {known}, not "
                f"{asked}; leave out `{name}` or train them again."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class _Entrants:
    """Who takes part beside plain decoding and constants."""

    trained: Trained
    classifiers: Classifiers
    baselines: tuple[Baseline, ...]
    sampled: SavedPolicy | None  # of the same shapes, from sampled texts


def _load_entrants(
    config: ArenaFlags, pair: Pair, trained: Trained, sampled: Path | None
) -> _Entrants:
    workflow.require_sampling(trained, pair)
    here = dataclasses.replace(pair.identity, sampling=None)  # all policies decide on all texts
    saved.check(trained.saved, here, other_hardware=config.allow_other_hardware)
    path = config.classifiers or config.trained / "classifiers.safetensors"
    judges = classifiers.load(path)
    classifiers.check(judges, here)
    of_sampled_texts = None
    if sampled is not None:
        of_sampled_texts = _load_sampled(sampled, trained, pair)
        saved.check(of_sampled_texts, here, other_hardware=config.allow_other_hardware)
    return _Entrants(trained, judges, choose_baselines(config.methods, judges), of_sampled_texts)


def _load_sampled(folder: Path, trained: Trained, pair: Pair) -> SavedPolicy:
    """Policies that learned from texts as this pair draws them, and fit into the others' cycle."""
    theirs, ours = saved.load(folder / "policy.safetensors"), trained.saved
    sampling = pair.config.sampling
    if theirs.provenance.get("sampling") != describe_sampling(sampling):
        raise UserError(
            f"The policies in {folder} did not learn from texts of these sampling flags; train "
            f"them with `temperature` {sampling.temperature:g} and what else differs from the "
            "default."
        )
    if (theirs.cycle, theirs.policy.widths) != (ours.cycle, ours.policy.widths):
        raise UserError(
            f"The policies in {folder} are of another cycle or other widths than those in "
            f"{ours.path}; train both with the same flags."
        )
    return theirs


def choose_baselines(names: Sequence[str], judges: Classifiers) -> tuple[Baseline, ...]:
    """The compared methods of these names; without names all that there are classifiers for.

    Raises:
      UserError: a name is unknown, or its classifier was not trained.
    """
    ready = {
        baseline.name: baseline
        for baseline in catalogue.BASELINES
        if baseline.classifier in (None, *judges.networks)
    }
    for name in names:
        if name not in catalogue.NAMES:
            known = ", ".join(catalogue.NAMES)
            raise UserError(f"There is no compared method {name!r}; choose {known}.")
        if name not in ready:
            raise UserError(f"{judges.path} holds no classifier for {name}; train it first.")
    return tuple(ready[name] for name in ready if not names or name in names)


def _decode(
    pair: Pair,
    entrants: _Entrants,
    stages: StageConfig,
    splits: tuple[Split, Split],
    progress: Progress,
) -> Contest:
    """Tunes on the first split, decodes and replays the second."""
    with_hidden = any(baseline.classifier == "specdec" for baseline in entrants.baselines)
    table = entrants.trained.table
    tuned_on, test = (
        simulate.build(
            workflow.load_or_record(
                pair, stages, split, with_hidden=with_hidden, progress=progress
            ),
            table,
            pair.config.cycle,
        )
        for split in splits
    )
    overhead_of = time_once(pair, entrants.classifiers, stages)
    entries = list_entries(pair.config.cycle, entrants, tuned_on, overhead_of, progress)
    forget_programs_if_many()  # each kind's cycle was compiled once to time its decisions
    prompts = workflow.load_prompts(pair, stages, splits[1])
    decoded = runs.load_or_decode(
        pair,
        entries,
        prompts.prompts,
        stages.questions.new_tokens,
        stages.folder / "runs.jsonl",
        progress=progress,
    )
    forget_programs_if_many()
    return Contest(pair, table, tuple(entries), prompts, test, decoded)


def time_once(
    pair: Pair, judges: Classifiers, stages: StageConfig
) -> Callable[[str, Policy], Overhead]:
    """What decisions cost on this device, by a method's name and policy.

    Measured when asked and kept in the folder's decisions.json. Methods of one kind and shape, such
    as GammaTune and GammaTune+, share a program and are measured once.
    """
    profiling = stages.profiling
    timer = CycleTimer(pair, profiling.contexts[0], profiling.cycles)
    shapes = {
        name: [list(leaf.shape) for leaf in jax.tree.leaves(variables)]
        for name, variables in judges.networks.items()
    }
    identity = profile.profile_identity(pair, profiling) | {"classifiers": shapes}
    store = ResumableStore(stages.folder / "decisions.json", identity)
    names: dict[Any, str] = {}

    def overhead_of(name: str, policy: Policy) -> Overhead:
        first_name = names.setdefault(jax.tree.structure(policy), name)
        measure = lambda: profile.time_decisions(timer, policy, profiling.policy_visits)
        return Overhead(*store.entry(first_name, measure).tolist())

    return overhead_of


def list_entries(
    config: CycleConfig,
    entrants: _Entrants,
    simulator: Simulator,
    overhead_of: Callable[[str, Policy], Overhead],
    progress: Progress,
) -> list[Entry]:
    """Plain decoding, the constants, every method published and tuned, LTD of either texts."""
    table, best = entrants.trained.table, optimum.best_constant(simulator)
    by_replay = "grid search over all constants by replay"
    entries = [
        Entry(PLAIN, source="the target alone"),
        Entry(EAGLE3, eagle3_default(config), source="EAGLE-3's constants, scaled"),
        Entry(BEST, best.policy, source=by_replay),
    ]
    needs = Needs(entrants.classifiers, costs_of(table))
    for done, baseline in enumerate(entrants.baselines, 1):
        policy = baseline.published(config, needs)
        overhead = overhead_of(baseline.name, policy)
        entry = Entry(baseline.name, policy, source=baseline.source, overhead=overhead)
        tuned = tuning.tune(simulator, baseline.name, policy, overhead)
        entries.append(entry)
        if tuned is not policy:
            name = baseline.name + TUNED
            entries.append(dataclasses.replace(entry, name=name, policy=tuned))
        progress("time and tune", done / len(entrants.baselines))
    overhead = Overhead(table.depth_seconds, table.size_seconds)
    policy = entrants.trained.saved.policy
    learned = Entry(LEARNED, policy, source="this library", overhead=overhead)
    entries.append(learned)
    if entrants.sampled is not None:  # one program and one cost with those before
        policy = entrants.sampled.policy
        entries.append(dataclasses.replace(learned, name=SAMPLED, policy=policy))
    return entries


def forget_programs_if_many() -> bool:
    """Between two stages: drops all compiled programs where they hold many memory maps.

    JAX keeps programs for as long as a process lives. Linux allows a process 65,530 memory maps
    (vm.max_map_count); a comparison of all methods compiles some twenty cycles, and beyond the
    limit the next compilation ends the process. What is still needed is compiled again.

    Returns:
      whether programs were dropped; never where the system tells of no maps.
    """
    try:
        are_many = MAPS.read_bytes().count(b"\n") > MOST_MAPS
    except OSError:
        return False
    if are_many:
        jax.clear_caches()
    return are_many


# From contests to rows


def document(contests: Mapping[float, Contest]) -> dict[str, Any]:
    """Everything that contests at some temperatures gave, as JSON."""
    by_temperature = lambda rows_of: {f"{heat:g}": rows_of(one) for heat, one in contests.items()}
    return {
        "rows": [row for heat, one in contests.items() for row in leaderboard_rows(one, heat)],
        "replay": by_temperature(replay_rows),
        "entries": by_temperature(entry_rows),
        "lossless": by_temperature(
            lambda one: lossless.compare(one.pair, one.runs, one.prompts.prompts, PLAIN)
        ),
    }


def leaderboard_rows(contest: Contest, temperature: float) -> list[dict[str, Any]]:
    """One row per method and task, and one for the mean of the tasks.

    `benchmark.STATISTIC` says what the numbers are. `over_best_constant` is tokens per second over
    the best constant's; `share_of_optimum` is a share, by replay, of the way from the best constant
    to the clairvoyant optimum, null where there is none.
    """
    tasks, rows = contest.prompts.tasks, []
    first_P = np.asarray(contest.simulator.text_start)
    least_seconds = optimum.clairvoyant(contest.simulator).seconds[first_P]
    for row in contest.measured:
        name, task = row["method"], None if row["task"] == MEAN else tasks.index(row["task"])
        runs = [run for run in contest.runs if task in (None, run.task)]
        over_best = benchmark.over(runs, name, BEST)
        one = {
            "method": name,
            "task": row["task"],
            "temperature": temperature,
            "tokens_per_second": row["tokens_per_second"],
            "speedup": row["speedup"],
            "low": row["speedup_low"],
            "high": row["speedup_high"],
            "over_best_constant": over_best and over_best.ratio,
            "committed_per_cycle": row["committed_per_cycle"],
            "share_of_optimum": _share_of_optimum(contest, name, least_seconds, task),
        }
        rows.append(one)
    return rows


def _share_of_optimum(
    contest: Contest, name: str, least_seconds: np.ndarray, task: int | None
) -> float | None:
    if name not in contest.predicted:
        return None
    totals, best = contest.predicted[name], contest.predicted[BEST]
    simulator, task_of_text = contest.simulator, np.asarray(contest.simulator.task)
    texts = np.flatnonzero(task_of_text == task) if task is not None else slice(None)
    of_texts = simulator.replace(task=task_of_text[texts])
    mean = lambda tokens, seconds: float(
        simulate.mean_of_tasks(of_texts, np.asarray(tokens)[texts], np.asarray(seconds)[texts])
    )
    rate = lambda one: mean(one.committed, one.seconds)
    share = optimum.share_gained(rate(totals), rate(best), mean(best.committed, least_seconds))
    return None if np.isnan(share) else float(share)


def _mean_rate(contest: Contest, name: str) -> np.ndarray:
    totals = contest.predicted[name]
    return simulate.mean_of_tasks(contest.simulator, totals.committed, totals.seconds)


def replay_rows(contest: Contest) -> list[dict[str, Any]]:
    """Per method: the replay's tokens per second beside the measured ones, and mean choices.

    All are means of tasks.
    """
    return [
        {
            "method": row["method"],
            "predicted_tokens_per_second": float(_mean_rate(contest, row["method"])),
            "measured_tokens_per_second": row["tokens_per_second"],
            "levels_mean": row["levels_mean"],
            "size_mean": row["size_mean"],
        }
        for row in contest.measured
        if row["task"] == MEAN and row["method"] in contest.predicted
    ]


def entry_rows(contest: Contest) -> list[dict[str, Any]]:
    """What each method was set to, where that comes from, and what a decision costs."""
    settings = [
        {} if entry.policy is None else catalogue.settings(entry.policy)
        for entry in contest.entries
    ]
    return [
        {
            "method": entry.name,
            "setting": {key: np.ravel(value).tolist() for key, value in setting.items()},
            "source": entry.source,
            "microseconds_per_pass": 1e6 * entry.overhead.depth_seconds,
            "microseconds_per_cycle": 1e6 * entry.overhead.size_seconds,
        }
        for entry, setting in zip(contest.entries, settings, strict=True)
    ]


def show(
    config: ArenaFlags,
    name: str,
    temperature: float,
    paper_tables: Sequence[PaperTable],
    *,
    sampled: Path | None = None,
) -> None:
    """Decodes at one temperature; prints a table beside the paper's, writes NAME.json and .png."""
    console = Console()
    content = document({temperature: contest(config, temperature, console, sampled=sampled)})
    rows = content["rows"]
    title = f"{paper_tables[0].name}'s methods on this pair, temperature {temperature:g}"
    console.print(tables.leaderboard(title, rows, temperature, paper_tables))
    picture = plots.encode(plots.leaderboard(rows, temperature))
    content["paper"] = papers.as_json(paper_tables)
    output.write(config.folder, name, config, content, picture)
