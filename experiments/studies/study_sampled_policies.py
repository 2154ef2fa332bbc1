"""Do policies that learn from sampled texts beat greedy-trained ones at temperature 1?

    python -m experiments.studies.study_sampled_policies --out runs/sampled-policies
    python -m experiments.studies.study_sampled_policies --out runs/tiny --smoke

The paper uses its greedy-trained policies at temperature 1, too. Here three kinds of policies learn
from the same prompts with the same settings and the same latency table, measured at that
temperature:

    greedy     on greedy texts
    drawn      on sampled texts, with the tokens that were drawn
    expected   on sampled texts, with the tokens that were expected (replay/sampled.py)

All are replayed on sampled texts of the test prompts, beside the best constants of greedy and of
sampled texts. Writes OUT/study.json. Stopped, the same command goes on.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments import output, quickstart
from ltd_jax import flags, workflow
from ltd_jax.config import GREEDY
from ltd_jax.files import UserError, write_json
from ltd_jax.flags import SamplingFlags
from ltd_jax.learning.loop import Splits
from ltd_jax.models.pair import Pair
from ltd_jax.policies.policy import Policy
from ltd_jax.presets import Preset
from ltd_jax.questions import Split
from ltd_jax.replay import latency, optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator, Totals
from ltd_jax.workflow import Progress, StageConfig

RESAMPLES = 2000
SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class Config(quickstart.Config):
    """The quickstart's settings, at another temperature."""

    out: Path = Path("runs/sampled-policies")
    sampling: tyro.conf.OmitArgPrefixes[SamplingFlags] = SamplingFlags(temperature=1.0)
    repeats: int = 3  # trainings of each kind


def start(preset: Preset) -> Config:
    """The settings for a target where no flag changes them."""
    return Config(widths=preset.policy)


def smoke(config: Config) -> Config:
    """A few prompts, decisions and one training of each kind."""
    return dataclasses.replace(quickstart.smoke(config), repeats=1)


def main() -> None:
    config = flags.parse(start, description=__doc__, small=smoke)
    path = flags.writable(config.out) / "study.json"
    console = Console(stderr=config.json)
    pair = flags.load_pair(config, config.cycle)
    with flags.progress_bars(console) as progress:
        results = study(pair, config.stages, config.repeats, progress)
    head = {"environment": config.environment, "pair": pair.fingerprint}
    content = head | {"means": means(results["rows"])} | results
    write_json(path, content)
    console.print(terminal_table(results["rows"]))
    if config.json:
        print(json.dumps(content))
    console.print(f"Written: {path}")


class Compared(NamedTuple):
    """One policy of the study."""

    name: str
    seed: int
    policy: Policy


def study(pair: Pair, stages: StageConfig, repeats: int, progress: Progress) -> dict[str, Any]:
    """Everything, from recording to the rows.

    Args:
      repeats: trainings of each kind.

    Raises:
      UserError: the pair decodes greedily.
    """
    if pair.config.sampling.temperature == 0:
        raise UserError("There is nothing to study at temperature 0; give `temperature` 1.")
    table = workflow.load_or_profile(pair, stages, progress=progress)
    splits = record_kinds(pair, table, stages, progress)
    trace = workflow.load_or_record(pair, stages, "test", with_accept_prob=True, progress=progress)
    tests = {
        kind: simulate.build(trace, table, pair.config.cycle, expected=kind == "expected")
        for kind in ("drawn", "expected")
    }
    origin = {"fingerprint": pair.fingerprint, "latency": latency.fingerprint(table)}
    compared = [*best_constants(splits), *train_kinds(splits, stages, repeats, origin, progress)]
    totals = {kind: [_run(test, one.policy) for one in compared] for kind, test in tests.items()}
    rows = [
        {"policies": one.name, "seed": one.seed}
        | {kind: compare(totals[kind][index], totals[kind][0]) for kind in tests}
        for index, one in enumerate(compared)
    ]
    most = optimum.clairvoyant(tests["drawn"]).tokens_per_second
    return {"rows": rows, "clairvoyant_tokens_per_second": most, "texts": len(trace.text_start)}


