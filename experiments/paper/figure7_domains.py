"""Figure 7: LTD over EAGLE-3's constants by domain, on the test questions, by replay.

    python -m experiments.paper.figure7_domains --out runs/embedded    about 1 minute on 2 CPU cores

OUT is an output folder of `ltd train`. A domain is the first part of a question's category: a
package of the standard library on the embedded pair, a subject where MMLU's questions are given as
question files. Writes OUT/results/figure7_domains.json and .png. The paper: better than EAGLE-3 on
54 of 57 subjects, 5 % in the mean (80 questions each, live).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from experiments import output
from experiments.output import ResultFlags
from experiments.report import plots
from ltd_jax import flags, workflow
from ltd_jax.files import UserError
from ltd_jax.policies import saved
from ltd_jax.policies.policy import eagle3_default
from ltd_jax.questions import Split
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import Totals
from ltd_jax.replay.trace import Trace
from ltd_jax.workflow import PromptSet


@dataclasses.dataclass(frozen=True)
class Config(ResultFlags):
    """Which policies, on which questions."""

    split: Split = "test"
    least_texts: int = 1  # domains with fewer texts are left out


def domains_of(prompts: PromptSet, trace: Trace) -> list[str]:
    """Per recorded text the first part of its question's category."""
    if len(prompts.turns) != len(trace.text_start):
        raise UserError("Some texts ended with their first token; leave out those questions.")
    return [turn.question.category.split(".")[0] for turn in prompts.turns]


def rows_of(
    domains: Sequence[str], ltd: Totals, eagle3: Totals, least: int
) -> list[dict[str, Any]]:
    """A row per domain: tokens per second of both, summed over its texts before dividing."""
    rows = []
    for domain in sorted(set(domains)):
        mine = np.asarray([name == domain for name in domains])
        if mine.sum() < least:
            continue
        ours, theirs = (
            float(np.asarray(totals.committed)[mine].sum() / np.asarray(totals.seconds)[mine].sum())
            for totals in (ltd, eagle3)
        )
        row = {"domain": domain, "texts": int(mine.sum()), "ltd": ours, "eagle3": theirs}
        rows.append(row | {"ltd_over_eagle3": ours / theirs})
    return rows


def main() -> None:
    config, console = flags.parse(lambda preset: Config()), Console()
    trained = workflow.load_trained(config.out)
    pair = flags.load_pair(config, trained.saved.cycle)
    here = dataclasses.replace(pair.identity, sampling=None)  # policies serve every sampling
    saved.check(trained.saved, here, other_hardware=True)
    workflow.require_sampling(trained, pair)
    with flags.progress_bars(console) as progress:
        trace = workflow.load_or_record(pair, config.stages, config.split, progress=progress)
    simulator = simulate.build(trace, trained.table, pair.config.cycle)
    eagle3 = eagle3_default(pair.config.cycle)
    rows = rows_of(
        domains_of(workflow.load_prompts(pair, config.stages, config.split), trace),
        simulate.run(simulator, trained.saved.policy),
        simulate.run(simulator, eagle3, charge_decisions=False),
        config.least_texts,
    )
    better = sum(row["ltd_over_eagle3"] > 1 for row in rows)
    mean = float(np.mean([row["ltd_over_eagle3"] for row in rows]))
    title = f"LTD better in {better} of {len(rows)} domains, {mean:.3f} in the mean"
    lines = [
        (row["domain"], str(row["texts"]), f"{row['ltd_over_eagle3']:.3f}")
        for row in sorted(rows, key=lambda row: -row["ltd_over_eagle3"])
    ]
    console.print(output.table(title, ("domain", "texts", "LTD over EAGLE-3"), lines))
    content = {"rows": rows, "better": better, "mean": mean, "paper": {"better": 54, "of": 57}}
    png = plots.encode(plots.domains(rows))
    output.write(config.folder, "figure7_domains", config, content, png)


if __name__ == "__main__":
    flags.run(main)
