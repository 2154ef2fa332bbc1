from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax import checkpoint
from ltd_jax.config import PPOConfig
from ltd_jax.learning import loop, ppo
from ltd_jax.learning.loop import Metrics, TrainState
from tests.learning import probes
from tests.learning.probes import ALGORITHM, CONFIG, VALIDATION, Rule

jax.config.update("jax_numpy_rank_promotion", "raise")
SIGN = probes.rule(lambda sign, step, action: sign)  # whatever is done
ACT = probes.rule(lambda sign, step, action: action)


def start(rule: Rule, seed: int = 0, throughput: float = 0.0, **params) -> TrainState:
    key, rate = jax.random.key(seed), jnp.float32(throughput)
    return loop.init(ALGORITHM, key, rate, rule, VALIDATION, **params)


def advance(rule: Rule, state: TrainState) -> tuple[TrainState, Metrics]:
    return loop.advance(ALGORITHM, state, rule, VALIDATION)


def finished(rule: Rule) -> TrainState:
    state = start(rule)
    while int(state.update) < ALGORITHM.updates:
        state, _ = advance(rule, state)
    return state


def value(state: TrainState, *observation: float) -> float:
    return float(ALGORITHM.critic.apply(state.params.critic, jnp.array(observation)))


def chance(state: TrainState, *observation: float) -> np.ndarray:
    logits = ALGORITHM.actor.apply(state.params.actor, jnp.array(observation))
    return np.asarray(jax.nn.softmax(logits))


def test_value_of_a_constant() -> None:
    state = finished(probes.rule(lambda sign, step, action: 1))
    assert value(state, 1, 0) == pytest.approx(1, abs=0.02)


def test_value_from_the_observation() -> None:
    state = finished(SIGN)
    assert value(state, 1, 0) == pytest.approx(1, abs=0.05)
    assert value(state, -1, 0) == pytest.approx(-1, abs=0.05)


def test_discounting() -> None:
    state = finished(probes.rule(lambda sign, step, action: step == 1, steps=2))
    assert value(state, 1, 0) == pytest.approx(CONFIG.gamma, abs=0.05)
    assert value(state, 1, 1) == pytest.approx(1, abs=0.05)


def test_policy_without_observation() -> None:
    state = finished(probes.rule(lambda sign, step, action: 2 * action - 1))
    assert chance(state, 1, 0)[1] > 0.95
    assert value(state, 1, 0) == pytest.approx(1, abs=0.1)


def test_policy_from_the_observation() -> None:
    state = finished(probes.rule(lambda sign, step, action: sign * (2 * action - 1)))
    assert chance(state, 1, 0)[1] > 0.95
    assert chance(state, -1, 0)[0] > 0.95


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
    rewards = np.asarray(reward_T)
    to_the_end = sum(0.9**step * rewards[step] for step in range(6)) + 0.9**6 * 2 - value_T[0]
    assert float(full_T[0]) == pytest.approx(float(to_the_end), rel=1e-5)


def equal(left: TrainState, right: TrainState) -> None:
    def assert_same(a: jax.Array, b: jax.Array) -> None:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)

    jax.tree.map(assert_same, left, right)


def test_a_resumed_run_is_the_uninterrupted_one_and_finds_its_program(tmp_path) -> None:
    rule = probes.rule(lambda sign, step, action: sign * action)
    half, _ = advance(rule, start(rule, 1))
    whole, _ = advance(rule, half)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, int(half.update), half, {})
    abstract = jax.eval_shape(lambda: start(rule))
    with checkpoint.manager(tmp_path) as checkpoints:
        restored = checkpoint.restore(checkpoints, abstract)
    assert restored is not None
    before = loop.advance._cache_size()
    resumed, _ = advance(rule, restored.state)
    assert loop.advance._cache_size() == before
    equal(resumed, whole)


def test_advance_compiles_once_and_stops_at_the_end() -> None:
    loop.advance.clear_cache()
    state = start(SIGN)
    while int(state.update) < ALGORITHM.updates:
        state, metrics = advance(SIGN, state)
    assert loop.advance._cache_size() == 1
    assert int(state.update) == ALGORITHM.updates == 60 == 8 * 7 + 4
    np.testing.assert_array_equal(np.isnan(metrics.reward), np.arange(7) >= 4)
    np.testing.assert_array_equal(np.isnan(metrics.validation), np.arange(7) != 3)
    again, _ = advance(SIGN, state)
    equal(again, state)


def curve(
    rule: Rule, first: TrainState, folder: Path | None = None
) -> tuple[TrainState, list[float]]:
    """The end of a training, and its validations."""
    state, points = loop.run_stage(
        loop.Stage("probe", ALGORITHM, jax.random.key(0), first.throughput, rule, VALIDATION),
        folder=folder,
    )
    return state, [point.validation for point in points[1:]]


def test_the_best_validated_policy_is_kept_in_every_saved_state(tmp_path) -> None:
    # The reward teaches the policy away from what the validation likes: the start stays best.
    rule = probes.rule(lambda sign, step, action: -action)
    first = start(rule)
    state, validations = curve(rule, first, tmp_path)
    assert len(validations) == 9 and max(validations) < float(first.best_validation)
    jax.tree.map(np.testing.assert_array_equal, state.best, first.params)
    assert float(state.best_validation) == float(first.best_validation)
    assert validations[0] == max(validations)
    with checkpoint.manager(tmp_path / "probe") as checkpoints:
        assert checkpoints.all_steps() == [56, 60]
        saved = checkpoints.restore(60)["state"]["best_validation"]
    assert saved == float(first.best_validation)


def test_a_better_policy_replaces_the_best() -> None:
    state, validations = curve(ACT, start(ACT))
    assert float(state.best_validation) == max(validations)
    np.testing.assert_array_equal(ALGORITHM.validate(state.best, VALIDATION), state.best_validation)


def test_throughput_runs_towards_that_of_the_rollouts() -> None:
    state, metrics = advance(SIGN, start(SIGN, 0, 1.5))
    np.testing.assert_array_equal(metrics.throughput, 0.5)
    left = (1 - loop.THROUGHPUT_RATE) ** ALGORITHM.validate_every
    assert float(state.throughput) == pytest.approx(0.5 + left * (1.5 - 0.5))


def test_training_goes_on_from_given_parameters() -> None:
    params = start(SIGN, 5).params
    state = start(SIGN, 6, params=params)
    jax.tree.map(np.testing.assert_array_equal, state.params, params)


def test_the_rate_rises_then_falls_to_zero() -> None:
    config = PPOConfig(total_steps=100 * 256, environments=1, rollout=256, epochs=1, warmup=0.1)
    rule = ppo.adam(config)

    def step(state, _):
        change, state = rule.update(jnp.ones(1), state)
        return state, -change[0]

    walk = jax.jit(lambda state: jax.lax.scan(step, state, length=100)[1])
    sizes = np.asarray(walk(rule.init(jnp.zeros(1))))
    assert int(np.argmax(sizes)) == 10
    assert max(sizes) == pytest.approx(config.learning_rate, rel=1e-3)
    assert sizes[0] < 0.2 * max(sizes) and sizes[-1] < 0.02 * max(sizes)
