import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.policies import networks, observe
from ltd_jax.policies.networks import Actor, ActorCritic, Critic, LearnedParams, PolicyParams
from ltd_jax.policies.policy import LevelView, TreeView
from tests.policies import views

jax.config.update("jax_numpy_rank_promotion", "raise")

CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 4), context=64)
NOTHING = jnp.zeros(0)  # remembered
WIDTHS = PolicyConfig(size_actor=(16, 8), size_critic=(8,), depth_actor=(8,), depth_critic=(8,))


def level_view(levels: int, score: float = -0.5) -> LevelView:
    return views.level(jnp.full((2, 2), score), levels)


def tree_view(levels: int) -> TreeView:
    return views.tree(jnp.full((3, 2, 2), -0.5), levels)


def always(params: LearnedParams, name: str, action: int) -> LearnedParams:
    """The same networks with the last bias so high that one action always wins."""
    actor = getattr(params, name)["params"]
    last = max(actor)
    bias = jnp.zeros_like(actor[last]["bias"]).at[action].set(100.0)
    changed = {"params": {**actor, last: {**actor[last], "bias": bias}}}
    return params.replace(**{name: changed})


@pytest.fixture
def params() -> LearnedParams:
    return networks.init_learned(jax.random.key(0), CYCLE, WIDTHS)


def test_initialised_as_in_stable_baselines3() -> None:
    actor = Actor((16, 8), 3).init(jax.random.key(0), jnp.zeros(32))["params"]
    critic = Critic((16,)).init(jax.random.key(1), jnp.zeros(32))["params"]
    for layer, gain in [
        (actor["Dense_0"], 2**0.5),
        (actor["Dense_1"], 2**0.5),
        (actor["Dense_2"], 0.01),
        (critic["Dense_0"], 2**0.5),
        (critic["Dense_1"], 1.0),
    ]:
        kernel = np.asarray(layer["kernel"])
        square = gain**2 * np.eye(kernel.shape[1])
        np.testing.assert_allclose(kernel.T @ kernel, square, atol=1e-5)
        np.testing.assert_array_equal(layer["bias"], 0)


SEEDS = """
import jax
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.policies import networks
wide = PolicyConfig((256, 256), (256, 256), (256, 256), (256, 256))
init = lambda key: networks.init_learned(key, CycleConfig(), wide)
every = jax.block_until_ready(jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 5)))
alone = init(jax.random.split(jax.random.key(0), 5)[3])
same = lambda many, one: bool((abs(many[3] - one) < 1e-5).all())
print(all(jax.tree.leaves(jax.tree.map(same, every, alone))))
"""


def test_wide_networks_of_several_seeds_do_not_wait_for_each_other() -> None:
    """In a process of its own, which would wait for ever on two cores (see `_orthogonal`)."""
    ended = subprocess.run(
        [sys.executable, "-c", SEEDS], capture_output=True, text=True, timeout=300
    )
    assert ended.stdout.strip() == "True", ended.stderr


def test_networks_are_relu_perceptrons_over_any_leading_axes() -> None:
    actor, critic = Actor((4,), 3), Critic((4,))
    observation = jax.random.normal(jax.random.key(2), (5, 2, 6))
    weights = actor.init(jax.random.key(0), jnp.zeros(6))
    first, last = weights["params"]["Dense_0"], weights["params"]["Dense_1"]
    expected = np.maximum(observation @ first["kernel"], 0) @ last["kernel"]
    np.testing.assert_allclose(actor.apply(weights, observation), expected, atol=1e-6)
    values = critic.apply(critic.init(jax.random.key(1), jnp.zeros(6)), observation)
    assert values.shape == (5, 2)


def test_learned_decides_by_its_likeliest_choices(params: LearnedParams) -> None:
    learned = networks.learned(CYCLE, WIDTHS)
    deep = always(params, "depth", 1)
    keep = [bool(learned.keep_drafting(deep, NOTHING, level_view(levels))) for levels in (1, 2, 3)]
    assert keep == [True, True, False]  # the tree is full at D levels
    assert not learned.keep_drafting(always(params, "depth", 0), NOTHING, level_view(1))
    for size in range(3):
        assert learned.choose_size(always(params, "size", size), NOTHING, tree_view(2)) == size


def test_learned_sees_the_observations_of_the_cycle(params: LearnedParams) -> None:
    learned = networks.learned(CYCLE, WIDTHS)
    view = tree_view(2)
    seen = observe.size_observation(view, NOTHING, CYCLE)
    logits = networks.size_actor(CYCLE, WIDTHS).apply(params.size, seen)
    choice = learned.choose_size(params, NOTHING, view)
    assert choice == int(np.argmax(logits)) and choice.dtype == jnp.int32


def test_absent_nodes_do_not_spoil_a_decision(params: LearnedParams) -> None:
    learned = networks.learned(CYCLE, WIDTHS)
    nothing = level_view(1, -jnp.inf)
    seen = observe.depth_observation(nothing, NOTHING, CYCLE)
    assert np.isfinite(networks.depth_actor(WIDTHS).apply(params.depth, seen)).all()
    assert learned.keep_drafting(params, NOTHING, nothing).shape == ()


def test_equal_configs_give_the_same_controller() -> None:
    assert networks.learned(CYCLE, WIDTHS) is networks.learned(
        CycleConfig(2, 3, (0, 1, 4), 64), WIDTHS
    )


def test_one_learned_policy_beside_a_constant(params: LearnedParams) -> None:
    size_only = networks.learned_size(CYCLE, WIDTHS, 2)
    alone = always(params, "size", 1).replace(depth=None)
    assert [bool(size_only.keep_drafting(alone, NOTHING, level_view(n))) for n in (1, 2)] == [
        True,
        False,
    ]
    assert size_only.choose_size(alone, NOTHING, tree_view(2)) == 1
    depth_only = networks.learned_depth(CYCLE, WIDTHS, 2)
    alone = always(params, "depth", 1).replace(size=None)
    assert depth_only.keep_drafting(alone, NOTHING, level_view(1))
    assert depth_only.choose_size(alone, NOTHING, tree_view(2)) == 2


def test_decoding_needs_the_actors_only() -> None:
    both = PolicyParams(
        depth=ActorCritic(actor="depth actor", critic="depth critic"),
        size=ActorCritic(actor="size actor", critic="size critic"),
    )
    assert both.learned == LearnedParams(depth="depth actor", size="size actor")
