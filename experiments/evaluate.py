"""Decode questions with every method in turns, and report: plain, EAGLE-3, best constant, LTD.

    python -m experiments.evaluate --policies runs/me/policies --questions DIR
    python -m experiments.evaluate --policies runs/me/policies --questions DIR --split all

Decodes the test questions: those in DIR/test, or of a folder without splits the 15 % of each file
that train_policies leaves for this. `--split all` takes every question, for files that the policies
were not trained on.
POLICIES is what train_policies wrote, with its latency table beside it. Writes OUT/report.html and
report.json, and OUT/answers/TASK/METHOD.jsonl as FastChat and EAGLE have them. Stopped, the same
command goes on. `--json` prints the report.
"""

import dataclasses
import json
from pathlib import Path

import tyro
from rich.console import Console

from experiments import command, report
from experiments.command import PairFlags
from experiments.report import tables
from experiments.studies import answers, results, settings_file
from ltd_jax import text as texts
from ltd_jax import workflow
from ltd_jax.files import UserError
from ltd_jax.policies import saved
from ltd_jax.workflow import QuestionFlags, Split


@dataclasses.dataclass(frozen=True)
class Config(PairFlags):
    """What to decode, with which policies."""

    policies: Path = Path("runs/embedded/policies")
    settings: Path | None = None  # file of autotune; the policies beside it are taken
    out: Path = Path("runs/evaluation")
    split: Split = "test"  # of the questions; all = also those that policies may have learned on
    asked: tyro.conf.OmitArgPrefixes[QuestionFlags] = QuestionFlags()
    allow_other_hardware: bool = False  # use policies that were trained for another device
    json: bool = False


def main() -> None:
    config = command.parse(lambda preset: Config())
    command.writable(config.out)
    console = Console(stderr=config.json)
    tuned = None if config.settings is None else settings_file.load(config.settings)
    if tuned is not None and config.policies != Config().policies:
        raise UserError("--settings says which policies; leave out --policies.")
    folder = config.policies if tuned is None else tuned.folder / "policies"
    trained = workflow.load_trained(folder)
    pair = command.load_pair(config, trained.policies.cycle)
    here, other = pair.device, config.allow_other_hardware
    if tuned is not None:
        settings_file.check_here(tuned, pair, other)
    saved.check(trained.policies, pair.fingerprint, here, other, config.dtype)
    workflow.must_sample_alike(trained.table, folder, pair)
    found = results.evaluate(pair, trained, config, config.split, console)
    page = report.write(found.report, found.figures, config.out)
    tokenizer = texts.load_tokenizer(config.target)
    answers.write(config.out / "answers", found.asking, found.runs, tokenizer)
    if config.json:
        print(json.dumps(found.report))
    console.print(tables.terminal_table(found.report))
    console.print(f"Report: {page}")


if __name__ == "__main__":
    command.run(main)
