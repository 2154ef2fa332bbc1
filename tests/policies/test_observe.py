import functools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from ltd_jax.config import CycleConfig, ObservationConfig
from ltd_jax.files import UserError
from ltd_jax.policies import observe
from ltd_jax.policies.policy import Outcome
from tests.oracle import tree as oracle
from tests.policies import views

CONFIG = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 2), context=50)
NOTHING = jnp.zeros(0)


@functools.partial(jax.jit, static_argnames=("config", "seen"))
def depth_observation(score, levels, length, config, seen=observe.PAPER, history=NOTHING):
    view = views.level(score, levels, length=length)
    return observe.depth_observation(view, history, config, seen)


@functools.partial(jax.jit, static_argnames=("config", "seen"))
def size_observation(score, levels, length, config, seen=observe.PAPER, history=NOTHING):
    view = views.tree(score, levels, length=length)
    return observe.size_observation(view, history, config, seen)


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


def test_best_and_expected_are_the_sorted_probabilities_and_their_sums():
    config = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 3, 12), context=50)
    seen = ObservationConfig(
        node_probs=False, top_k_probs=4, expected_tokens=True, levels=False, length=False
    )
    score, levels = drawn_score(7, 4), 2
    ordered = sorted((math.exp(one) for one in score[:levels].reshape(-1).tolist()), reverse=True)
    expected = [math.sqrt(one) for one in ordered[:4]]
    expected += [sum(ordered[:size]) / config.max_levels for size in (1, 3, 12)]
    size_O = size_observation(score, levels, 9, config, seen)
    np.testing.assert_allclose(size_O, expected, atol=1e-6)
    assert size_O.shape == (observe.size_width(config, seen),)
    newest = sorted((math.exp(one) for one in score[levels - 1].reshape(-1).tolist()), reverse=True)
    expected = [math.sqrt(one) for one in newest[:4]]
    expected += [sum(newest[:size]) / config.max_levels for size in (1, 3)]  # 12 are not there
    depth_O = depth_observation(score[levels - 1], levels, 9, config, seen)
    np.testing.assert_allclose(depth_O, expected, atol=1e-6)
    assert depth_O.shape == (observe.depth_width(config, seen),)


def test_the_history_is_a_running_mean_of_what_cycles_accepted():
    seen = ObservationConfig(acceptance_ema=True)
    config = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 2, 8))
    history = observe.init_history(seen)
    assert history.shape == (observe.history_width(seen),) == (6,)
    cycles = [(4, 2, 3), (2, 0, 0), (3, 1, 0)]  # levels, size, accepted; the second tested nothing
    means = {decay: [0.5, 0.5] for decay in observe.EMA_DECAYS}
    for levels, size, accepted in cycles:
        outcome = Outcome(*(jnp.int32(value) for value in (levels, size, accepted)))
        history = observe.update_history(history, outcome, config, seen)
        for decay, mean in means.items():
            if config.sizes[size]:
                new = [float(accepted > 0), accepted / levels]
                means[decay] = [decay * a + (1 - decay) * b for a, b in zip(mean, new, strict=True)]
    np.testing.assert_allclose(history, [one for mean in means.values() for one in mean], rtol=1e-6)
    size_O = size_observation(drawn_score(1, 4), 2, 9, config, seen, history)
    np.testing.assert_array_equal(size_O[-6:], history)


def test_policies_that_see_nothing_are_refused():
    with pytest.raises(ValueError, match="sees nothing"):
        ObservationConfig(node_probs=False, levels=False, length=False, hidden=4)


def test_entropies_are_seen_between_zero_and_one():
    seen = ObservationConfig(
        node_probs=False, levels=False, length=False, entropy=True, root_entropy=True
    )
    entropy_DW = np.arange(12.0).reshape(4, 3)
    tree = views.tree(drawn_score(0, 4), 4, entropy_DW=entropy_DW).replace(
        root_entropy=jnp.float32(3)
    )
    expected = [*(entropy_DW / (1 + entropy_DW)).reshape(-1), 0.75]
    size_O = observe.size_observation(tree, NOTHING, CONFIG, seen)
    np.testing.assert_allclose(size_O, expected, rtol=1e-6)
    assert size_O.shape == (observe.size_width(CONFIG, seen),)
    level = views.level(drawn_score(0, 4)[1], 2, entropy_W=entropy_DW[1])
    depth_O = observe.depth_observation(level, NOTHING, CONFIG, seen)
    np.testing.assert_allclose(depth_O, [0.75, 0.8, 5 / 6, 0], rtol=1e-6)
    assert depth_O.shape == (observe.depth_width(CONFIG, seen),)


def test_the_depth_policy_may_see_the_drafts_output():
    seen = ObservationConfig(node_probs=False, length=False, hidden=2)
    level = views.level(drawn_score(0, 4)[1], 2, hidden_WE=np.arange(9.0).reshape(3, 3))
    depth_O = observe.depth_observation(level, NOTHING, CONFIG, seen)
    np.testing.assert_array_equal(depth_O, [0.5, 0, 1])
    assert observe.depth_width(CONFIG, seen) == 3 and observe.size_width(CONFIG, seen) == 1
    with pytest.raises(UserError, match="which these policies see"):
        observe.depth_observation(level.replace(hidden=None), NOTHING, CONFIG, seen)


def test_a_cycle_that_verifies_nothing_expects_nothing():
    config = CycleConfig(beam_width=3, max_levels=4, sizes=(0,), context=50)
    seen = ObservationConfig(node_probs=False, top_k_probs=2, expected_tokens=True, length=False)
    size_O = size_observation(drawn_score(0, 4), 2, 7, config, seen)
    assert size_O.shape == (observe.size_width(config, seen),) == (3,)
