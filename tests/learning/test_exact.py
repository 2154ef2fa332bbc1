import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.learning import environment, exact, loop
from ltd_jax.learning.environment import Observations, Start
from ltd_jax.policies import networks
from ltd_jax.replay import optimum, simulate
from tests.learning import small
from tests.learning.small import CYCLE, EXACT, POLICY
from tests.learning.test_lessons import lively

jax.config.update("jax_numpy_rank_promotion", "raise")
METHOD = exact.method(CYCLE, POLICY, EXACT)
RATE = 300.0


@pytest.fixture(scope="module")
def lesson() -> Observations:
    return environment.observe_all(small.replay(0), CYCLE, POLICY)


def softmax(logits):
    powers = [math.exp(one - max(logits)) for one in logits]
    return [one / sum(powers) for one in powers]


def by_hand(actors, lesson, start):
    """Reward, entropy, tokens and seconds, summed over all choices in plain Python."""
    depth = networks.depth_actor(POLICY).apply(actors.depth, environment.depth_seen(lesson, start))
    size = networks.size_actor(CYCLE, POLICY).apply(
        actors.size, environment.sizes_seen(lesson, start)
    )
    answers = [softmax(row) for row in np.asarray(depth).tolist()]
    reward = entropy = committed = seconds = 0.0
    reached = 1.0
    for level, row in enumerate(np.asarray(size).tolist()):
        stop, go_on = answers[level] if level < len(answers) else (1.0, 0.0)
        entropy -= reached * sum(p * math.log(p) for p in (stop, go_on) if p)
        for index, chance in enumerate(softmax(row)):
            result = simulate.cycle_outcome(
                lesson.replay, start.position, level + 1, index, learned=True
            )
            weight = reached * stop * chance
            reward += weight * (int(result.committed) - RATE * float(result.seconds))
            committed += weight * int(result.committed)
            seconds += weight * float(result.seconds)
            entropy -= weight * math.log(chance)
        reached *= go_on
    return [reward, entropy, committed, seconds]


@pytest.mark.parametrize("seed", [18, 37])
def test_the_expectation_is_the_sum_over_all_choices(lesson: Observations, seed: int) -> None:
    actors = lively(seed)
    start = environment.draw_start(lesson, POLICY, jax.random.key(seed))
    ours = exact.expectation(METHOD, actors, lesson, jnp.float32(RATE), start)
    expected = by_hand(actors, lesson, start)
    values = [ours.reward, ours.entropy, ours.committed, ours.seconds]
    np.testing.assert_allclose(values, expected, rtol=2e-4, atol=1e-5)


def test_its_gradient_is_the_mean_of_sampled_gradients(lesson: Observations) -> None:
    """REINFORCE over many drawn decisions comes to the same: the sum is the right one."""
    actors = jax.tree.map(lambda leaf: leaf / 2, lively(18))
    start = Start(jnp.int32(7), environment.draw_start(lesson, POLICY, jax.random.key(0)).memory)
    reward = lambda actors: (
        exact.expectation(METHOD, actors, lesson, jnp.float32(RATE), start).reward
    )
    wanted = jax.grad(reward)(actors)

    def surrogate(actors, key):
        decision = environment.act(actors, lesson, start, CYCLE, POLICY, key)
        _, result = environment.follow(lesson, start, decision, CYCLE, POLICY)
        asked_D = jnp.arange(decision.go_on.shape[0]) < decision.levels
        log_prob = decision.size_log_prob + jnp.where(asked_D, decision.depth_log_prob, 0).sum()
        gain = result.committed - RATE * result.seconds - reward(actors)
        return log_prob * jax.lax.stop_gradient(gain)

    keys = jax.random.split(jax.random.key(1), 20_000)
    sampled = jax.jit(jax.grad(lambda a: jax.vmap(surrogate, (None, 0))(a, keys).mean()))(actors)
    for policy in ("depth", "size"):
        last = max(getattr(wanted, policy)["params"])
        ours = np.asarray(getattr(wanted, policy)["params"][last]["bias"])
        theirs = np.asarray(getattr(sampled, policy)["params"][last]["bias"])
        assert np.abs(ours).max() > 1e-3
        np.testing.assert_allclose(theirs, ours, atol=0.1 * np.abs(ours).max() + 1e-3)


def test_learns_a_trace_by_heart_beyond_the_best_constant(lesson: Observations) -> None:
    """Without decay and with the train trace for validation, choices fit the positions."""
    constant = optimum.best_constant(lesson.replay, CYCLE).tokens_per_second
    most = optimum.dynamic_programme(lesson.replay).tokens_per_second
    learning = small.longer(EXACT, updates=300)
    method = exact.method(CYCLE, small.WIDE, learning)
    state, _ = loop.program(method, jax.random.key(0), jnp.float32(constant), lesson, lesson)
    assert optimum.share_gained(float(state.best_validation), constant, most) > 0.3
