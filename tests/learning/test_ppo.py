import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltd_jax import checkpoint
from ltd_jax.config import PPOConfig
from ltd_jax.learning import loop, ppo
from ltd_jax.learning.environment import Environment
from ltd_jax.learning.loop import TrainState
from ltd_jax.learning.ppo import PPO
from tests.learning import probes
from tests.learning.probes import CONFIG, VALIDATION, ProbeEnvironment

jax.config.update("jax_numpy_rank_promotion", "raise")


def start(algorithm: PPO, seed: int, throughput: float = 0.0, **params) -> TrainState:
    key, rate = jax.random.key(seed), jnp.float32(throughput)
    return loop.init(algorithm, key, rate, None, VALIDATION, **params)


def advance(algorithm: PPO, state: TrainState):
    return loop.advance(algorithm, state, None, VALIDATION)


def trained(probe: Environment) -> tuple[PPO, TrainState]:
    algorithm = probes.algorithm(probe, validate_every=CONFIG.updates)
    state, _ = advance(algorithm, start(algorithm, 0))
    return algorithm, state


def value(algorithm: PPO, state: TrainState, *observation: float) -> float:
    return float(algorithm.critic.apply(state.params.critic, jnp.array(observation)))


def chance(algorithm: PPO, state: TrainState, *observation: float) -> np.ndarray:
    return jax.nn.softmax(algorithm.actor.apply(state.params.actor, jnp.array(observation)))


def test_value_of_a_constant() -> None:
    algorithm, state = trained(ProbeEnvironment(lambda state, action: 1.0, action_count=1))
    assert value(algorithm, state, 1, 0) == pytest.approx(1, abs=0.02)


def test_value_from_the_observation() -> None:
    algorithm, state = trained(ProbeEnvironment(lambda state, action: state.sign))
    assert value(algorithm, state, 1, 0) == pytest.approx(1, abs=0.05)
    assert value(algorithm, state, -1, 0) == pytest.approx(-1, abs=0.05)


def test_discounting() -> None:
    late = ProbeEnvironment(lambda state, action: 1.0 * (state.step == 1), steps=2)
    algorithm, state = trained(late)
    assert value(algorithm, state, 1, 0) == pytest.approx(CONFIG.gamma, abs=0.05)
    assert value(algorithm, state, 1, 1) == pytest.approx(1, abs=0.05)


def test_policy_without_observation() -> None:
    algorithm, state = trained(ProbeEnvironment(lambda state, action: 2.0 * action - 1))
    assert chance(algorithm, state, 1, 0)[1] > 0.95
    assert value(algorithm, state, 1, 0) == pytest.approx(1, abs=0.1)


def test_policy_from_the_observation() -> None:
    match = ProbeEnvironment(lambda state, action: state.sign * (2.0 * action - 1))
    algorithm, state = trained(match)
    assert chance(algorithm, state, 1, 0)[1] > 0.95
    assert chance(algorithm, state, -1, 0)[0] > 0.95


def test_advantages_tell_termination_from_truncation() -> None:
    # gamma = lambda = 1/2; steps: goes on, terminated, cut off (value seen 8), goes on (last 4).
    ended_T = jnp.array([False, True, True, False])
    value_T, next_T = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([2.0, 0.0, 8.0, 4.0])
    advantage_T = ppo.advantages(jnp.ones(4), value_T, next_T, ended_T, 0.5, 0.5)
    # deltas: 1+1-1 = 1, 1-2 = -1, 1+4-3 = 2, 1+2-4 = -1; only step 0 carries on: 1 + 0.25 * -1.
    np.testing.assert_allclose(advantage_T, [0.75, -1, 2, -1])


def test_no_value_follows_a_terminated_step() -> None:
    terminated_T = jnp.array([False, True, False])
    next_T = ppo.next_values(jnp.array([1.0, 2.0, 3.0]), jnp.float32(4), terminated_T)
    np.testing.assert_array_equal(next_T, [2, 0, 4])


def test_without_lambda_or_with_full_lambda_the_advantage_reduces() -> None:
    key_reward, key_value = jax.random.split(jax.random.key(3))
    reward_T, value_T = jax.random.normal(key_reward, (6,)), jax.random.normal(key_value, (6,))
    goes_on_T = jnp.zeros(6, bool)
    next_T = ppo.next_values(value_T, jnp.float32(2), goes_on_T)
    one_step_T = ppo.advantages(reward_T, value_T, next_T, goes_on_T, 0.9, 0.0)
    np.testing.assert_allclose(one_step_T, reward_T + 0.9 * next_T - value_T, rtol=1e-6)
    full_T = ppo.advantages(reward_T, value_T, next_T, goes_on_T, 0.9, 1.0)
    to_the_end = sum(0.9**step * reward_T[step] for step in range(6)) + 0.9**6 * 2 - value_T[0]
    assert float(full_T[0]) == pytest.approx(float(to_the_end), rel=1e-5)


