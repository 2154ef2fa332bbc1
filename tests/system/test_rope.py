"""RoPE that depends on a text's length: speculative and plain decoding and transformers agree.

Texts begin before the original context of 32 tokens and cross it, or begin beyond it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig, DraftConfig, PairConfig
from ltd_jax.decoding import generate
from ltd_jax.models import draft
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.pair import Model, Pair
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import record
from ltd_jax.replay import trace as traces
from ltd_jax.replay.record import Prompt
from tests.models.golden import families, rope

GOLDEN = np.load(rope.GOLDEN)
CYCLE = CycleConfig(beam_width=4, max_levels=2, sizes=(12,), context=96, prefill_chunk=16)
SETTING = Constant(levels=2, size=12)
PLACES = list(rope.PROMPTS)


@pytest.fixture(scope="module", params=rope.WHOLE)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def pair(name, tmp_path_factory):
    """The whole model of a kind with a random draft, which is turned in the same way."""
    folder = families.write(tmp_path_factory.mktemp(name), name, rope.WHOLE[name])
    config, params = hf_weights.load_target(folder, jnp.float32)
    E, X = config.hidden_size, config.vocab_size
    own = dataclasses.asdict(config)
    shared = {field: own[field] for field in ("head_count", "kv_head_count", "head_dim")}
    student = DraftConfig(X, X, E, E, 24, **shared, rope_scaling=config.rope_scaling)
    student_params = draft.init(jax.random.key(1), student, params.embedding, jnp.arange(X))
    return Pair(Model(params, student_params, PairConfig(config, student, CYCLE)), jnp.float32)


def tokens(steps):
    return [token for step in steps for token in step.tokens]


@pytest.mark.parametrize("place", PLACES)
def test_texts_are_those_of_transformers(pair, name, place):
    prompt_T = np.asarray(rope.PROMPTS[place], np.int32)
    expected = GOLDEN[f"{name}/{place}"].tolist()
    assert tokens(generate.generate_plain(pair, prompt_T, rope.NEW_TOKENS)) == expected
    steps = list(generate.generate(pair, SETTING, prompt_T, rope.NEW_TOKENS))
    assert tokens(steps) == expected
    assert sum(step.accepted for step in steps) > 0


def test_the_replay_is_live_decoding(pair):
    prompts = [Prompt(np.asarray(rope.PROMPTS[place], np.int32), 0) for place in PLACES]
    trace = record.record(pair, prompts, rope.NEW_TOKENS)
    accepted = traces.accepted(trace, CYCLE)[:, SETTING.levels - 1, 0]
    for first, prompt in zip(trace.text_start, prompts, strict=True):
        steps = generate.generate(pair, SETTING, prompt.token, rope.NEW_TOKENS)
        position = int(first) + len(next(steps).tokens) - 1
        for step in steps:
            if len(step.tokens) == step.accepted + 1:  # the text's end cuts no cycle here
                assert step.accepted == accepted[position]
            position += len(step.tokens)


@pytest.mark.parametrize("name", rope.WHOLE)
def test_with_plain_positions_the_same_weights_say_other_texts(name):
    for place in PLACES:
        assert GOLDEN[f"{name}/{place}"].tolist() != GOLDEN[f"{name}/{place}, plain"].tolist()
