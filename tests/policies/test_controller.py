import jax
import jax.numpy as jnp
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.policies import policy as policy_module
from ltd_jax.policies.policy import LevelView, Outcome
from tests.policies import views

CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 4), context=64)


def level_view(levels: int) -> LevelView:
    return views.level(jnp.zeros((2, 2)), levels)


def test_constant_drafts_its_levels_and_verifies_its_size() -> None:
    constant, params = policy_module.constant(), policy_module.constant_params(2, 4, CYCLE)
    keep = [bool(constant.keep_drafting(params, (), level_view(levels))) for levels in (1, 2, 3)]
    assert keep == [True, False, False]
    tree = views.tree(jnp.zeros((3, 2, 2)), 2)
    assert CYCLE.sizes[int(constant.choose_size(params, (), tree))] == 4


def test_constant_remembers_nothing() -> None:
    constant = policy_module.constant()
    outcome = Outcome(jnp.int32(2), jnp.int32(1), jnp.int32(2))
    assert constant.update(constant.init(), outcome) == ()


def test_all_constants_share_one_compiled_function() -> None:
    constant, traces = policy_module.constant(), []

    @jax.jit
    def keep(params: policy_module.ConstantParams, view: LevelView) -> jax.Array:
        traces.append(params)
        return constant.keep_drafting(params, (), view)

    for levels in (1, 2, 3):
        keep(policy_module.constant_params(levels, 1, CYCLE), level_view(1))
    assert len(traces) == 1


@pytest.mark.parametrize("levels", [0, 4])
def test_levels_that_the_cycle_has_not_are_refused(levels: int) -> None:
    with pytest.raises(ValueError, match=r"levels must lie in 1\.\.3"):
        policy_module.constant_params(levels, 1, CYCLE)


def test_a_size_that_is_not_compiled_is_refused() -> None:
    with pytest.raises(ValueError, match="size 3 is not one of"):
        policy_module.constant_params(1, 3, CYCLE)


def reader(field: str) -> policy_module.Controller:
    """Goes on while a field of the view is above the parameter."""
    return policy_module.constant()._replace(
        keep_drafting=lambda params, state, view: jnp.max(getattr(view, field)) > params.levels
    )


@pytest.mark.parametrize("field", ["root_entropy", "entropy", "score"])
def test_it_is_known_who_reads_the_roots_entropy(field: str) -> None:
    params = policy_module.constant_params(2, 4, CYCLE)
    asked = (reader(field), params, (), level_view(1), views.tree(jnp.zeros((3, 2, 2)), 2))
    assert policy_module.reads_root_entropy(*asked) == (field == "root_entropy")


def test_remembering_the_roots_entropy_is_reading_it() -> None:
    keeper = policy_module.constant()._replace(
        init=lambda: jnp.float32(0), notice=lambda params, state, view: view.root_entropy
    )
    asked = (level_view(1), views.tree(jnp.zeros((3, 2, 2)), 2))
    params = policy_module.constant_params(2, 4, CYCLE)
    assert policy_module.reads_root_entropy(keeper, params, jnp.float32(0), *asked)
