"""An output folder in which everything is recorded already: synthetic texts of the embedded pair.

The experiments find them as if they had been recorded for the embedded questions, so only the
experiments themselves run, in a size of seconds.
"""

import dataclasses
import sys
from pathlib import Path

from ltd_jax import flags, workflow
from ltd_jax.config import CycleConfig
from ltd_jax.flags import PairFlags
from ltd_jax.questions import QuestionConfig
from ltd_jax.replay import latency, record
from ltd_jax.replay import trace as traces
from ltd_jax.workflow import StageConfig
from tests.replay import synthetic

CYCLE = CycleConfig(beam_width=2, max_levels=4, sizes=(0, 1, 2, 4, 8))
ASKED = QuestionConfig(prompts=1, new_tokens=24)
TEXTS = (24, 17, 20, 22)
TASKS = ("code", "tests", "docs", "tables")
TEN_WORDS = "--{0}.total-steps 512 --{0}.environments 32 --{0}.rollout 256 --{0}.minibatch 64"
ARGUMENTS = (
    "--seeds 2 --prompts 1 --new-tokens 24 --beam-width 2 --max-levels 4 "
    "--sizes 0 1 2 4 8 --context 512 "
    "--widths.size-actor 8 --widths.size-critic 8 --widths.depth-actor 8 --widths.depth-critic 8 "
    f"{TEN_WORDS.format('learning.size')} --learning.size.epochs 2 "
    f"{TEN_WORDS.format('learning.depth')} --learning.depth.epochs 2 "
    "--learning.alternations 1 --learning.validate-every 1 --learning.exact.updates 2 "
    "--learning.exact.environments 16 --learning.exact.cycles 2 --learning.exact.steps 2 "
    "--learning.exact.minibatch 16 --profiling.policy-visits 2 --profiling.cycles 1"
).split()


def make(out: Path, cycle: CycleConfig = CYCLE) -> Path:
    """Writes the three traces and a latency table; returns the folder."""
    pair = flags.load_pair(PairFlags(dtype="float32"), cycle)
    stages = StageConfig(out, questions=ASKED)
    for seed, split in enumerate(("train", "validation", "test")):
        prompts = workflow.load_prompts(pair, stages, split).prompts
        made = synthetic.trace(cycle, seed=seed, text_tokens=TEXTS, agreement=0.9)
        made.task[:] = made.text
        origin = record.provenance_of(pair, prompts, ASKED.new_tokens, tasks=TASKS)
        made = dataclasses.replace(made, provenance=origin | {"seconds": 1.0})
        traces.save(made, stages.traces / f"{split}.npz")
    table = synthetic.table(cycle)
    table.provenance.update(fingerprint=pair.fingerprint)
    latency.save(table, stages.latency)
    return out


def run(module, monkeypatch, *arguments: str) -> None:
    """A command's main, in this process."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()
