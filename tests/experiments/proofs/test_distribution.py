"""The compiled cycle draws texts of the target's law, and the test of it can fail."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.proofs import distribution
from ltd_jax.config import CycleConfig, SamplingConfig
from ltd_jax.cycle import accept, sample
from ltd_jax.policies.policy import Constant

CYCLE = CycleConfig(beam_width=3, max_levels=2, sizes=(5,), context=24, prefill_chunk=8)
PROMPT = np.array([3, 1, 4, 1])
DRAWS = 12_288
HOT = SamplingConfig(temperature=1.3, top_p=0.95, repetition_penalty=1.3)


@pytest.fixture(scope="module")
def pair():
    return distribution.random_pair(8, CYCLE, seed=1)


def sampled(pair, **changes):
    return pair.sampled(dataclasses.replace(HOT, **changes), seed=5)


def cycles_of(pair, size=5):
    return distribution.drawn(pair, PROMPT, DRAWS, Constant(levels=2, size=size))


@pytest.fixture(scope="module")
def law(pair):
    return distribution.exact(sampled(pair), PROMPT)


@pytest.fixture(scope="module")
def plain(pair):
    return distribution.drawn(sampled(pair), PROMPT, DRAWS)


def test_the_exact_law_is_one_and_neither_flat_nor_sure(law):
    assert law.sum() == pytest.approx(1)
    assert 0.01 < law.max() < 0.3 and (law > 1e-3).sum() > 50


def test_plain_decoding_has_the_law(law, plain):
    fit = distribution.fit(plain, law)
    assert fit.p_value > 1e-3
    cells = np.sqrt(law * (1 - law) / DRAWS).sum() / np.sqrt(2 * np.pi)  # what chance alone gives
    assert fit.total_variation < 1.15 * cells


def test_coupled_texts_are_plain_texts(pair, plain):
    assert (cycles_of(sampled(pair)) == plain).all()


def test_sequential_texts_have_the_law_but_are_others(pair, law, plain):
    texts = cycles_of(sampled(pair, rule="sequential"))
    fit, noise = distribution.fit(texts, law), distribution.fit(plain, law)
    assert fit.p_value > 1e-3
    assert fit.total_variation < 1.3 * noise.total_variation
    assert (texts != plain).any(axis=1).mean() > 0.1


def test_a_wrong_rule_fails(pair, law, monkeypatch):
    """Children tested with p over q = 1, and what is left not renormalised between the tests."""

    def wrong(score_X, children, key, config):
        chance_X, (tests, rest) = sample.probabilities(score_X), jax.random.split(key)
        uniform_W = jax.random.uniform(tests, children.token.shape)
        passes_W = children.present & (uniform_W < chance_X[children.token])
        token = children.token[jnp.argmax(passes_W)]
        others_X = score_X.at[children.token].set(sample.NEG_INF)
        return jnp.where(passes_W.any(), token, sample.draw(others_X, rest, config))

    monkeypatch.setattr(accept, "sequential", wrong)
    jax.clear_caches()  # the program with the right rule
    fit = distribution.fit(cycles_of(sampled(pair, rule="sequential")), law)
    jax.clear_caches()
    assert fit.p_value < 1e-6 and fit.total_variation > 0.02


def test_fit_puts_rare_cells_together():
    law = np.array([0.5, 0.3, 0.1998, 0.0001, 0.0001])
    texts = np.repeat(np.arange(5), [500, 300, 200, 0, 0])[:, None]
    assert distribution.fit(texts, law).p_value > 0.9
    assert distribution.fit(np.zeros((1000, 1), int), law).p_value < 1e-6
    assert distribution.fit(texts, law).total_variation == pytest.approx(0.0002)
    assert distribution.fit(np.zeros((4, 1), int), law) == (1.0, pytest.approx(0.5))
