"""From logits to a token, against plain Python and numbers computed by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import SamplingConfig
from ltd_jax.cycle import sample
from ltd_jax.cycle.sample import SamplingState
from tests.cycle import tiny
from tests.oracle import sample as oracle

SETTINGS = {
    "plain": SamplingConfig(temperature=1.0),
    "cold": SamplingConfig(temperature=0.7),
    "hot nucleus": SamplingConfig(temperature=1.3, top_p=0.9),
    "few": SamplingConfig(temperature=1.0, top_k=5),
    "penalty": SamplingConfig(temperature=0.7, repetition_penalty=1.3),
    "all": SamplingConfig(temperature=1.3, top_p=0.8, top_k=4, repetition_penalty=1.3),
    "reward": SamplingConfig(temperature=1.0, top_p=0.7, repetition_penalty=0.6),
    "greedy with penalty": SamplingConfig(repetition_penalty=2.0),
    "narrow": SamplingConfig(temperature=1.0, top_p=1e-6),
}
X = 20
scores = jax.jit(sample.process_logits, static_argnums=2)


def expected(logits, seen, config):
    return oracle.scores(
        logits.astype(float).tolist(),
        np.flatnonzero(seen),
        config.temperature or 1.0,
        config.repetition_penalty,
        config.top_p,
        config.top_k,
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_those_of_the_warpers(name):
    random, config = np.random.default_rng(5), SETTINGS[name]
    for _ in range(30):
        logits, seen = np.float32(3 * random.normal(size=X)), random.random(X) < 0.3
        wanted = expected(logits, seen, config)
        found = scores(logits, seen, config)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        chance = sample.probabilities(found)
        np.testing.assert_allclose(chance, oracle.probabilities(wanted), atol=1e-6)


def test_numbers_computed_by_hand():
    logits = jnp.log(jnp.array([0.5, 0.25, 0.15, 0.1]))
    warm = lambda **settings: SamplingConfig(temperature=1.0, **settings)
    chance = lambda config, seen=None: sample.probabilities(scores(logits, seen, config)).tolist()
    assert chance(warm(top_p=0.7)) == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert chance(warm(top_p=0.76)) == pytest.approx([0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0])
    assert chance(warm(top_k=1)) == [1, 0, 0, 0]
    # top-p comes first: 0.9 of the whole keeps three, and of these two stay
    assert chance(warm(top_p=0.85, top_k=2)) == pytest.approx([2 / 3, 1 / 3, 0, 0])
    halved = chance(SamplingConfig(temperature=0.5))
    assert halved == pytest.approx([x / 0.345 for x in (0.25, 0.0625, 0.0225, 0.01)])
    # a negative score times 2: the first token's weight becomes 0.5 ** 2
    seen = jnp.array([True, False, False, False])
    assert chance(warm(repetition_penalty=2.0), seen) == pytest.approx([1 / 3, 1 / 3, 0.2, 0.4 / 3])


def test_equal_scores_at_a_border_stay_together():
    logits = jnp.array([2.0, 1.0, 1.0, 0.0])
    few = scores(logits, None, SamplingConfig(temperature=1.0, top_k=2))
    assert (few > sample.NEG_INF).tolist() == [True, True, True, False]
    nucleus = scores(logits, None, SamplingConfig(temperature=1.0, top_p=0.7))
    assert (nucleus > sample.NEG_INF).tolist() == [True, True, True, False]


def test_extreme_logits_stay_finite():
    for logits in ([1e30, -1e30, 0.0], [-1e38, -1e38, -1e38], [0.0, 0.0, 0.0]):
        for config in SETTINGS.values():
            seen = jnp.array([True, False, True])
            found = sample.probabilities(scores(jnp.array(logits), seen, config))
            assert bool(jnp.isfinite(found).all()) and float(found.sum()) == pytest.approx(1)


def test_draws_have_the_softmax_distribution():
    config, draws = SETTINGS["all"], 20_000
    logits = 2 * np.random.default_rng(0).normal(size=X).astype(np.float32)
    state = SamplingState(jax.random.key(1), jnp.zeros((X,), bool).at[3].set(True))
    choose = lambda position: sample.choose(logits, position, state, config)
    counts = np.bincount(jax.vmap(choose)(jnp.arange(draws)), minlength=X)
    chance = oracle.probabilities(expected(logits, np.arange(X) == 3, config))
    deviation = np.sqrt(draws * np.multiply(chance, np.subtract(1, chance))) + 1e-9
    assert np.max(np.abs(counts - draws * np.array(chance)) / deviation) < 4.5


def test_a_position_draws_the_same_whenever_it_is_asked():
    config, logits = SETTINGS["plain"], jnp.zeros((1000,))
    state = SamplingState(sample.text_key(0, np.array([4, 2])), None)
    at = lambda position: int(sample.choose(logits, jnp.int32(position), state, config))
    assert at(7) == at(7) and len({at(position) for position in range(20)}) > 15


def test_prompts_and_seeds_have_keys_of_their_own():
    keys = [
        jax.random.key_data(sample.text_key(seed, np.array(prompt))).tolist()
        for seed in (0, 1)
        for prompt in ([1], [2], [1, 2], [2, 1], [0, 1])
    ]
    assert len({tuple(key) for key in keys}) == len(keys)
    same = jax.random.key_data(sample.text_key(1, np.array([2, 1], np.int64))).tolist()
    assert same == keys[8]


def test_read_marks_the_valid_tokens_alone():
    pair = dataclasses.replace(tiny.CONFIG, sampling=SETTINGS["penalty"])
    state = sample.start(pair, jax.random.key(0))
    state = sample.mark_seen(state, jnp.array([5, 63, 9]), jnp.array([True, True, False]))
    assert np.flatnonzero(state.seen).tolist() == [5, 63]
    assert sample.mark_seen(None, jnp.array([5]), jnp.array([True])) is None


def test_only_what_a_setting_needs_is_kept():
    start = lambda config: sample.start(
        dataclasses.replace(tiny.CONFIG, sampling=config), jax.random.key(0)
    )
    assert start(SamplingConfig()) is None and start(SETTINGS["cold"]).seen is None
    assert start(SETTINGS["greedy with penalty"]).seen.shape == (64,)


def test_greedy_with_a_penalty_takes_the_best_penalised_score():
    state = SamplingState(jax.random.key(0), jnp.array([True, False, False]))
    choose = lambda logits: int(
        sample.choose(jnp.array(logits), jnp.int32(1), state, SETTINGS["greedy with penalty"])
    )
    assert choose([3.0, 2.0, 1.0]) == 1 and choose([5.0, 2.0, 1.0]) == 0
    assert choose([-1.0, -1.5, -math.inf]) == 1


@pytest.mark.parametrize("shape", [(7,), (3, 9)])
def test_the_likeliest_is_the_first_of_the_largest(shape):
    random = np.random.default_rng(0)
    for _ in range(20):
        logits = random.integers(-2, 3, shape).astype(np.float32)
        logits.flat[0] = -np.inf
        np.testing.assert_array_equal(sample.argmax(jnp.asarray(logits)), logits.argmax(-1))


@pytest.mark.parametrize("rows", [[np.nan] * 3, [np.inf, 0, 0], [-np.inf] * 3, [1, np.inf, np.nan]])
@pytest.mark.parametrize("config", [None, SETTINGS["plain"], SETTINGS["greedy with penalty"]])
def test_there_is_no_token_where_logits_are_no_numbers(rows, config):
    state = config and SamplingState(jax.random.key(0), jnp.zeros((3,), bool))
    chosen = sample.choose(jnp.asarray(rows, jnp.float32), jnp.int32(0), state, config)
    assert chosen == sample.NO_TARGET
