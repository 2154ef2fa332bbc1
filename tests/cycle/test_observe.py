import math

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies

from ltd_jax.config import CycleConfig
from ltd_jax.cycle import observe
from tests.oracle import tree as oracle

CONFIG = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 2), context=50)
depth_observation = jax.jit(observe.depth_observation, static_argnames="config")
size_observation = jax.jit(observe.size_observation, static_argnames="config")


def drawn_score(seed, levels):
    random = np.random.default_rng(seed)
    flat = oracle.drawn(random, CONFIG.beam_width, levels, (0.0, -1e-3, -2.0, -90.0), 8)
    return oracle.dense(flat, CONFIG.beam_width, CONFIG.max_levels)[0].astype(np.float32)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    seed=strategies.integers(0, 10**6),
    levels=strategies.integers(1, CONFIG.max_levels),
    length=strategies.integers(0, CONFIG.context),
)
def test_observations_equal_plain_python_and_stay_in_the_unit_interval(seed, levels, length):
    score = drawn_score(seed, CONFIG.max_levels)
    scalars = [levels / CONFIG.max_levels, length / CONFIG.context]
    probability = [
        math.exp(one) if index < levels * 9 and one > -math.inf else 0.0
        for index, one in enumerate(score.reshape(-1).tolist())
    ]
    size_O = np.asarray(size_observation(score, levels, length, CONFIG))
    np.testing.assert_allclose(size_O, probability + scalars, atol=1e-6)
    depth_O = np.asarray(depth_observation(score[levels - 1], levels, length, CONFIG))
    newest = probability[(levels - 1) * 9 : levels * 9]
    np.testing.assert_allclose(depth_O, newest + scalars, atol=1e-6)
    for seen_O in (size_O, depth_O):
        assert seen_O.dtype == np.float32
        assert seen_O.min() >= 0 and seen_O.max() <= 1


def test_widths_are_the_observations_own():
    score = drawn_score(0, 2)
    assert depth_observation(score[0], 1, 3, CONFIG).shape == (observe.depth_width(CONFIG),)
    assert size_observation(score, 1, 3, CONFIG).shape == (observe.size_width(CONFIG),)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_size_observation_ignores_levels_that_are_not_drafted(levels):
    """So a full tree from the replay and a shorter one from the live cycle look the same."""
    full = drawn_score(4, CONFIG.max_levels)
    short = full.copy()
    short[levels:] = -np.inf
    np.testing.assert_array_equal(
        size_observation(full, levels, 9, CONFIG), size_observation(short, levels, 9, CONFIG)
    )