def _run(simulator: Simulator, policy: Policy) -> Totals:
    return simulate.run(simulator, policy, charge_decisions=not policy.is_constant)


def record_kinds(
    pair: Pair, table: LatencyTable, stages: StageConfig, progress: Progress
) -> dict[str, Splits]:
    """What the three kinds of policies learn from."""
    record = functools.partial(workflow.load_or_record, progress=progress)
    sampled = [record(pair, stages, split, with_accept_prob=True) for split in SPLITS]
    greedy_stages = dataclasses.replace(stages, folder=stages.folder / "greedy")
    greedy = [record(pair.sampled(GREEDY), greedy_stages, split) for split in SPLITS]
    cycle = pair.config.cycle
    return {
        "expected": Splits(*(simulate.build(one, table, cycle, expected=True) for one in sampled)),
        "drawn": Splits(*(simulate.build(one, table, cycle) for one in sampled)),
        "greedy": Splits(*(simulate.build(one, table, cycle) for one in greedy)),
    }


def best_constants(splits: dict[str, Splits]) -> Iterator[Compared]:
    """The best constant of sampled texts, which all are compared with, and of greedy ones."""
    for kind in ("expected", "greedy"):
        best = optimum.best_constant(splits[kind].validation)
        name = f"constant of {kind} texts: levels {best.levels}, size {best.size}"
        yield Compared(name, 0, best.policy)


def train_kinds(
    splits: dict[str, Splits],
    stages: StageConfig,
    repeats: int,
    origin: dict[str, Any],
    progress: Progress,
) -> Iterator[Compared]:
    """Policies of every kind with several seeds."""
    for kind, data in splits.items():
        for seed in range(repeats):
            name = f"{kind} texts, seed {seed}"
            own_stages = dataclasses.replace(
                stages,
                folder=stages.folder / kind / f"seed-{seed}",
                learning=dataclasses.replace(stages.learning, seed=seed),
            )
            advance = lambda stage, share, name=name: progress(name, share)
            result = workflow.train_or_resume(data, own_stages, origin, progress=advance)
            yield Compared(f"ltd of {kind} texts", seed, result.policy)


def compare(totals: Totals, base: Totals) -> dict[str, float]:
    """Tokens per second, and over the base's with its 95 % interval by resampling texts."""
    sums, base_sums = (
        np.stack([np.asarray(one.committed), np.asarray(one.seconds)]) for one in (totals, base)
    )
    rate = lambda sums: sums[0] / sums[1]
    own_rate, texts = rate(sums.sum(axis=1)), sums.shape[1]
    draw = np.random.default_rng(0).integers(0, texts, (RESAMPLES, texts))
    draws = rate(sums[:, draw].sum(axis=-1)) / rate(base_sums[:, draw].sum(axis=-1))
    low, high = np.percentile(draws, (2.5, 97.5))
    return {
        "tokens_per_second": float(own_rate),
        "over_best_constant": float(own_rate / rate(base_sums.sum(axis=1))),
        "low": float(low),
        "high": float(high),
    }


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Per kind of policies: expected tokens per second over the best constant's, mean of seeds."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(row["policies"], []).append(row["expected"]["over_best_constant"])
    return {name: float(np.mean(values)) for name, values in ratios.items()}


def terminal_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row per policy."""
    lines = []
    for row in rows:
        mean, drawn = row["expected"], row["drawn"]
        line = (
            row["policies"],
            str(row["seed"]),
            f"{mean['tokens_per_second']:.1f}",
            f"{mean['over_best_constant']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})",
            f"{drawn['over_best_constant']:.3f}",
        )
        lines.append(line)
    return output.table(
        "Sampled texts of the test prompts, by replay; tokens as expected and as drawn",
        ("policies", "seed", "tokens/s", "over best constant", "drawn"),
        lines,
        "over best constant: with its 95 % interval by resampling texts",
    )


if __name__ == "__main__":
    flags.run(main)
