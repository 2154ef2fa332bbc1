"""What is compared, and which runs of an earlier comparison are trusted."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.studies import compare
from ltd_jax import presets
from ltd_jax.config import CycleConfig
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay.record import Prompt
from ltd_jax.workflow import QuestionFlags
from tests.cycle import tiny
from tests.models.refusal import refusal

CYCLE = tiny.CONFIG.cycle
PROMPTS = [Prompt(np.array([token], np.int32), 0) for token in (3, 4)]


@dataclasses.dataclass(frozen=True)
class Settings:
    out: object
    asked: QuestionFlags = QuestionFlags(new_tokens=6)


def methods(levels=2):
    setting = policy_module.constant_params(levels, 6, CYCLE)
    return [Method("autoregressive"), Method("fixed", policy_module.constant(), setting)]


METHODS = methods()


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A folder with the runs of both prompts, and a function that compares again."""

    def decode(pair, method, prompt, index, new_tokens):
        return Run(method.name, index, 0, (1, 2), 0.1, 0.2, (0,), (0,), (1,))

    monkeypatch.setattr(benchmark, "decode", decode)
    pair, quiet = tiny.pair(0), Console(quiet=True)

    def again(asked=METHODS, pair=pair, found=PROMPTS, **flags):
        settings = Settings(tmp_path, QuestionFlags(**{"new_tokens": 6} | flags))
        return compare.runs_of(pair, asked, found, settings, quiet)

    again()
    return tmp_path / "runs.jsonl", again, pair


def test_runs_are_kept(measured, monkeypatch):
    path, again, _ = measured
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    monkeypatch.delattr(benchmark, "decode")  # nothing is decoded again
    assert sorted(run.prompt for run in again()) == [0, 0, 1, 1]


def test_an_interrupted_comparison_goes_on(measured):
    path, again, _ = measured
    path.write_text("\n".join(path.read_text().splitlines()[:3]))
    assert sorted(run.prompt for run in again()) == [0, 0, 1, 1]
    assert len(path.read_text().splitlines()) == 5


def test_runs_of_another_comparison_are_refused(measured):
    path, again, pair = measured
    other = {
        "fingerprint": lambda: again(pair=dataclasses.replace(pair, fingerprint="other")),
        "dtype": lambda: again(pair=dataclasses.replace(pair, dtype=jnp.bfloat16)),
        "prompts": lambda: again(found=PROMPTS[::-1]),
        "new_tokens": lambda: again(new_tokens=7),
        "methods": lambda: again(methods(levels=3)),
        "methods, too": lambda: again(methods()[:1]),
    }
    for name, action in other.items():
        words = "other prompts" if name == "prompts" else name.removesuffix(", too")
        assert f"runs.jsonl was made with {words}" in refusal(action)


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:-1],  # a prompt lacks a method
        lambda lines: [*lines[:-1], lines[-1][:-9]],
        lambda lines: [],
        lambda lines: ["[]", *lines[1:]],
        lambda lines: [lines[0], json.dumps({"method": "fixed"})],
    ],
)
def test_damaged_runs_are_refused(measured, damage):
    path, again, _ = measured
    path.write_text("\n".join(damage(path.read_text().splitlines())))
    assert "runs.jsonl is damaged" in refusal(again)


def test_eagle3_is_the_pairs_own_setting():
    paper, embedded = presets.PAPER, presets.EMBEDDED
    assert paper.eagle3 == (8, 60) and 60 in paper.cycle.sizes
    assert embedded.eagle3 == (presets.EAGLE3_LEVELS, presets.EAGLE3_SIZE)
    assert compare.nearest((0, 20, 40, 80), 60) == 40
    assert compare.nearest(CycleConfig().sizes, 16) == 16
