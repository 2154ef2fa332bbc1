"""What the comparisons of all methods share: flags, one decoding run, how results are kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from rich.console import Console

from experiments import command, output
from experiments.command import PairFlags
from experiments.report import canvas, leaderboard
from experiments.report.paper import PaperTable
from experiments.studies import contest, results, standings
from experiments.studies.contest import Contest
from ltd_jax import workflow
from ltd_jax.baselines import classifiers
from ltd_jax.config import PolicyConfig, describe_sampling
from ltd_jax.files import UserError
from ltd_jax.models.pair import Pair
from ltd_jax.policies import saved
from ltd_jax.policies.saved import SavedPolicies
from ltd_jax.replay.profile import ProfileConfig
from ltd_jax.workflow import QuestionFlags, Split, Trained


@dataclasses.dataclass(frozen=True)
class ArenaFlags(PairFlags):
    """Which pair, trained where, on which questions; one --out is one decoding run."""

    trained: Path = Path("runs/embedded")  # output folder of train_policies
    classifiers: Path | None = None  # of train_classifiers; None = TRAINED/classifiers
    out: Path = Path("runs/arena")
    results: Path | None = None  # folder of the numbers and pictures; None = OUT/results
    splits: tuple[Split, Split] = ("validation", "test")  # to tune on, to decode
    methods: tuple[str, ...] = ()  # of the compared ones; none = all that there are classifiers for
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags(prompts=6)
    measure: ProfileConfig = ProfileConfig(policy_visits=160)
    """of what decisions cost, and of the device at temperatures above 0"""
    allow_other_hardware: bool = False  # use policies that were trained for another device

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.out / "results" if self.results is None else self.results


@dataclasses.dataclass(frozen=True)
class SampledFlags(ArenaFlags):
    """And policies that learned at the temperature of the comparison."""

    sampled: Path | None = None
    """output folder of train_policies --temperature T; decodes beside the greedy-trained ones"""


class Clocking(NamedTuple):
    """What measuring this device at a temperature needs."""

    out: Path
    policy: PolicyConfig
    measure: ProfileConfig


def hold(
    config: ArenaFlags, temperature: float, console: Console, sampled: Path | None = None
) -> Contest:
    """Decodes with all methods in turns; what was decoded before is read.

    Above 0 the device is measured again, the same policies and classifiers decide, and constants
    and thresholds are tuned on texts of that temperature.

    Args:
      sampled: output folder of policies that learned from texts of this temperature.

    Raises:
      UserError: something is missing or of another pair, or --temperature says another one.
    """
    if config.sampling.temperature not in (0, temperature):
        raise UserError(
            f"--temperature {config.sampling.temperature:g} is not this experiment's, which is "
            f"{temperature:g}; leaderboard takes others by --temperatures."
        )
    out = command.writable(config.out / f"temperature-{temperature:g}")
    sampling = dataclasses.replace(config.sampling, temperature=temperature)
    here = dataclasses.replace(config, out=out, sampling=sampling)
    trained = workflow.load_trained(config.trained / "policies")
    pair = command.load_pair(here, trained.policies.cycle)
    results.must_be_comparable(pair)
    if temperature > 0:
        clocking = Clocking(out, trained.policies.widths, config.measure)
        trained = trained._replace(table=workflow.named_table(pair, clocking, None, console))
    workflow.must_sample_alike(trained.table, trained.policies.folder, pair)
    device = pair.device
    other, dtype = config.allow_other_hardware, config.dtype
    saved.check(trained.policies, pair.fingerprint, device, other, dtype)
    heads = classifiers.load_heads(config.classifiers or config.trained / "classifiers")
    classifiers.check_heads(heads, pair.fingerprint, pair.config.cycle)
    field = contest.Field(trained, heads, contest.families_of(config.methods, heads))
    if sampled is not None:
        field = field._replace(sampled=_of_sampled_texts(sampled / "policies", trained, pair))
        saved.check(field.sampled, pair.fingerprint, device, other, dtype)
    return contest.run(pair, field, here, config.splits, console)


def _of_sampled_texts(folder: Path, trained: Trained, pair: Pair) -> SavedPolicies:
    """Policies that learned from texts as this pair draws them, and fit into the others' cycle."""
    theirs, ours = saved.load(folder), trained.policies
    heat = pair.config.sampling.temperature
    if theirs.provenance.get("sampling") != describe_sampling(pair.config.sampling):
        raise UserError(
            f"The policies in {folder} did not learn from texts of these sampling flags; train "
            f"them with --temperature {heat:g} and what else differs from the default."
        )
    if (theirs.cycle, theirs.widths) != (ours.cycle, ours.widths):
        raise UserError(
            f"The policies in {folder} are of another cycle or other widths than those in "
            f"{ours.folder}; train both with the same flags."
        )
    return theirs


def document(found: Mapping[float, Contest]) -> dict[str, Any]:
    """Everything that contests at some temperatures gave, as JSON."""
    return {
        "rows": [row for heat, one in found.items() for row in standings.rows(one, heat)],
        "time": {f"{heat:g}": standings.time_rows(one) for heat, one in found.items()},
        "replay": {f"{heat:g}": standings.replay_rows(one) for heat, one in found.items()},
        "entries": {f"{heat:g}": standings.entry_rows(one.entries) for heat, one in found.items()},
        "lossless": {f"{heat:g}": standings.lossless_row(one) for heat, one in found.items()},
    }


def show(
    config: ArenaFlags,
    name: str,
    temperature: float,
    papers: Sequence[PaperTable],
    console: Console,
    sampled: Path | None = None,
) -> None:
    """A contest as a table beside the paper's, NAME.json and NAME.png."""
    content = document({temperature: hold(config, temperature, console, sampled)})
    rows = content["rows"]
    title = f"{papers[0].name}'s methods on this pair, temperature {temperature:g}"
    console.print(leaderboard.terminal_table(title, rows, temperature, papers))
    png = canvas.encode(leaderboard.bars(rows, temperature), "png")
    theirs = [leaderboard.paper_row(paper, row) for paper in papers for row in paper.rows]
    output.write(config.folder, name, config, content | {"paper": theirs}, png)
