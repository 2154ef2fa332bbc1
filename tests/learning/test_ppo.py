import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltd_jax import checkpoint
from ltd_jax.config import PPOConfig
from ltd_jax.learning import ppo
from ltd_jax.learning.environment import Environment
from ltd_jax.learning.ppo import Learner, TrainState
from ltd_jax.policies.networks import ActorCritic
from tests.learning import probes
from tests.learning.probes import CONFIG, VALIDATION

jax.config.update("jax_numpy_rank_promotion", "raise")


def trained(probe: Environment) -> tuple[Learner, TrainState]:
    learner = probes.learner(probe)
    state = ppo.init(learner, jax.random.key(0), None, VALIDATION)
    state, _ = ppo.run_updates(learner, state, None, VALIDATION, learner.config.updates)
    return learner, state


def value(learner: Learner, state: TrainState, *observation: float) -> float:
    return float(learner.critic.apply(state.params.critic, jnp.array(observation)))


def chance(learner: Learner, state: TrainState, *observation: float) -> np.ndarray:
    return jax.nn.softmax(learner.actor.apply(state.params.actor, jnp.array(observation)))


def test_value_of_a_constant() -> None:
    learner, state = trained(probes.environment(lambda state, action: 1.0, actions=1))
    assert value(learner, state, 1, 0) == pytest.approx(1, abs=0.02)


def test_value_from_the_observation() -> None:
    learner, state = trained(probes.environment(lambda state, action: state.sign))
    assert value(learner, state, 1, 0) == pytest.approx(1, abs=0.05)
    assert value(learner, state, -1, 0) == pytest.approx(-1, abs=0.05)


def test_discounting() -> None:
    late = probes.environment(lambda state, action: 1.0 * (state.step == 1), steps=2)
    learner, state = trained(late)
    assert value(learner, state, 1, 0) == pytest.approx(CONFIG.gamma, abs=0.05)
    assert value(learner, state, 1, 1) == pytest.approx(1, abs=0.05)


def test_truncation_keeps_the_value_behind_the_cut() -> None:
    # 1 per step for ever, cut after every second step: 1 + 0.5 * (value seen at the cut).
    learner, state = trained(probes.environment(lambda *_: 1.0, steps=2, truncated=True))
    behind = value(learner, state, 1, 2)
    assert behind > 1
    assert value(learner, state, 1, 1) == pytest.approx(1 + 0.5 * behind, abs=0.1)


def test_policy_without_observation() -> None:
    learner, state = trained(probes.environment(lambda state, action: 2.0 * action - 1))
    assert chance(learner, state, 1, 0)[1] > 0.95
    assert value(learner, state, 1, 0) == pytest.approx(1, abs=0.1)


def test_policy_from_the_observation() -> None:
    match = probes.environment(lambda state, action: state.sign * (2.0 * action - 1))
    learner, state = trained(match)
    assert chance(learner, state, 1, 0)[1] > 0.95
    assert chance(learner, state, -1, 0)[0] > 0.95


def test_advantages_tell_termination_from_truncation() -> None:
    # gamma = lambda = 1/2; steps: goes on, terminated, truncated (cut value 8), goes on (last 4).
    terminated_T = jnp.array([False, True, False, False])
    truncated_T = jnp.array([False, False, True, False])
    value_T = jnp.array([1.0, 2.0, 3.0, 4.0])
    next_T = ppo.next_values(
        value_T, jnp.array([9.0, 9.0, 8.0, 9.0]), jnp.float32(4), terminated_T, truncated_T
    )
    np.testing.assert_array_equal(next_T, [2, 0, 8, 4])
    advantage_T = ppo.advantages(jnp.ones(4), value_T, next_T, terminated_T | truncated_T, 0.5, 0.5)
    # deltas: 1+1-1 = 1, 1-2 = -1, 1+4-3 = 2, 1+2-4 = -1; only step 0 carries on: 1 + 0.25 * -1.
    np.testing.assert_allclose(advantage_T, [0.75, -1, 2, -1])


def test_terminated_wins_over_truncated() -> None:
    both = jnp.array([True])
    assert ppo.next_values(jnp.ones(1), jnp.ones(1), jnp.float32(1), both, both)[0] == 0


