import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.files import Identity, UserError
from ltd_jax.policies import networks, observe
from ltd_jax.policies.networks import Actor, ActorCritic, ActorCritics, Critic, Learned
from ltd_jax.policies.policy import Constant, LevelView, Mixed, TreeView
from tests.policies import views

jax.config.update("jax_numpy_rank_promotion", "raise")

CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 4), context=64)
NOTHING = jnp.zeros(0)  # remembered
WIDTHS = PolicyConfig(size_actor=(16, 8), size_critic=(8,), depth_actor=(8,), depth_critic=(8,))


def level_view(levels: int, score: float = -0.5) -> LevelView:
    return views.level(jnp.full((2, 2), score), levels)


def tree_view(levels: int) -> TreeView:
    return views.tree(jnp.full((3, 2, 2), -0.5), levels)


def always(policy: Learned, name: str, action: int) -> Learned:
    """The same networks with the last bias so high that one action always wins."""
    actor = getattr(policy, name)["params"]
    last = max(actor)
    bias = jnp.zeros_like(actor[last]["bias"]).at[action].set(100.0)
    changed = {"params": {**actor, last: {**actor[last], "bias": bias}}}
    return policy.replace(**{name: changed})


@pytest.fixture
def learned() -> Learned:
    return networks.init(jax.random.key(0), CYCLE, WIDTHS)


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
init = lambda key: networks.init(key, CycleConfig(), wide)
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


def test_learned_decides_by_its_likeliest_choices(learned: Learned) -> None:
    deep, flat = always(learned, "depth", 1), always(learned, "depth", 0)
    keep = [bool(deep.keep_drafting(NOTHING, level_view(levels), CYCLE)) for levels in (1, 2, 3)]
    assert keep == [True, True, False]  # the tree is full at D levels
    assert not flat.keep_drafting(NOTHING, level_view(1), CYCLE)
    for size in range(3):
        assert always(learned, "size", size).choose_size(NOTHING, tree_view(2), CYCLE) == size


def test_learned_sees_the_observations_of_the_cycle(learned: Learned) -> None:
    view = tree_view(2)
    observation_O = observe.size_observation(view, NOTHING, CYCLE)
    logits = networks.size_actor(CYCLE, WIDTHS).apply(learned.size, observation_O)
    choice = learned.choose_size(NOTHING, view, CYCLE)
    assert choice == int(np.argmax(logits)) and choice.dtype == jnp.int32


def test_absent_nodes_do_not_spoil_a_decision(learned: Learned) -> None:
    nothing = level_view(1, -jnp.inf)
    observation_O = observe.depth_observation(nothing, NOTHING, CYCLE)
    assert np.isfinite(networks.depth_actor(WIDTHS).apply(learned.depth, observation_O)).all()
    assert learned.keep_drafting(NOTHING, nothing, CYCLE).shape == ()


def test_equal_policies_find_the_same_program(learned: Learned) -> None:
    traces = []

    @jax.jit
    def choose(policy: Learned, view: TreeView) -> jax.Array:
        traces.append(policy)
        return policy.choose_size(NOTHING, view, CYCLE)

    other = networks.init(jax.random.key(1), CYCLE, WIDTHS).replace(origin=Identity(pair="other"))
    for policy in (learned, other):
        choose(policy.traced(), tree_view(2))
    assert len(traces) == 1


def test_networks_of_another_cycle_are_refused(learned: Learned) -> None:
    learned.check(CYCLE)
    with pytest.raises(UserError, match="The depth policy reads 6 numbers, but this cycle gives"):
        learned.check(CycleConfig(beam_width=3, max_levels=3, sizes=(0, 1, 4), context=64))
    learned.replace(depth=None).check(CYCLE)


def test_one_learned_policy_beside_a_constant(learned: Learned) -> None:
    alone = Mixed(Constant(2, 0), always(learned, "size", 1).replace(depth=None))
    history = alone.init_history(CYCLE)
    keep = [bool(alone.keep_drafting(history, level_view(n), CYCLE)) for n in (1, 2)]
    assert keep == [True, False]
    assert alone.choose_size(history, tree_view(2), CYCLE) == 1
    alone = Mixed(always(learned, "depth", 1).replace(size=None), Constant(1, 4))
    assert alone.keep_drafting(history[::-1], level_view(1), CYCLE)
    assert alone.choose_size(history[::-1], tree_view(2), CYCLE) == 2


def test_decoding_needs_the_actors_only() -> None:
    both = ActorCritics(
        depth=ActorCritic(actor="depth actor", critic="depth critic"),
        size=ActorCritic(actor="size actor", critic="size critic"),
    )
    assert both.policy(WIDTHS) == Learned("depth actor", "size actor", WIDTHS)
