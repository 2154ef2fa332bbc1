import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import PPOConfig
from ltd_jax.learning import ppo
from ltd_jax.learning.ppo import Rollout, loss

jax.config.update("jax_numpy_rank_promotion", "raise")


def test_chained_advantages_by_hand() -> None:
    # gamma = lambda = 1/2, D = 3. Cycle 0 stops at pass 1, pass 2 was not asked; cycle 1 asks both.
    #   cycle 0: values 1, -, 2; reward 3; goes on      cycle 1: values 4, 5, 6; reward 7; text over
    asked = jnp.array([[True, False, True], [True, True, True]])
    value = jnp.array([[1.0, 99.0, 2.0], [4.0, 5.0, 6.0]])
    ours = ppo.chained_advantages(
        jnp.array([3.0, 7.0]), value, asked, jnp.array([False, True]), jnp.float32(50), 0.5, 0.5
    )
    # cycle 1: size 7 - 6 = 1; pass 2: 6 - 5 + 0.5 * 1 = 1.5; pass 1: 5 - 4 + 0.5 * 1.5 = 1.75
    # cycle 0: size 3 + 0.5 * (4 + 0.5 * 1.75) - 2 = 3.4375; pass 1: 2 - 1 + 0.5 * 3.4375 = 2.71875
    np.testing.assert_allclose(ours, [[2.71875, 0, 3.4375], [1.75, 1.5, 1]], rtol=1e-6)


def test_chains_of_one_decision_are_plain_advantages() -> None:
    key_reward, key_value = jax.random.split(jax.random.key(0))
    reward_T, value_T = jax.random.normal(key_reward, (6,)), jax.random.normal(key_value, (6,))
    over_T = jnp.array([False, True, False, False, True, False])
    next_T = ppo.next_values(value_T, jnp.float32(2), over_T)
    plain = ppo.advantages(reward_T, value_T, next_T, over_T, 0.9, 0.8)
    chained = ppo.chained_advantages(
        reward_T, value_T[:, None], jnp.ones((6, 1), bool), over_T, jnp.float32(2), 0.9, 0.8
    )
    np.testing.assert_allclose(chained[:, 0], plain, rtol=1e-5)


@pytest.mark.parametrize("counted", [3, 5])
def test_decisions_without_weight_are_as_if_they_were_not_there(counted: int) -> None:
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
    logits, value = draw(6, 3), draw(6)
    batch = Rollout(
        observation=draw(6, 2),
        action=jnp.asarray(random.integers(0, 3, 6), jnp.int32),
        log_prob=-jnp.abs(draw(6)),
        advantage=draw(6),
        target=draw(6),
    )
    weight = (jnp.arange(6) < counted).astype(jnp.float32)
    weighted = loss(logits, value, batch, PPOConfig(), weight)
    kept = jax.tree.map(lambda leaf: leaf[:counted], batch)
    alone = loss(logits[:counted], value[:counted], kept, PPOConfig())
    for ours, theirs in zip(jax.tree.leaves(weighted), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
