"""Sampled texts: one seed gives one text, whoever decodes it, and the replay knows all of it."""

import dataclasses

import numpy as np
import pytest

from experiments.proofs import distribution
from ltd_jax.config import CycleConfig, SamplingConfig
from ltd_jax.decoding import benchmark, lossless
from ltd_jax.decoding.benchmark import Method
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import record, simulate
from ltd_jax.replay.record import Prompt
from tests.replay import synthetic

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 12), context=64, prefill_chunk=8)
PROMPTS = [Prompt(np.array(tokens, np.int32), 0) for tokens in ([7], range(12), [3, 3, 9, 1])]
NEW = 30
HOT = SamplingConfig(
    temperature=1.3, top_p=0.9, top_k=6, repetition_penalty=1.3, draft_temperature=2.0
)
METHODS = [
    Method("plain"),
    *(
        Method(f"{levels}, {size}", Constant(levels, size))
        for levels, size in ((1, 12), (3, 12), (3, 0))
    ),
]


@pytest.fixture(scope="module")
def decoded():
    """Every prompt by every method."""
    pair = distribution.random_pair(12, CYCLE, seed=2).sampled(HOT, seed=3)
    runs = [
        benchmark.decode(pair, method, prompt, index, NEW)
        for method in METHODS
        for index, prompt in enumerate(PROMPTS)
    ]
    return pair, runs


def test_all_methods_give_plain_decodings_text(decoded):
    pair, runs = decoded
    checked = lossless.compare(pair, runs, PROMPTS, "plain")
    assert checked["mismatches"] == checked["near_ties"] == 0
    assert checked["tokens_compared"] == 3 * len(PROMPTS) * NEW
    accepted = [max(run.committed) - 1 for run in runs if run.method == "3, 12"]
    assert max(accepted) >= 2


def test_prompts_come_in_any_order(decoded):
    pair, runs = decoded
    back = list(reversed(range(len(PROMPTS))))
    texts = record.texts_of(pair, [PROMPTS[index].token for index in back], NEW)
    for index, text_T in zip(back, texts, strict=True):
        assert text_T.tolist() == list(runs[index].tokens)


def test_the_replay_is_exact_for_sampled_texts(decoded):
    pair, runs = decoded
    origin = {"tasks": ["a"], "fingerprint": "f", "prompts": "p", "new_tokens": NEW}
    trace = record.record(pair, PROMPTS, NEW, origin)
    simulator = simulate.build(trace, synthetic.table(CYCLE), CYCLE)
    for method in METHODS[1:]:
        totals = simulate.run(simulator, method.policy, charge_decisions=False)
        live = [len(run.committed) for run in runs if run.method == method.name]
        assert totals.cycles.tolist() == live


def test_another_seed_gives_another_text():
    pair = distribution.random_pair(12, CYCLE, seed=2)
    tokens = [prompt.token for prompt in PROMPTS]
    texts = [
        record.texts_of(pair.sampled(HOT, seed), tokens, NEW)[1].tolist() for seed in (0, 1, 2, 1)
    ]
    assert texts[1] == texts[3] and len({tuple(text) for text in texts}) == 3


def test_a_wrong_token_is_a_mismatch(decoded):
    pair, runs = decoded
    wrong = [
        dataclasses.replace(run, tokens=(*run.tokens[:9], (run.tokens[9] + 1) % 12))
        if run.method == "3, 12" and run.prompt == 1
        else run
        for run in runs
    ]
    checked = lossless.compare(pair, wrong, PROMPTS, "plain")
    assert (checked["mismatches"], checked["near_ties"]) == (1, 0)


def test_draws_on_the_edge_are_near_ties(monkeypatch):
    """All logits are equal, and moved by a tenth of the temperature: that turns some draws."""
    monkeypatch.setitem(lossless.STEPS, "float32", 1000)  # there is no temperature below 0.001
    pair = distribution.random_pair(12, CYCLE, seed=2)
    hair = SamplingConfig(temperature=10 * lossless.near_tie("float32", 0.0))
    token_T, text_T = PROMPTS[1].token, np.array([2], np.int32)
    assert not lossless.rounding_decides(pair.sampled(HOT), token_T, text_T)
    flat = pair.model.target.replace(head=pair.model.target.head * 0)
    level = dataclasses.replace(pair, model=pair.model.replace(target=flat))
    turned = {
        lossless.rounding_decides(level.sampled(hair, seed), token_T, text_T) for seed in range(20)
    }
    assert turned == {False, True}


def test_the_sequential_rule_is_not_compared_token_by_token(decoded):
    pair, runs = decoded
    sequential = SamplingConfig(temperature=1.0, rule="sequential")
    with pytest.raises(ValueError, match="coupled rule"):
        lossless.compare(pair.sampled(sequential), runs, PROMPTS, "plain")
