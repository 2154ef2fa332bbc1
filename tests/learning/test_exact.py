import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.learning import environment, exact, loop
from ltd_jax.learning.environment import EnvState, Observations
from ltd_jax.policies import networks, observe
from ltd_jax.replay import optimum, simulate
from tests.learning import small
from tests.learning.small import CYCLE, EXACT, POLICY
from tests.learning.test_environment import lively

jax.config.update("jax_numpy_rank_promotion", "raise")
RATE = 300.0
REWARD, SEEN = EXACT.reward, POLICY.observation


@pytest.fixture(scope="module")
def observations() -> Observations:
    return environment.observe_all(small.simulator(0), POLICY.observation)


def softmax(logits):
    powers = [math.exp(one - max(logits)) for one in logits]
    return [one / sum(powers) for one in powers]


def by_hand(policy, observations, start):
    """Reward, entropy, tokens and seconds, summed over all choices in plain Python."""
    depth = networks.depth_actor(POLICY).apply(
        policy.depth, environment.observe_depth(observations, start)
    )
    size = networks.size_actor(CYCLE, POLICY).apply(
        policy.size, environment.observe_sizes(observations, start)
    )
    answers = [softmax(row) for row in np.asarray(depth).tolist()]
    reward = entropy = committed = seconds = 0.0
    reached = 1.0
    for level, row in enumerate(np.asarray(size).tolist()):
        stop, go_on = answers[level] if level < len(answers) else (1.0, 0.0)
        entropy -= reached * sum(p * math.log(p) for p in (stop, go_on) if p)
        for index, chance in enumerate(softmax(row)):
            outcome = simulate.cycle_outcome(
                observations.simulator, start.position, level + 1, index, charge_decisions=True
            )
            weight = reached * stop * chance
            reward += weight * (int(outcome.committed) - RATE * float(outcome.seconds))
            committed += weight * int(outcome.committed)
            seconds += weight * float(outcome.seconds)
            entropy -= weight * math.log(chance)
        reached *= go_on
    return [reward, entropy, committed, seconds]


@pytest.mark.parametrize("seed", [18, 37])
def test_the_expectation_is_the_sum_over_all_choices(observations: Observations, seed: int) -> None:
    policy = lively(seed)
    start = environment.draw_state(observations.simulator, SEEN, jax.random.key(seed))
    ours = exact.expectation(policy, observations, REWARD, jnp.float32(RATE), start)
    expected = by_hand(policy, observations, start)
    values = [ours.reward, ours.entropy, ours.committed, ours.seconds]
    np.testing.assert_allclose(values, expected, rtol=2e-4, atol=1e-5)


def test_its_gradient_is_the_mean_of_sampled_gradients(observations: Observations) -> None:
    """REINFORCE over many drawn decisions comes to the same: the sum is the right one."""
    policy = jax.tree.map(lambda leaf: leaf / 2, lively(18))
    start = EnvState(jnp.int32(7), observe.init_history(SEEN))
    reward = lambda policy: (
        exact.expectation(policy, observations, REWARD, jnp.float32(RATE), start).reward
    )
    wanted = jax.grad(reward)(policy)

    def surrogate(policy, key):
        decision = environment.act(policy, observations, start, key)
        _, outcome = environment.step(
            observations.simulator, start, decision.levels, decision.size_index, SEEN, None
        )
        asked_D = jnp.arange(decision.go_on.shape[0]) < decision.levels
        log_prob = decision.size_log_prob + jnp.where(asked_D, decision.depth_log_prob, 0).sum()
        gain = outcome.committed - RATE * outcome.seconds - reward(policy)
        return log_prob * jax.lax.stop_gradient(gain)

    keys = jax.random.split(jax.random.key(1), 20_000)
    sampled = jax.jit(jax.grad(lambda a: jax.vmap(surrogate, (None, 0))(a, keys).mean()))(policy)
    for name in ("depth", "size"):
        last = max(getattr(wanted, name)["params"])
        ours = np.asarray(getattr(wanted, name)["params"][last]["bias"])
        theirs = np.asarray(getattr(sampled, name)["params"][last]["bias"])
        assert np.abs(ours).max() > 1e-3
        np.testing.assert_allclose(theirs, ours, atol=0.1 * np.abs(ours).max() + 1e-3)


def test_learns_a_trace_by_heart_beyond_the_best_constant(observations: Observations) -> None:
    """Without decay and with the train trace for validation, choices fit the positions."""
    constant = optimum.best_constant(observations.simulator).tokens_per_second
    most = optimum.clairvoyant(observations.simulator).tokens_per_second
    learning = small.longer(EXACT, updates=300)
    algorithm = exact.Exact.of(small.WIDE, learning)
    state, _ = loop.program(
        algorithm, jax.random.key(0), jnp.float32(constant), observations, observations
    )
    assert optimum.share_gained(float(state.best_validation), constant, most) > 0.3
