"""The numpy walk that the other library learns on is the environment that we learn on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import gym_replay
from ltd_jax.config import CycleConfig
from ltd_jax.learning.environment import DepthEnvironment, EnvData, SizeEnvironment
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import simulate
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4), context=64)
SIZE_INDEX = 2


@pytest.fixture(scope="module")
def simulator():
    trace = synthetic.trace(CONFIG, seed=3, text_tokens=(9, 5, 12))
    return simulate.build(trace, synthetic.table(CONFIG), CONFIG)


@pytest.mark.parametrize("policy", ["size", "depth"])
def test_every_step_is_the_environment_s(simulator, policy):
    walk = gym_replay.Walk(simulator, policy, SIZE_INDEX, seed=1)
    if policy == "size":
        environment, other = SizeEnvironment(CONFIG, "paper"), None
    else:
        environment = DepthEnvironment(CONFIG, "paper")
        other = Constant(1, CONFIG.sizes[SIZE_INDEX]).traced()
    assert walk.action_count == environment.action_count
    data = EnvData(simulator, other)
    step, observe = jax.jit(environment.step), jax.jit(environment.observe)
    random, ends = np.random.default_rng(0), 0
    state = environment.reset(data, jax.random.key(0))
    for _ in range(60):
        start = state.start.replace(position=jnp.int32(walk.position))
        state = state.replace(start=start, levels=jnp.int32(walk.levels))
        np.testing.assert_allclose(walk.observe(), observe(data, state), rtol=1e-6)
        action = int(random.integers(environment.action_count))
        left = walk.simulator.tokens_left[walk.position]
        expected = step(data, state, jnp.int32(action), jnp.float32(0), jax.random.key(0))
        gained, over = walk.act(action)
        assert gained == pytest.approx(float(expected.reward), rel=1e-5)
        assert over == bool(expected.terminated)
        ends += over
        if float(expected.committed) < left:  # the text goes on
            assert walk.position == int(expected.state.start.position)
        if policy == "depth":
            assert walk.levels == int(expected.state.levels)
    assert 0 < ends < 60


def test_walks_reach_every_position(simulator):
    walk = gym_replay.Walk(simulator, "size")
    reached = set()
    for _ in range(400):
        walk.restart()
        reached.add((walk.position, walk.levels))
    positions = len(walk.simulator.tokens_left)
    assert {position for position, _ in reached} == set(range(positions))
    assert {levels for _, levels in reached} == {1, 2, 3}
