"""Advantages, losses and gradients are those of Stable-Baselines3 on the same rollout."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltd_jax.config import PPOConfig
from ltd_jax.learning import ppo
from ltd_jax.learning.environment import Step
from ltd_jax.learning.ppo import Rollout, Transitions
from ltd_jax.policies.networks import Actor, ActorCritic, Critic
from tests.oracle import sb3

FOLDER = Path(__file__).parent / "golden"
GOLDEN = np.load(FOLDER / "ppo.npz")
ACTOR, CRITIC = Actor((8,), 4), Critic((8, 4))
CONFIG = PPOConfig(environments=2, rollout=64, minibatch=64, gamma=0.9)


def variables(name: str) -> ActorCritic:
    return jax.tree.map(jnp.asarray, sb3.actor_critic(FOLDER / f"{name}.zip"))


@pytest.fixture(scope="module")
def experience() -> Rollout:
    """The rollout as our own code judges it."""
    names = ("observation", "action", "log_prob", "reward", "terminated", "truncated")
    stored = {name: jnp.asarray(GOLDEN[name]) for name in (*names, "next_observation", "last")}
    return judged(variables("before"), stored)


@jax.jit
def judged(before: ActorCritic, stored: dict[str, jax.Array]) -> Rollout:
    critic = lambda seen: CRITIC.apply(before.critic, seen)
    terminated, truncated = stored["terminated"], stored["truncated"]
    transitions = Transitions(
        observation=stored["observation"],
        action=stored["action"],
        log_prob=stored["log_prob"],
        step=Step(
            state=None,
            reward=stored["reward"].astype(jnp.float32),
            terminated=terminated,
            committed=jnp.zeros((32, 2)),
            seconds=jnp.zeros((32, 2)),
        ),
    )
    value_TB = critic(stored["observation"])
    next_TB = jax.vmap(ppo.next_values, (1, 0, 1), 1)(value_TB, critic(stored["last"]), terminated)
    # Our environments cut no episode; where the library's did, the value of what it saw counts.
    next_TB = jnp.where(truncated & ~terminated, critic(stored["next_observation"]), next_TB)
    return ppo.rollout_of(transitions, value_TB, next_TB, terminated | truncated, CONFIG)


def test_the_golden_rollout_has_every_kind_of_end():
    terminated, truncated = GOLDEN["terminated"], GOLDEN["truncated"]
    assert (terminated & ~truncated).any() and (truncated & ~terminated).any()
    assert (terminated & truncated).any() and 0.1 < GOLDEN["clipped"] < 0.9


@jax.jit
def said_of(params: ActorCritic, batch: Rollout) -> jax.Array:
    logits = ACTOR.apply(params.actor, batch.observation)
    return ppo.log_prob(jax.nn.log_softmax(logits), batch.action)


def test_the_policy_that_acted_is_read_right(experience):
    said = said_of(variables("before"), experience)
    np.testing.assert_allclose(said, experience.log_prob, atol=1e-5)


def test_advantages_and_targets(experience):
    np.testing.assert_allclose(experience.advantage, GOLDEN["advantage"].reshape(-1), atol=1e-5)
    np.testing.assert_allclose(experience.target, GOLDEN["target"].reshape(-1), atol=1e-5)


@jax.jit
@partial(jax.value_and_grad, has_aux=True)
def objective(params: ActorCritic, batch: Rollout):
    logits_MA = ACTOR.apply(params.actor, batch.observation)
    return ppo.loss(logits_MA, CRITIC.apply(params.critic, batch.observation), batch, CONFIG)


def test_losses(experience):
    (total, parts), _ = objective(variables("after"), experience)
    assert float(parts.policy) == pytest.approx(GOLDEN["loss/policy"], abs=1e-5)
    assert float(parts.value) == pytest.approx(GOLDEN["loss/value"], rel=1e-5)
    assert float(parts.entropy) == pytest.approx(-GOLDEN["loss/entropy"], abs=1e-5)
    assert float(total) == pytest.approx(GOLDEN["loss/total"], rel=1e-5)


def test_clipped_gradients(experience):
    _, gradient = objective(variables("after"), experience)
    norm = jax.jit(optax.tree.norm)
    assert float(norm(gradient)) > CONFIG.max_gradient_norm  # the clip does something
    clip = optax.clip_by_global_norm(CONFIG.max_gradient_norm)
    clipped, _ = jax.jit(clip.update)(gradient, clip.init(gradient))
    names = {
        "actor": ["mlp_extractor.policy_net.0", "action_net"],
        "critic": ["mlp_extractor.value_net.0", "mlp_extractor.value_net.2", "value_net"],
    }
    for network, layers in names.items():
        for index, name in enumerate(layers):
            ours = getattr(clipped, network)["params"][f"Dense_{index}"]
            theirs = GOLDEN[f"gradient/{name}.weight"].T, GOLDEN[f"gradient/{name}.bias"]
            np.testing.assert_allclose(ours["kernel"], theirs[0], atol=1e-5)
            np.testing.assert_allclose(ours["bias"], theirs[1], atol=1e-5)
    theirs = np.sqrt(sum((GOLDEN[name] ** 2).sum() for name in GOLDEN.files if "gradient" in name))
    assert float(norm(clipped)) == pytest.approx(theirs, abs=1e-5)
