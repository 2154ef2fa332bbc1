import jax
import jax.numpy as jnp
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.policies import controller
from ltd_jax.policies.controller import LevelView, Outcome, TreeView

CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 4), context=64)


def level_view(levels: int) -> LevelView:
    return LevelView(jnp.zeros((2, 2)), jnp.int32(levels), jnp.int32(5))


def test_constant_drafts_its_levels_and_verifies_its_size() -> None:
    constant, params = controller.constant(), controller.constant_params(2, 4, CYCLE)
    keep = [bool(constant.keep_drafting(params, (), level_view(levels))) for levels in (1, 2, 3)]
    assert keep == [True, False, False]
    tree = TreeView(jnp.zeros((3, 2, 2)), jnp.int32(2), jnp.int32(5))
    assert CYCLE.sizes[int(constant.choose_size(params, (), tree))] == 4


def test_constant_remembers_nothing() -> None:
    constant = controller.constant()
    outcome = Outcome(jnp.int32(2), jnp.int32(1), jnp.int32(2))
    assert constant.update(constant.init(), outcome) == ()


def test_all_constants_share_one_compiled_function() -> None:
    constant, traces = controller.constant(), []

    @jax.jit
    def keep(params: controller.ConstantParams, view: LevelView) -> jax.Array:
        traces.append(params)
        return constant.keep_drafting(params, (), view)

    for levels in (1, 2, 3):
        keep(controller.constant_params(levels, 1, CYCLE), level_view(1))
    assert len(traces) == 1


@pytest.mark.parametrize("levels", [0, 4])
def test_levels_that_the_cycle_has_not_are_refused(levels: int) -> None:
    with pytest.raises(ValueError, match=r"levels must lie in 1\.\.3"):
        controller.constant_params(levels, 1, CYCLE)


def test_a_size_that_is_not_compiled_is_refused() -> None:
    with pytest.raises(ValueError, match="size 3 is not one of"):
        controller.constant_params(1, 3, CYCLE)
