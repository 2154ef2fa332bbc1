"""Nodes selected by another priority than their log-probability, in the simulator."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import simulate
from tests.oracle import replay as oracle
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
TRACE = synthetic.trace(CONFIG, seed=4, text_tokens=(30, 21), agreement=0.9)


@struct.dataclass
class FirstSlots(Constant):
    """Only nodes along first slots are eligible."""

    def priority(self, history, view, config):
        keep = jnp.zeros((3, 2, 2), bool).at[:, 0].set(True)
        return jnp.where(keep, view.log_prob, -jnp.inf)


@struct.dataclass
class ByLogProb(Constant):
    """The default's priority, said once more."""

    def priority(self, history, view, config):
        return view.log_prob


@pytest.fixture(scope="module")
def simulator():
    return simulate.build(TRACE, synthetic.table(CONFIG), CONFIG)


def accepted_by_hand(position, levels, size):
    """What is accepted where nodes in other slots than the first are left out."""
    log_prob = TRACE.log_prob.copy()
    log_prob[position, :, 1] = -np.inf
    log_prob[position, levels:] = -np.inf
    masked = dataclasses.replace(TRACE, log_prob=log_prob)
    return oracle.accepted(masked, CONFIG, position, levels, size)


@pytest.mark.parametrize(("levels", "size"), [(1, 1), (3, 2), (3, 8)])
def test_accepted_by_priority_equals_walking_the_masked_tree(simulator, levels, size):
    policy = FirstSlots(levels, size).traced()

    @jax.jit
    @jax.vmap
    def accepted(position):
        view = simulate.tree_view(simulator, position, jnp.int32(levels))
        priority_DWW = policy.priority((), view, CONFIG)
        return simulate.accepted_by_priority(simulator, position, priority_DWW, jnp.int32(size))

    count = len(TRACE.length)
    expected = [accepted_by_hand(position, levels, size) for position in range(count)]
    assert accepted(jnp.arange(count)).tolist() == expected
    assert len(set(expected)) > 1


def test_a_priority_of_log_probs_changes_nothing(simulator):
    one = simulate.run(simulator, Constant(3, 4), charge_decisions=False)
    two = simulate.run(simulator, ByLogProb(3, 4), charge_decisions=False)
    jax.tree.map(np.testing.assert_array_equal, one, two)
