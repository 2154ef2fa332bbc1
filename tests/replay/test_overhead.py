"""What deciding costs: overruled controllers do as told and still decide; slow ones are slow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ltd_jax.decoding import generate
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.policy import Overruled
from ltd_jax.replay import profile
from ltd_jax.replay.profile import CycleTimer
from tests.cycle import tiny
from tests.policies import views

CYCLE = dataclasses.replace(tiny.CONFIG.cycle, max_levels=3, sizes=(0, 1, 6), short_catch_ups=())
PAIR = dataclasses.replace(tiny.pair(0), config=dataclasses.replace(tiny.CONFIG, cycle=CYCLE))


@struct.dataclass
class Work:
    """How long `stubborn` thinks."""

    after_pass: jax.Array  # i32 [] steps of a loop
    at_end: jax.Array  # i32 []


def think(steps, seed):
    """A number that takes so many steps, each of which needs the one before."""
    return jax.lax.fori_loop(0, steps, lambda _, value: jnp.cos(value + seed), seed)


def stubborn():
    """Drafts all levels, takes the largest size and ranks all nodes alike."""
    return policy_module.constant()._replace(
        init=lambda: jnp.int32(0),
        notice=lambda params, state, view: state + 1,
        keep_drafting=lambda params, state, view: think(params.after_pass, view.score[0, 0]) < 2,
        choose_size=lambda params, state, view: jnp.where(
            think(params.at_end, view.score[0, 0, 0]) < 2, len(CYCLE.sizes) - 1, 0
        ),
        rank=lambda params, state, view: jnp.where(jnp.isfinite(view.score), 1.0, -jnp.inf),
    )


STUBBORN = stubborn()
IDLE = Work(jnp.int32(1), jnp.int32(1))


def cycles_of(rule, params):
    prompt_T = jnp.arange(9)
    return list(generate.generate(PAIR, rule, params, prompt_T, 24))[1:]


@pytest.mark.parametrize(("levels", "size"), [(1, 1), (3, 6), (2, 0)])
def test_an_overruled_controller_does_what_the_constant_does(levels, size):
    setting = policy_module.constant_params(levels, size, CYCLE)
    held = Overruled(IDLE, setting, jnp.bool_(True))
    found = cycles_of(policy_module.overruled(STUBBORN), held)
    expected = cycles_of(policy_module.constant(), setting)
    assert [(each.levels, each.size, each.tokens) for each in found] == [
        (each.levels, each.size, each.tokens) for each in expected
    ]


def test_it_still_decides():
    setting = policy_module.constant_params(1, 1, CYCLE)
    free = Overruled(IDLE, setting, jnp.bool_(False))
    rule, view = policy_module.overruled(STUBBORN), views.level(jnp.zeros((2, 2)), 2)
    tree = views.tree(jnp.zeros((3, 2, 2)), 2)
    assert bool(rule.keep_drafting(free, 0, view)) and int(rule.choose_size(free, 0, tree)) == 2
    assert rule.notice(free, 4, view) == 5
    np.testing.assert_array_equal(rule.rank(free, 0, tree), np.ones((3, 2, 2)))
    held = free.replace(holds=jnp.bool_(True))
    assert not rule.keep_drafting(held, 0, view) and int(rule.choose_size(held, 0, tree)) == 1
    np.testing.assert_array_equal(rule.rank(held, 0, tree), tree.score)


def test_all_settings_of_a_controller_are_overruled_by_one_controller():
    assert policy_module.overruled(STUBBORN) is policy_module.overruled(STUBBORN)


@pytest.mark.parametrize("where", ["depth_seconds", "size_seconds"])
def test_slow_decisions_are_seen_to_be_slow_where_they_are(where):
    slow = jnp.int32(2_000_000)
    work = {
        "depth_seconds": IDLE.replace(after_pass=slow),
        "size_seconds": IDLE.replace(at_end=slow),
    }
    bare = CycleTimer(PAIR, policy_module.constant(), 9, CYCLE.cycles_per_call)
    found = profile.time_decisions(bare, STUBBORN, work[where], visits=5)
    idle = profile.time_decisions(bare, STUBBORN, IDLE, visits=5)
    other = {"depth_seconds": "size_seconds", "size_seconds": "depth_seconds"}[where]
    assert getattr(found, where) > 2 * max(getattr(found, other), getattr(idle, where))


def test_constants_decide_for_free():
    bare = CycleTimer(PAIR, policy_module.constant(), 9, CYCLE.cycles_per_call)
    setting = policy_module.constant_params(2, 1, CYCLE)
    assert profile.time_decisions(bare, policy_module.constant(), setting, 1) == profile.FREE
