"""A random Griffin draft is read back as one, and decodes losslessly as any draft does."""

import dataclasses

import numpy as np

from experiments.studies import random_draft
from ltd_jax.config import GriffinConfig
from ltd_jax.decoding import generate
from ltd_jax.models import pair as pairs
from ltd_jax.policies.policy import Constant
from tests.models import folders
from tests.system import tiny_pair
from tests.system.tiny_pair import CYCLE


def test_a_random_griffin_draft_is_a_pair_with_its_target(tmp_path):
    root = tiny_pair.write(tmp_path)
    random_draft.write_griffin(root / "griffin", root / "target")
    pair = pairs.load(root / "target", root / "griffin", cycle=CYCLE, dtype="float32")
    assert isinstance(pair.config.draft, GriffinConfig)
    assert pair.config.target == dataclasses.replace(pair.config.target, feature_layers=())
    assert pair.config.draft.hidden_size == folders.TARGET.hidden_size
    prompt_T = np.asarray([5, 6, 7], np.int32)
    steps = generate.generate(pair, Constant(levels=2, size=2), prompt_T, 12)
    speculative = [token for step in steps for token in step.tokens]
    plain = [token for step in generate.generate_plain(pair, prompt_T, 12) for token in step.tokens]
    assert speculative == plain
