"""The decision process in both views: what is observed, chosen, rewarded, and where it leads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.learning import environment
from ltd_jax.learning.environment import (
    DepthEnvironment,
    EnvData,
    EnvState,
    Observations,
    SizeEnvironment,
    TreeState,
)
from ltd_jax.policies import networks, observe
from ltd_jax.policies.networks import Learned
from ltd_jax.policies.policy import Constant, Policy
from ltd_jax.replay import simulate
from tests.learning import small
from tests.learning.small import CYCLE, POLICY
from tests.policies import views
from tests.replay import synthetic

jax.config.update("jax_numpy_rank_promotion", "raise")
SEEN = POLICY.observation


@pytest.fixture(scope="module")
def observations() -> Observations:
    return environment.observe_all(small.simulator(0), SEEN)


def lively(seed: int) -> Learned:
    """Policies whose choices vary from place to place: all weights and biases are drawn large."""
    policy = networks.init(jax.random.key(seed), CYCLE, POLICY)
    leaves, shape = jax.tree.flatten(policy)
    keys = jax.random.split(jax.random.key(100 + seed), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(shape, drawn)


def greedy_rate(policy: Learned, observations: Observations) -> float:
    return float(simulate.throughput(environment.greedy_totals(policy, observations)))


@pytest.mark.parametrize("seed", [18, 37, 68])  # whose choices vary
def test_greedy_totals_are_those_of_the_policy_history_included(
    observations: Observations, seed: int
) -> None:
    policy = lively(seed)
    totals = simulate.run(observations.simulator, policy)
    ours = environment.greedy_totals(policy, observations)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(totals), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    means = jnp.concatenate([totals.levels / totals.cycles, totals.size / totals.cycles])
    assert len(set(np.asarray(means).round(3).tolist())) > 2  # the choices vary


def test_throughput_counts_the_tokens_that_are_expected_where_texts_were_sampled() -> None:
    simulator = small.simulator(0)
    chance = jax.random.uniform(jax.random.key(2), simulator.accepted.shape)
    sampled = simulator.replace(expected=1 + chance * simulator.accepted)
    policy = lively(18)
    totals = simulate.run(sampled, policy)
    ours = greedy_rate(policy, environment.observe_all(sampled, SEEN))
    assert ours == pytest.approx(float(simulate.throughput(totals)), rel=1e-6)
    drawn = greedy_rate(policy, environment.observe_all(simulator, SEEN))
    assert ours < 0.95 * drawn


def test_what_is_seen_is_what_decoding_sees(observations: Observations) -> None:
    start = EnvState(jnp.int32(11), jnp.linspace(0, 1, observe.history_width(SEEN)))
    seen_DO = environment.observe_depth(observations, start)
    for levels in (1, 2):
        view = simulate.level_view(observations.simulator, start.position, jnp.int32(levels))
        expected = observe.depth_observation(view, start.history, CYCLE, SEEN)
        np.testing.assert_allclose(seen_DO[levels - 1], expected, atol=1e-6)
    for levels in (1, 2, 3):
        view = simulate.tree_view(observations.simulator, start.position, jnp.int32(levels))
        expected = observe.size_observation(view, start.history, CYCLE, SEEN)
        for seen_O in (
            environment.observe_sizes(observations, start)[levels - 1],
            environment.observe_size(observations, start, jnp.int32(levels)),
        ):
            np.testing.assert_allclose(seen_O, expected, atol=1e-6)


def test_outcomes_are_the_cycles_of_every_choice(observations: Observations) -> None:
    table = environment.all_outcomes(observations.simulator, jnp.int32(5))
    for levels, size_index in ((1, 0), (2, 3), (3, 4)):
        one = simulate.cycle_outcome(
            observations.simulator,
            jnp.int32(5),
            jnp.int32(levels),
            size_index,
            charge_decisions=True,
        )
        assert table.committed[levels - 1, size_index] == one.committed
        assert float(table.seconds[levels - 1, size_index]) == pytest.approx(float(one.seconds))


def test_drawn_decisions_follow_the_probabilities(observations: Observations) -> None:
    policy = lively(18)
    start = EnvState(jnp.int32(2), observe.init_history(SEEN))
    draw = lambda key: environment.act(policy, observations, start, key)
    drawn = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000))
    depth_DO = environment.observe_depth(observations, start)
    logits = networks.depth_actor(POLICY).apply(policy.depth, depth_DO)
    go_on = np.asarray(jax.nn.softmax(logits))[:, 1]
    expected = [1 - go_on[0], go_on[0] * (1 - go_on[1]), go_on[0] * go_on[1]]
    share = np.bincount(np.asarray(drawn.levels), minlength=4)[1:] / 4000
    np.testing.assert_allclose(share, expected, atol=0.03)
    stopped = ~np.asarray(drawn.go_on[:, 0])
    assert set(np.asarray(drawn.levels)[stopped].tolist()) <= {1}
    chosen = np.where(np.asarray(drawn.go_on), np.log(go_on), np.log(1 - go_on))
    np.testing.assert_allclose(drawn.depth_log_prob, chosen, rtol=1e-3, atol=1e-5)


def test_exploring_goes_on_along_the_text_and_starts_anywhere_after_its_end(
    observations: Observations,
) -> None:
    policy, history = lively(18), observe.init_history(SEEN)
    explore = jax.jit(jax.vmap(environment.explore, (None, None, None, 0)))
    keys = jax.random.split(jax.random.key(0), 40)
    after, cycle = explore(policy, observations, EnvState(jnp.int32(2), history), keys)
    np.testing.assert_array_equal(after.position, 2 + cycle.outcome.committed)
    last = EnvState(jnp.int32(23), history)  # of the first text
    after, cycle = explore(policy, observations, last, keys)
    assert np.all(cycle.outcome.over) and len(set(after.position.tolist())) > 10
    np.testing.assert_array_equal(after.history, jnp.broadcast_to(history, after.history.shape))


def test_one_level_leaves_only_the_size_to_choose() -> None:
    config = CycleConfig(beam_width=2, max_levels=1, sizes=(0, 1, 2), context=64)
    observations = environment.observe_all(small.simulator(0, config), SEEN)
    policy = networks.init(jax.random.key(0), config, POLICY)
    start = environment.draw_state(observations.simulator, SEEN, jax.random.key(1))
    decision = environment.act(policy, observations, start, jax.random.key(2))
    assert decision.levels == 1 and decision.go_on.shape == (0,)


CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
TRACE = synthetic.trace(CONFIG, seed=1, text_tokens=(9, 5, 12, 1))
TRACE_END = len(TRACE.tokens_left)
KEY = jax.random.key(0)
RATE = jnp.float32(300.0)


@pytest.fixture(scope="module")
def simulator():
    return simulate.build(TRACE, synthetic.table(CONFIG), CONFIG)


@struct.dataclass
class Watching(Policy):
    """Decides by what it sees."""

    threshold: float

    def keep_drafting(self, history, view, config):
        return (view.levels < 3) & (view.log_prob.max() > self.threshold)

    def choose_size(self, history, view, config):
        return jnp.isfinite(view.log_prob).sum() % len(config.sizes)


def play(env, data, state, actions, length):
    """Steps with `actions(state)` from `state`: all states before the steps, and the steps."""

    def one(state, key):
        step = env.step(data, state, actions(state), RATE, key)
        return step.state, (state, step)

    return jax.lax.scan(one, state, jax.random.split(KEY, length))[1]


def at(position, levels=1):
    return TreeState(EnvState(jnp.int32(position), jnp.zeros(0)), jnp.int32(levels))


@pytest.mark.parametrize("text", [0, 1, 2, 3])
def test_size_environment_gives_the_totals_of_run(simulator, text):
    policy = Constant(2, 4)
    env = SizeEnvironment(CONFIG, "average")
    data, first = EnvData(simulator, policy.traced()), int(TRACE.text_start[text])
    _, steps = play(env, data, at(first, 2), lambda state: jnp.int32(3), 13)
    count = int(np.argmax(steps.terminated)) + 1
    totals = simulate.run(simulator, policy)
    assert count == totals.cycles[text] and steps.committed[:count].sum() == totals.committed[text]
    np.testing.assert_allclose(steps.seconds[:count].sum(), totals.seconds[text], rtol=1e-6)
    expected = totals.committed[text] - 300.0 * totals.seconds[text]
    np.testing.assert_allclose(steps.reward[:count].sum(), expected, rtol=1e-4)


@pytest.mark.parametrize("text", [0, 2])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_depth_environment_gives_the_totals_of_run(simulator, text, levels):
    policy = Constant(levels, 4)
    env, data = DepthEnvironment(CONFIG, "average"), EnvData(simulator, policy.traced())
    first = int(TRACE.text_start[text])
    _, steps = play(
        env, data, at(first), lambda state: (state.levels < levels).astype(jnp.int32), 40
    )
    totals = simulate.run(simulator, policy)
    count = int(totals.cycles[text]) * min(levels, 2)  # no decision after the last level
    assert steps.committed[:count].sum() == totals.committed[text]
    np.testing.assert_allclose(steps.seconds[:count].sum(), totals.seconds[text], rtol=1e-6)
    assert steps.terminated[:count].sum() == totals.cycles[text] and steps.terminated[count - 1]
    assert not np.any(steps.reward[:count][~steps.terminated[:count]])


def test_depth_environment_stops_at_the_last_level_and_ends_texts(simulator):
    env = DepthEnvironment(CONFIG, "paper")
    data = EnvData(simulator, Constant(1, 2).traced())
    step = env.step(data, at(0, 2), jnp.int32(1), RATE, KEY)
    assert step.terminated and step.state.levels == 1
    assert step.state.start.position == step.committed
    on = env.step(data, at(0, 1), jnp.int32(1), RATE, KEY)
    assert not on.terminated and (on.state.start.position, on.state.levels) == (0, 2)
    assert on.committed == on.seconds == on.reward == 0
    ends = [
        env.step(data, at(TRACE_END - 1), jnp.int32(0), RATE, jax.random.key(k)) for k in range(4)
    ]
    assert len({int(end.state.start.position) for end in ends}) > 1


def test_environments_with_policies_choose_as_run_does(simulator):
    policy = Watching(-2.0).traced()
    totals, data = simulate.run(simulator, policy), EnvData(simulator, policy)
    depth = DepthEnvironment(CONFIG, "paper")

    def decide(state):
        view = simulate.level_view(simulator, state.start.position, state.levels)
        return policy.keep_drafting((), view, CONFIG).astype(jnp.int32)

    _, steps = play(depth, data, at(TRACE.text_start[2]), decide, 40)
    over = np.flatnonzero(np.cumsum(steps.committed) >= totals.committed[2])[0] + 1
    np.testing.assert_allclose(steps.seconds[:over].sum(), totals.seconds[2], rtol=1e-6)
    size = SizeEnvironment(CONFIG, "paper")
    states, steps = play(size, data, size.reset(data, KEY), lambda state: jnp.int32(1), 30)
    high = TRACE.log_prob[np.asarray(states.start.position), :2].max((2, 3)) > -2.0
    chosen = 1 + np.cumprod(high, axis=1).sum(1)
    np.testing.assert_array_equal(states.levels, chosen)


def test_observations_are_those_of_decoding(simulator):
    data, position, nothing = EnvData(simulator, None), 4, jnp.zeros(0)
    for levels in (1, 2, 3):
        state = at(position, levels)
        length = int(TRACE.length[position])
        depth = DepthEnvironment(CONFIG, "paper")
        view = views.level(TRACE.log_prob[position, levels - 1], levels, length=length)
        expected = observe.depth_observation(view, nothing, CONFIG)
        np.testing.assert_array_equal(depth.observe(data, state), expected)
        size = SizeEnvironment(CONFIG, "paper")
        view = views.tree(TRACE.log_prob[position], levels, length=length)
        expected = observe.size_observation(view, nothing, CONFIG)
        np.testing.assert_array_equal(size.observe(data, state), expected)
        assert expected.shape == (observe.size_width(CONFIG),)
    assert (depth.action_count, size.action_count) == (2, 5)


def test_resets_reach_every_position_and_all_levels(simulator):
    env, data = SizeEnvironment(CONFIG, "paper"), EnvData(simulator, None)
    states = jax.vmap(env.reset, (None, 0))(data, jax.random.split(KEY, 600))
    assert set(states.start.position.tolist()) == set(range(TRACE_END))
    assert set(states.levels.tolist()) == {1, 2, 3}


def test_rewards(simulator):
    outcome = simulate.cycle_outcome(
        simulator, jnp.int32(0), jnp.int32(3), jnp.int32(4), charge_decisions=True
    )
    committed, seconds = int(outcome.committed), float(outcome.seconds)
    plain = float(simulator.plain_seconds)
    expected = {
        "paper": committed / seconds * plain,
        "average": committed - 300.0 * seconds,
        "accepted": int(outcome.accepted),
        "time": -seconds / plain,
    }
    for reward, value in expected.items():
        env = SizeEnvironment(CONFIG, reward)
        step = env.step(EnvData(simulator, None), at(0, 3), jnp.int32(4), RATE, KEY)
        np.testing.assert_allclose(step.reward, value, rtol=1e-5)


def test_one_level_leaves_no_depth_decision():
    config = CycleConfig(beam_width=2, max_levels=1, sizes=(0, 1, 2), context=64)
    simulator = simulate.build(synthetic.trace(config), synthetic.table(config), config)
    env, data = DepthEnvironment(config, "paper"), EnvData(simulator, Constant(1, 1).traced())
    assert env.step(data, at(0), jnp.int32(1), RATE, KEY).terminated
    totals = simulate.run(simulator, Constant(1, 2))
    np.testing.assert_array_equal(totals.levels, totals.cycles)


def test_equal_environments_are_one_static_argument():
    assert SizeEnvironment(CONFIG, "paper") == SizeEnvironment(CONFIG, "paper")
    assert hash(DepthEnvironment(CONFIG, "paper")) == hash(DepthEnvironment(CONFIG, "paper"))
    assert SizeEnvironment(CONFIG, "paper") != SizeEnvironment(CONFIG, "time")
