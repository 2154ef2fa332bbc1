"""Figure 7: LTD over EAGLE-3's constants by domain, on the test questions, by replay.

    python -m experiments.paper.figure7_domains --out runs/embedded        about 1 minute on 2 CPU cores

OUT is an output folder of train_policies. A domain is the first part of a question's category: a
package of the standard library on the embedded pair, a subject where MMLU's questions are given as
question files. Writes OUT/results/figure7_domains.json and .png. The paper: better than EAGLE-3 on
54 of 57 subjects, 5 % in the mean (80 questions each, live).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments import command, output
from experiments.command import PairFlags
from experiments.report import curves
from experiments.studies import contest
from ltd_jax import workflow
from ltd_jax.policies import saved
from ltd_jax.replay import simulate
from ltd_jax.workflow import QuestionFlags, Split


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """Which policies, on which questions."""

    out: Path = Path("runs/embedded")
    results: Path | None = None  # None = OUT/results
    split: Split = "test"
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    least_texts: int = 1  # domains with fewer texts are left out


def rows_of(domains: list[str], ours: Any, theirs: Any, least: int) -> list[dict[str, Any]]:
    """A row per domain: tokens per second of both, summed over its texts before dividing."""
    rows = []
    for domain in sorted(set(domains)):
        mine = np.asarray([each == domain for each in domains])
        rate = [
            float(np.asarray(totals.committed)[mine].sum() / np.asarray(totals.seconds)[mine].sum())
            for totals in (ours, theirs)
        ]
        row = {"domain": domain, "texts": int(mine.sum()), "ltd": rate[0], "eagle3": rate[1]}
        rows += [row | {"ltd_over_eagle3": rate[0] / rate[1]}] if mine.sum() >= least else []
    return rows


def main() -> None:
    config = command.parse(lambda preset: Config())
    console = Console()
    trained = workflow.load_trained(config.out / "policies")
    pair = command.load_pair(config, trained.policies.cycle)
    saved.check(trained.policies, pair.fingerprint, pair.device, other_device=True)
    workflow.must_sample_alike(trained.table, config.out / "policies", pair)
    trace = workflow.load_or_record(pair, config.split, config, console)
    replay = simulate.build(trace, trained.table, pair.config.cycle)
    asking = workflow.load_prompts(pair, config.asked, config.split, config.out / "traces")
    domains = contest.domains(asking, trace)
    entries = (contest.learned_entry(pair, trained), contest.fixed_entries(pair, replay)[1])
    totals = [contest.predicted(pair, replay, entry) for entry in entries]
    rows = rows_of(domains, *totals, config.least_texts)
    better = sum(row["ltd_over_eagle3"] > 1 for row in rows)
    mean = float(np.mean([row["ltd_over_eagle3"] for row in rows]))
    shown = Table(title=f"LTD better in {better} of {len(rows)} domains, {mean:.3f} in the mean")
    for heading in ("domain", "texts", "LTD over EAGLE-3"):
        shown.add_column(heading, justify="right")
    for row in sorted(rows, key=lambda row: -row["ltd_over_eagle3"]):
        shown.add_row(row["domain"], str(row["texts"]), f"{row['ltd_over_eagle3']:.3f}")
    console.print(shown)
    content = {"rows": rows, "better": better, "mean": mean, "paper": {"better": 54, "of": 57}}
    folder = config.results or config.out / "results"
    output.write(folder, "figure7_domains", config, content, curves.domains(rows))


if __name__ == "__main__":
    command.run(main)
