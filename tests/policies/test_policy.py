import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import (
    Constant,
    Forced,
    LevelView,
    Mixed,
    Outcome,
    Policy,
    overrides,
    static,
)
from tests.policies import views

CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 4), context=64)


@struct.dataclass
class Counting(Policy):
    """Counts passes and cycles; the smallest size whose index is the number of cycles."""

    start: jax.Array | int
    kind: str = static(default="any")

    def init_history(self, config: CycleConfig) -> jax.Array:
        return jnp.int32(self.start)

    def observe_level(self, history: jax.Array, view: LevelView, config: CycleConfig) -> jax.Array:
        return history + 1

    def keep_drafting(self, history: jax.Array, view: LevelView, config: CycleConfig) -> jax.Array:
        return history < 2

    def choose_size(self, history, view, config: CycleConfig) -> jax.Array:
        return jnp.minimum(history, len(config.sizes) - 1)

    def priority(self, history, view, config: CycleConfig) -> jax.Array:
        return -view.log_prob

    def update_history(self, history: jax.Array, outcome: Outcome, config) -> jax.Array:
        return history * 10


def level_view(levels: int) -> LevelView:
    return views.level(jnp.zeros((2, 2)), levels)


TREE = views.tree(jnp.ones((3, 2, 2)), 2)


def test_constant_drafts_its_levels_and_verifies_its_size() -> None:
    constant = Constant(levels=2, size=4)
    keep = [bool(constant.keep_drafting((), level_view(levels), CYCLE)) for levels in (1, 2, 3)]
    assert keep == [True, False, False]
    assert CYCLE.sizes[int(constant.choose_size((), TREE, CYCLE))] == 4


def test_constant_remembers_nothing() -> None:
    constant, outcome = Constant(2, 4), Outcome(jnp.int32(2), jnp.int32(1), jnp.int32(2))
    history = constant.init_history(CYCLE)
    assert history == () == constant.update_history(history, outcome, CYCLE)
    assert constant.observe_level(history, level_view(1), CYCLE) == ()
    np.testing.assert_array_equal(constant.priority((), TREE, CYCLE), TREE.log_prob)


@pytest.mark.parametrize("levels", [1, np.int64(2), jnp.int32(3), jnp.asarray(3)])
def test_all_constants_share_one_compiled_function(levels) -> None:
    traces = []

    @jax.jit
    def keep(policy: Constant, view: LevelView) -> jax.Array:
        traces.append(policy)
        return policy.keep_drafting((), view, CYCLE)

    keep(Constant(1, 1).traced(), level_view(1))
    keep(Constant(levels, 4).traced(), level_view(1))
    assert len(traces) == 1


def test_static_fields_hash_by_value() -> None:
    traces = []

    @jax.jit
    def run(policy: Counting) -> jax.Array:
        traces.append(policy)
        return policy.init_history(CYCLE)

    for kind in ("any", "other", "".join(["an", "y"])):
        run(Counting(1, kind).traced())
    assert len(traces) == 2


@pytest.mark.parametrize("levels", [0, 4])
def test_levels_that_the_cycle_has_not_are_refused(levels: int) -> None:
    with pytest.raises(UserError, match=r"levels must lie in 1\.\.3"):
        Constant(levels, 1).check(CYCLE)


def test_a_size_that_is_not_compiled_is_refused() -> None:
    with pytest.raises(UserError, match="size 3 is not one of"):
        Constant(1, 3).check(CYCLE)
    with pytest.raises(UserError, match="size 3 is not one of"):
        Mixed(Constant(1, 1), Constant(1, 3)).check(CYCLE)


def test_it_is_known_which_methods_are_a_policys_own() -> None:
    names = ("observe_level", "keep_drafting", "priority", "update_history")
    assert [overrides(Constant(1, 1), name) for name in names] == [False, True, False, False]
    assert all(overrides(Counting(0), name) for name in names)


def test_a_mixed_policy_takes_levels_of_one_and_sizes_of_another() -> None:
    mixed = Mixed(depth=Constant(2, 0), size=Counting(1))
    history = mixed.init_history(CYCLE)
    keep = [bool(mixed.keep_drafting(history, level_view(n), CYCLE)) for n in (1, 2)]
    assert keep == [True, False]
    assert mixed.choose_size(history, TREE, CYCLE) == 1
    outcome = Outcome(jnp.int32(2), jnp.int32(1), jnp.int32(2))
    assert mixed.update_history(history, outcome, CYCLE)[1] == 10


@pytest.mark.parametrize("holds", [True, False])
def test_a_forced_policy_decides_and_is_overruled(holds: bool) -> None:
    policy = Forced(Counting(0), Constant(levels=3, size=4), holds).traced()
    history = policy.observe_level(policy.init_history(CYCLE), level_view(1), CYCLE)
    assert history == 1  # the policy's own, whatever holds
    keep = [bool(policy.keep_drafting(jnp.int32(9), level_view(n), CYCLE)) for n in (1, 2, 3)]
    assert keep == ([True, True, False] if holds else [False] * 3)
    assert policy.choose_size(jnp.int32(0), TREE, CYCLE) == (2 if holds else 0)
    priority = policy.priority(history, TREE, CYCLE)
    np.testing.assert_array_equal(priority, TREE.log_prob if holds else -TREE.log_prob)
