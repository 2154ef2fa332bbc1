"""The numpy walk that the other library learns on is the environment that we learn on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import gym_replay
from ltd_jax.config import CycleConfig
from ltd_jax.learning import environment
from ltd_jax.replay import simulate
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4), context=64)
SIZE = 2


@pytest.fixture(scope="module")
def replay():
    trace = synthetic.trace(CONFIG, seed=3, text_tokens=(9, 5, 12))
    return simulate.build(trace, synthetic.table(CONFIG), CONFIG)


@pytest.mark.parametrize("reward", ["paper", "accepted", "time"])
@pytest.mark.parametrize("policy", ["size", "depth"])
def test_every_step_is_the_environment_s(replay, policy, reward):
    walk = gym_replay.Walk(replay, CONFIG, policy, reward, SIZE, seed=1)
    if policy == "size":
        world = environment.size_environment(CONFIG, reward, "random")
    else:
        world = environment.depth_environment(CONFIG, reward, SIZE)
    data = environment.ReplayData(replay, (), jnp.float32(0))
    step = jax.jit(world.step)
    random, ends = np.random.default_rng(0), 0
    state = world.reset(data, jax.random.key(0))
    for _ in range(60):
        state = state.replace(position=jnp.int32(walk.position), levels=jnp.int32(walk.levels))
        np.testing.assert_allclose(walk.observe(), world.observe(data, state), rtol=1e-6)
        action = int(random.integers(world.action_count))
        at_end = walk.replay["remaining"][walk.position]
        expected = step(data, state, jnp.int32(action), jax.random.key(0))
        gained, over = walk.act(action)
        assert gained == pytest.approx(float(expected.reward), rel=1e-5)
        assert over == bool(expected.terminated)
        ends += over
        if float(expected.committed) < at_end:  # the text goes on
            assert walk.position == int(expected.state.position)
        if policy == "depth":
            assert walk.levels == int(expected.state.levels)
    assert 0 < ends < 60


def test_walks_reach_every_position(replay):
    walk = gym_replay.Walk(replay, CONFIG, "size", "paper")
    seen = set()
    for _ in range(400):
        walk.restart()
        seen.add((walk.position, walk.levels))
    positions = len(walk.replay["remaining"])
    assert {position for position, _ in seen} == set(range(positions))
    assert {levels for _, levels in seen} == {1, 2, 3}