def test_without_lambda_or_with_full_lambda_the_advantage_reduces() -> None:
    key_reward, key_value = jax.random.split(jax.random.key(3))
    reward_T, value_T = jax.random.normal(key_reward, (6,)), jax.random.normal(key_value, (6,))
    goes_on_T = jnp.zeros(6, bool)
    next_T = ppo.next_values(value_T, value_T, jnp.float32(2), goes_on_T, goes_on_T)
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
    learner = probes.learner(probes.environment(lambda state, action: state.sign * action), SHORT)
    start = ppo.init(learner, jax.random.key(1), None, VALIDATION)
    whole, _ = ppo.run_updates(learner, start, None, VALIDATION, 5)
    half, _ = ppo.run_updates(learner, start, None, VALIDATION, 3)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 3, half, {})
    abstract = jax.eval_shape(lambda: ppo.init(learner, jax.random.key(0), None, VALIDATION))
    with checkpoint.manager(tmp_path) as checkpoints:
        restored = checkpoint.restore(checkpoints, abstract)
    assert restored is not None
    resumed, _ = ppo.run_updates(learner, restored.state, None, VALIDATION, 2)
    equal(resumed, whole)


def test_run_updates_compiles_once_and_stops_at_the_end() -> None:
    traces = []
    learner = probes.learner(
        probes.environment(lambda state, action: state.sign),
        SHORT,
        with_throughput=lambda data, throughput: traces.append(throughput),
    )
    state = ppo.init(learner, jax.random.key(0), None, VALIDATION)
    state, _ = ppo.run_updates(learner, state, None, VALIDATION, 3)
    once = len(traces)
    last, metrics = ppo.run_updates(learner, state, None, VALIDATION, 3)
    assert len(traces) == once
    assert int(last.update) == learner.config.updates == 5
    np.testing.assert_array_equal(np.isnan(metrics.reward), [False, False, True])
    again, _ = ppo.run_updates(learner, last, None, VALIDATION, 3)
    equal(again, last)


def test_the_best_validated_policy_is_kept() -> None:
    # The reward teaches the policy away from what the validation likes: the start stays best.
    learner = probes.learner(
        probes.environment(lambda state, action: -1.0 * action), SHORT, validate_every=2
    )
    start = ppo.init(learner, jax.random.key(0), None, VALIDATION)
    state, metrics = ppo.run_updates(learner, start, None, VALIDATION, 5)
    np.testing.assert_array_equal(np.isnan(metrics.validation), [True, False, True, False, False])
    assert np.nanmax(metrics.validation) < float(start.best_validation)
    jax.tree.map(np.testing.assert_array_equal, state.best, start.params)
    assert float(state.best_validation) == float(start.best_validation)


def test_a_better_policy_replaces_the_best() -> None:
    probe = probes.environment(lambda state, action: 1.0 * action)
    learner = probes.learner(probe, SHORT, validate_every=2)
    start = ppo.init(learner, jax.random.key(0), None, VALIDATION)
    state, metrics = ppo.run_updates(learner, start, None, VALIDATION, 5)
    assert float(state.best_validation) == np.nanmax(metrics.validation)
    np.testing.assert_array_equal(
        learner.validate(state.best.actor, VALIDATION), state.best_validation
    )


def test_throughput_runs_towards_that_of_the_rollouts() -> None:
    learner = probes.learner(probes.environment(lambda state, action: state.sign), SHORT)
    start = ppo.init(learner, jax.random.key(0), None, VALIDATION, throughput=1.5)
    state, metrics = ppo.run_updates(learner, start, None, VALIDATION, 1)
    assert float(metrics.throughput[0]) == 0.5
    expected = 1.5 + ppo.THROUGHPUT_RATE * (0.5 - 1.5)
    assert float(state.throughput) == pytest.approx(expected)


def test_training_goes_on_from_given_parameters() -> None:
    learner = probes.learner(probes.environment(lambda state, action: state.sign), SHORT)
    params: ActorCritic = ppo.init(learner, jax.random.key(5), None, VALIDATION).params
    state = ppo.init(learner, jax.random.key(6), None, VALIDATION, params=params)
    jax.tree.map(np.testing.assert_array_equal, state.params, params)


def test_the_rate_rises_then_falls_to_zero() -> None:
    config = PPOConfig(total_steps=100 * 256, environments=1, rollout=256, epochs=1, warmup=0.1)
    learner = probes.learner(probes.environment(lambda *_: 0.0), config)
    rule = ppo.optimizer(learner)
    state = rule.init(jnp.zeros(1))
    sizes = []
    for _ in range(100):
        change, state = rule.update(jnp.ones(1), state)
        sizes.append(-float(optax.tree.sum(change)))
    assert int(np.argmax(sizes)) == 10
    assert max(sizes) == pytest.approx(config.learning_rate, rel=1e-3)
    assert sizes[0] < 0.2 * max(sizes) and sizes[-1] < 0.02 * max(sizes)
