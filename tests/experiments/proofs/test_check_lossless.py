"""Losslessness on random pairs of both kinds of draft; the command checks every family."""

import json
import sys

import pytest

from experiments.proofs import check_lossless, random_pairs
from ltd_jax.config import CycleConfig
from ltd_jax.decoding import generate
from ltd_jax.decoding.generate import Step
from ltd_jax.files import UserError
from ltd_jax.flags import SamplingFlags

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(4,), context=96, prefill_chunk=8)
CHECKED = ("qwen3, tied", "llama-3 with griffin")


@pytest.mark.parametrize("family", CHECKED)
def test_speculative_is_plain(family):
    pair = random_pairs.pair(family, cycle=CYCLE)
    row = check_lossless.compare(pair, random_pairs.prompts(family, 4), new_tokens=70, tokens=280)
    assert row.tokens == 280 and row.mismatches == row.near_ties == 0
    assert row.accepting > 0.15 and row.accepted_mean > 0.15 and row.distinct > 5


def test_a_broken_promise_is_seen(monkeypatch):
    """A plain text of which one token was changed."""
    honest = generate.generate_plain

    def changed(pair, prompt_T, new_tokens):
        for place, step in enumerate(honest(pair, prompt_T, new_tokens)):
            wrong = (step.tokens[0] + 1) % pair.config.target.vocab_size
            yield Step((wrong,)) if place == 50 else step

    monkeypatch.setattr(generate, "generate_plain", changed)
    pair = random_pairs.pair(CHECKED[0], cycle=CYCLE)
    prompts = random_pairs.prompts(CHECKED[0], 1)
    row = check_lossless.compare(pair, prompts, new_tokens=70, tokens=70)
    assert (row.tokens, row.mismatches) == (50, 1)


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(random_pairs, "CYCLE", CYCLE)
    flags = ["--families", "qwen3, tied", "--tokens", "60", "--new-tokens", "30"]
    monkeypatch.setattr(sys, "argv", ["check_lossless", *flags, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        check_lossless.main()
    assert ended.value.code == 0
    rows = json.loads((tmp_path / "lossless.json").read_text())["pairs"]
    assert rows["qwen3, tied"]["tokens"] == 60 and rows["qwen3, tied"]["mismatches"] == 0


def test_random_pairs_refuse_the_flags_of_folders():
    with pytest.raises(UserError, match="leave out `devices`"):
        check_lossless.pair_names(check_lossless.Config(devices=2))
    hot = check_lossless.Config(sampling=SamplingFlags(temperature=1.0))
    with pytest.raises(UserError, match="leave out the sampling flags"):
        check_lossless.pair_names(hot)