def equal(left: TrainState, right: TrainState) -> None:
    def assert_same(a: jax.Array, b: jax.Array) -> None:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)

    jax.tree.map(assert_same, left, right)


SHORT = dataclasses.replace(CONFIG, total_steps=5 * 256)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path) -> None:
    probe = ProbeEnvironment(lambda state, action: state.sign * action)
    algorithm = probes.algorithm(probe, SHORT, validate_every=3)
    half, _ = advance(algorithm, start(algorithm, 1))
    whole, _ = advance(algorithm, half)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 3, half, {})
    abstract = jax.eval_shape(lambda: start(algorithm, 0))
    with checkpoint.manager(tmp_path) as checkpoints:
        restored = checkpoint.restore(checkpoints, abstract)
    assert restored is not None
    resumed, _ = advance(algorithm, restored.state)
    equal(resumed, whole)


def test_advance_compiles_once_and_stops_at_the_end() -> None:
    traces = []

    def reward(state, action):
        traces.append(state)
        return state.sign

    algorithm = probes.algorithm(ProbeEnvironment(reward), SHORT, validate_every=3)
    state, _ = advance(algorithm, start(algorithm, 0))
    once = len(traces)
    last, metrics = advance(algorithm, state)
    assert len(traces) == once
    assert int(last.update) == algorithm.updates == 5
    np.testing.assert_array_equal(np.isnan(metrics.reward), [False, False, True])
    np.testing.assert_array_equal(np.isnan(metrics.validation), [True, False, True])
    again, _ = advance(algorithm, last)
    equal(again, last)


def curve(algorithm: PPO, first: TrainState) -> tuple[TrainState, list[float]]:
    """The end of a training, and its validations."""
    state, points = loop.run_stage(
        loop.Stage("probe", algorithm, jax.random.key(0), first.throughput, None, VALIDATION)
    )
    return state, [point.validation for point in points[1:]]


def test_the_best_validated_policy_is_kept() -> None:
    # The reward teaches the policy away from what the validation likes: the start stays best.
    probe = ProbeEnvironment(lambda state, action: -1.0 * action)
    algorithm = probes.algorithm(probe, SHORT, validate_every=2)
    first = start(algorithm, 0)
    state, validations = curve(algorithm, first)
    assert len(validations) == 3 and max(validations) < float(first.best_validation)
    jax.tree.map(np.testing.assert_array_equal, state.best, first.params)
    assert float(state.best_validation) == float(first.best_validation)


def test_a_better_policy_replaces_the_best() -> None:
    probe = ProbeEnvironment(lambda state, action: 1.0 * action)
    algorithm = probes.algorithm(probe, SHORT, validate_every=2)
    state, validations = curve(algorithm, start(algorithm, 0))
    assert float(state.best_validation) == max(validations)
    np.testing.assert_array_equal(algorithm.validate(state.best, VALIDATION), state.best_validation)


def test_throughput_runs_towards_that_of_the_rollouts() -> None:
    probe = ProbeEnvironment(lambda state, action: state.sign)
    algorithm = probes.algorithm(probe, SHORT, validate_every=1)
    state, metrics = advance(algorithm, start(algorithm, 0, 1.5))
    assert float(metrics.throughput[0]) == 0.5
    expected = 1.5 + loop.THROUGHPUT_RATE * (0.5 - 1.5)
    assert float(state.throughput) == pytest.approx(expected)


def test_training_goes_on_from_given_parameters() -> None:
    algorithm = probes.algorithm(ProbeEnvironment(lambda state, action: state.sign), SHORT)
    params = start(algorithm, 5).params
    state = start(algorithm, 6, params=params)
    jax.tree.map(np.testing.assert_array_equal, state.params, params)


def test_the_rate_rises_then_falls_to_zero() -> None:
    config = PPOConfig(total_steps=100 * 256, environments=1, rollout=256, epochs=1, warmup=0.1)
    rule = ppo.adam(config)
    state = rule.init(jnp.zeros(1))
    sizes = []
    for _ in range(100):
        change, state = rule.update(jnp.ones(1), state)
        sizes.append(-float(optax.tree.sum(change)))
    assert int(np.argmax(sizes)) == 10
    assert max(sizes) == pytest.approx(config.learning_rate, rel=1e-3)
    assert sizes[0] < 0.2 * max(sizes) and sizes[-1] < 0.02 * max(sizes)
