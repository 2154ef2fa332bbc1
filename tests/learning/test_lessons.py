import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.learning import environment
from ltd_jax.learning.environment import Observations, Start
from ltd_jax.policies import networks, observe
from ltd_jax.policies.networks import LearnedParams
from ltd_jax.replay import simulate
from tests.learning import small
from tests.learning.small import CYCLE, POLICY

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def lesson() -> Observations:
    return environment.observe_all(small.replay(0), CYCLE, POLICY)


def lively(seed: int) -> LearnedParams:
    """Policies whose choices vary from place to place: all weights and biases are drawn large."""
    actors = networks.init_learned(jax.random.key(seed), CYCLE, POLICY)
    leaves, shape = jax.tree.flatten(actors)
    keys = jax.random.split(jax.random.key(100 + seed), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(shape, drawn)


@pytest.mark.parametrize("seed", [18, 37, 68])  # whose choices vary
def test_throughput_is_that_of_the_controller_memory_included(
    lesson: Observations, seed: int
) -> None:
    actors = lively(seed)
    controller = networks.learned(CYCLE, POLICY)
    totals = simulate.run(lesson.replay, CYCLE, controller, actors, learned=True)
    ours = environment.greedy_throughput(actors, lesson, CYCLE, POLICY)
    assert float(ours) == pytest.approx(float(simulate.throughput(totals)), rel=1e-6)
    means = jnp.concatenate([totals.levels / totals.cycles, totals.size / totals.cycles])
    assert len(set(np.asarray(means).round(3).tolist())) > 2  # the choices vary


def test_throughput_counts_the_tokens_that_are_expected_where_texts_were_sampled() -> None:
    replay = small.replay(0)
    chance = jax.random.uniform(jax.random.key(2), replay.accepted.shape)
    sampled = replay.replace(expected=1 + chance * replay.accepted)
    actors, controller = lively(18), networks.learned(CYCLE, POLICY)
    totals = simulate.run(sampled, CYCLE, controller, actors, learned=True)
    ours = environment.greedy_throughput(
        actors, environment.observe_all(sampled, CYCLE, POLICY), CYCLE, POLICY
    )
    assert float(ours) == pytest.approx(float(simulate.throughput(totals)), rel=1e-6)
    drawn = environment.greedy_throughput(
        actors, environment.observe_all(replay, CYCLE, POLICY), CYCLE, POLICY
    )
    assert float(ours) < 0.95 * float(drawn)


def test_what_is_seen_is_what_decoding_sees(lesson: Observations) -> None:
    start = Start(jnp.int32(11), jnp.linspace(0, 1, observe.memory_width(POLICY.observation)))
    seen_DO = environment.depth_seen(lesson, start)
    for levels in (1, 2):
        view = simulate.level_view(lesson.replay, start.position, jnp.int32(levels))
        expected = observe.depth_observation(view, start.memory, CYCLE, POLICY.observation)
        np.testing.assert_allclose(seen_DO[levels - 1], expected, atol=1e-6)
    for levels in (1, 2, 3):
        view = simulate.tree_view(lesson.replay, start.position, jnp.int32(levels))
        expected = observe.size_observation(view, start.memory, CYCLE, POLICY.observation)
        for seen_O in (
            environment.sizes_seen(lesson, start)[levels - 1],
            environment.size_seen(lesson, start, jnp.int32(levels)),
        ):
            np.testing.assert_allclose(seen_O, expected, atol=1e-6)


def test_outcomes_are_the_cycles_of_every_choice(lesson: Observations) -> None:
    table = environment.all_outcomes(lesson, jnp.int32(5), CYCLE)
    for levels, size in ((1, 0), (2, 3), (3, 4)):
        one = simulate.cycle_outcome(
            lesson.replay, jnp.int32(5), jnp.int32(levels), size, learned=True
        )
        assert table.committed[levels - 1, size] == one.committed
        assert float(table.seconds[levels - 1, size]) == pytest.approx(float(one.seconds))


def test_drawn_decisions_follow_the_probabilities(lesson: Observations) -> None:
    actors = lively(18)
    start = Start(jnp.int32(2), observe.no_memory(POLICY.observation))
    draw = lambda key: environment.act(actors, lesson, start, CYCLE, POLICY, key)
    drawn = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000))
    logits = networks.depth_actor(POLICY).apply(actors.depth, environment.depth_seen(lesson, start))
    go_on = np.asarray(jax.nn.softmax(logits))[:, 1]
    expected = [1 - go_on[0], go_on[0] * (1 - go_on[1]), go_on[0] * go_on[1]]
    share = np.bincount(np.asarray(drawn.levels), minlength=4)[1:] / 4000
    np.testing.assert_allclose(share, expected, atol=0.03)
    stopped = ~np.asarray(drawn.go_on[:, 0])
    assert set(np.asarray(drawn.levels)[stopped].tolist()) <= {1}
    chosen = np.where(np.asarray(drawn.go_on), np.log(go_on), np.log(1 - go_on))
    np.testing.assert_allclose(drawn.depth_log_prob, chosen, rtol=1e-3, atol=1e-5)


def test_one_level_leaves_only_the_size_to_choose() -> None:
    config = CycleConfig(beam_width=2, max_levels=1, sizes=(0, 1, 2), context=64)
    policy = dataclasses.replace(POLICY)
    lesson = environment.observe_all(small.replay(0, config), config, policy)
    actors = networks.init_learned(jax.random.key(0), config, policy)
    start = environment.draw_start(lesson, policy, jax.random.key(1))
    decision = environment.act(actors, lesson, start, config, policy, jax.random.key(2))
    assert decision.levels == 1 and decision.go_on.shape == (0,)
