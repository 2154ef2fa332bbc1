import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.learning import environment
from ltd_jax.policies import observe
from ltd_jax.policies.policy import Controller, constant, constant_params
from ltd_jax.replay import simulate
from tests.policies import views
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
TRACE = synthetic.trace(CONFIG, seed=1, text_tokens=(9, 5, 12, 1))
TRACE_END = len(TRACE.remaining)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def replay():
    return simulate.build(TRACE, synthetic.table(CONFIG), CONFIG)


def watching():
    """Decides by what it sees."""
    return Controller(
        init=lambda: (),
        keep_drafting=lambda params, state, view: (view.levels < 3) & (view.score.max() > params),
        choose_size=lambda params, state, view: jnp.isfinite(view.score).sum() % len(CONFIG.sizes),
        update=lambda state, outcome: state,
    )


def play(env, data, state, actions, length):
    """Steps with `actions(state)` from `state`: all states before the steps, and the steps."""

    def one(state, key):
        step = env.step(data, state, actions(state), key)
        return step.state, (state, step)

    return jax.lax.scan(one, state, jax.random.split(KEY, length))[1]


def data_of(replay, params=()):
    return environment.ReplayData(replay, params, jnp.float32(300.0))


def at(position, levels=1):
    return environment.EnvState(jnp.int32(position), jnp.int32(levels), jnp.zeros(0))


@pytest.mark.parametrize("text", [0, 1, 2, 3])
def test_size_environment_gives_the_totals_of_run(replay, text):
    params = constant_params(2, 4, CONFIG)
    env = environment.size_environment(CONFIG, "average", constant())
    first = int(TRACE.first[text])
    _, steps = play(env, data_of(replay, params), at(first, 2), lambda state: jnp.int32(3), 13)
    count = int(np.argmax(steps.terminated)) + 1
    totals = simulate.run(replay, CONFIG, constant(), params, learned=True)
    assert count == totals.cycles[text] and steps.committed[:count].sum() == totals.committed[text]
    np.testing.assert_allclose(steps.seconds[:count].sum(), totals.seconds[text], rtol=1e-6)
    expected = totals.committed[text] - 300.0 * totals.seconds[text]
    np.testing.assert_allclose(steps.reward[:count].sum(), expected, rtol=1e-4)


@pytest.mark.parametrize("text", [0, 2])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_depth_environment_gives_the_totals_of_run(replay, text, levels):
    env = environment.depth_environment(CONFIG, "average", CONFIG.sizes.index(4))
    first = int(TRACE.first[text])
    _, steps = play(
        env, data_of(replay), at(first), lambda state: (state.levels < levels).astype(jnp.int32), 40
    )
    totals = simulate.run(
        replay, CONFIG, constant(), constant_params(levels, 4, CONFIG), learned=True
    )
    count = int(totals.cycles[text]) * min(levels, 2)  # no decision after the last level
    assert steps.committed[:count].sum() == totals.committed[text]
    np.testing.assert_allclose(steps.seconds[:count].sum(), totals.seconds[text], rtol=1e-6)
    assert steps.terminated[:count].sum() == totals.cycles[text] and steps.terminated[count - 1]
    assert not np.any(steps.reward[:count][~steps.terminated[:count]])


def test_depth_environment_stops_at_the_last_level_and_ends_texts(replay):
    env = environment.depth_environment(CONFIG, "paper", 2)
    step = env.step(data_of(replay), at(0, 2), jnp.int32(1), KEY)
    assert step.terminated and not step.truncated and step.state.levels == 1
    assert step.state.position == step.committed
    on = env.step(data_of(replay), at(0, 1), jnp.int32(1), KEY)
    assert not on.terminated and (on.state.position, on.state.levels) == (0, 2)
    assert on.committed == on.seconds == on.reward == 0
    ends = [
        env.step(data_of(replay), at(TRACE_END - 1), jnp.int32(0), jax.random.key(k))
        for k in range(4)
    ]
    assert len({int(end.state.position) for end in ends}) > 1


