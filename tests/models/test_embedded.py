"""The embedded target says what transformers says of its folder (see golden/make_embedded.py)."""

import json
import shutil

import numpy as np
import pytest

from ltd_jax import files
from ltd_jax import text as texts
from ltd_jax.config import CycleConfig
from ltd_jax.decoding import generate
from ltd_jax.models import pair as pairs
from ltd_jax.policies.policy import Constant
from tests.models.golden import families

ROWS = json.loads((families.GOLDEN.parent / "embedded.json").read_text())["rows"]
CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(6,), context=128, prefill_chunk=48)


def test_decoding_the_embedded_pair_gives_the_text_of_transformers():
    pair = pairs.load(cycle=CYCLE)
    policy = Constant(levels=3, size=6)
    tokenizer, accepted = texts.load_tokenizer(pair.folder), []
    for row in ROWS:
        prompt_T, wanted = np.array(row["prompt"]), row["tokens"]
        steps = list(generate.generate(pair, policy, prompt_T, families.NEW_TOKENS))
        found = [token for step in steps for token in step.tokens]
        stops = [place for place, token in enumerate(wanted) if token in pair.stop_tokens]
        assert found == wanted[: stops[0] + 1 if stops else None]
        assert tokenizer.decode(wanted) == row["text"]
        accepted += [step.accepted for step in steps[1:]]
    assert np.mean(accepted) > 0.5


def test_the_golden_texts_are_long_and_varied():
    assert len(ROWS) == 8
    assert all(len(row["tokens"]) == families.NEW_TOKENS for row in ROWS)
    assert len({tuple(row["tokens"]) for row in ROWS}) == 8


def test_weights_that_are_read_otherwise_are_another_pair():
    own = pairs.load(cycle=CYCLE)
    layers, theta = own.config.target.feature_layers, own.config.draft.rope_theta
    said = pairs.load(cycle=CYCLE, feature_layers=layers, draft_rope_theta=theta)
    assert said.fingerprint == own.fingerprint
    deeper = pairs.load(cycle=CYCLE, feature_layers=(1, 6, 9))
    faster = pairs.load(cycle=CYCLE, draft_rope_theta=5e5)
    both = pairs.load(cycle=CYCLE, feature_layers=(1, 6, 9), draft_rope_theta=5e5)
    assert len({each.fingerprint for each in (own, deeper, faster, both)}) == 4


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("draft/config.json", {"rope_theta": 5e5}),
        ("target/config.json", {"rms_norm_eps": 1e-6}),
        ("target/generation_config.json", {"eos_token_id": 7}),
    ],
)
def test_settings_of_a_folder_are_part_of_the_pairs_identity(tmp_path, file, fields):
    for name in ("target", "draft"):
        shutil.copytree(files.ASSETS / name, tmp_path / name)
    load = lambda: pairs.load(tmp_path / "target", tmp_path / "draft", cycle=CYCLE).fingerprint
    before, path = load(), tmp_path / file
    there = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(there | {"unread": 1}))
    assert load() == before == pairs.load(cycle=CYCLE).fingerprint
    path.write_text(json.dumps(there | fields))
    assert load() != before