def test_environments_with_controllers_choose_as_run_does(replay):
    params, controller = jnp.float32(-2.0), watching()
    totals = simulate.run(replay, CONFIG, controller, params, learned=True)
    data = data_of(replay, params)
    depth = environment.depth_environment(CONFIG, "paper", controller)

    def decide(state):
        view = simulate.level_view(replay, state.position, state.levels)
        return controller.keep_drafting(params, controller.init(), view).astype(jnp.int32)

    _, steps = play(depth, data, at(TRACE.first[2]), decide, 40)
    over = np.flatnonzero(np.cumsum(steps.committed) >= totals.committed[2])[0] + 1
    np.testing.assert_allclose(steps.seconds[:over].sum(), totals.seconds[2], rtol=1e-6)
    size = environment.size_environment(CONFIG, "paper", controller)
    states, steps = play(size, data, size.reset(data, KEY), lambda state: jnp.int32(1), 30)
    high = TRACE.score[np.asarray(states.position), :2].max((2, 3)) > -2.0
    chosen = 1 + np.cumprod(high, axis=1).sum(1)
    np.testing.assert_array_equal(states.levels, chosen)


def test_observations_are_those_of_decoding(replay):
    data, position = data_of(replay), 4
    for levels in (1, 2, 3):
        state = at(position, levels)
        length = int(TRACE.length[position])
        depth = environment.depth_environment(CONFIG, "paper", 0)
        view = views.level(TRACE.score[position, levels - 1], levels, length=length)
        expected = observe.depth_observation(view, state.memory, CONFIG)
        np.testing.assert_array_equal(depth.observe(data, state), expected)
        size = environment.size_environment(CONFIG, "paper", "random")
        view = views.tree(TRACE.score[position], levels, length=length)
        expected = observe.size_observation(view, state.memory, CONFIG)
        np.testing.assert_array_equal(size.observe(data, state), expected)
        assert expected.shape == (size.observation_width,)
    assert (depth.action_count, size.action_count) == (2, 5)


def test_next_observation_is_seen_again_where_the_episode_goes_on(replay):
    data = data_of(replay)
    for env in (
        environment.size_environment(CONFIG, "paper", "random"),
        environment.depth_environment(CONFIG, "paper", 3),
    ):
        _, steps = play(env, data, env.reset(data, KEY), lambda state: jnp.int32(1), 30)
        seen = jax.vmap(env.observe, (None, 0))(data, steps.state)
        on = ~np.asarray(steps.terminated)
        np.testing.assert_array_equal(np.asarray(steps.next_observation)[on], np.asarray(seen)[on])


def test_resets_reach_every_position_and_all_levels(replay):
    env = environment.size_environment(CONFIG, "paper", "random")
    states = jax.vmap(env.reset, (None, 0))(data_of(replay), jax.random.split(KEY, 600))
    assert set(states.position.tolist()) == set(range(TRACE_END))
    assert set(states.levels.tolist()) == {1, 2, 3}


def test_rewards(replay):
    result = simulate.cycle_outcome(replay, jnp.int32(0), jnp.int32(3), jnp.int32(4), learned=True)
    committed, seconds = int(result.committed), float(result.seconds)
    plain = float(replay.plain_seconds)
    expected = {
        "paper": committed / seconds * plain,
        "average": committed - 300.0 * seconds,
        "accepted": int(result.accepted),
        "time": -seconds / plain,
    }
    for reward, value in expected.items():
        env = environment.size_environment(CONFIG, reward, "random")
        step = env.step(data_of(replay), at(0, 3), jnp.int32(4), KEY)
        np.testing.assert_allclose(step.reward, value, rtol=1e-5)


def test_one_level_leaves_no_depth_decision():
    config = CycleConfig(beam_width=2, max_levels=1, sizes=(0, 1, 2), context=64)
    replay = simulate.build(synthetic.trace(config), synthetic.table(config), config)
    env = environment.depth_environment(config, "paper", 1)
    assert env.step(data_of(replay), at(0), jnp.int32(1), KEY).terminated
    totals = simulate.run(replay, config, constant(), constant_params(1, 2, config), learned=True)
    np.testing.assert_array_equal(totals.levels, totals.cycles)
