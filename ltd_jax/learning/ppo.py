"""Proximal policy optimisation of one policy, after Stable-Baselines3 (paper A.3).

In reading order: advantages, rollouts, the loss, and the algorithm that puts them together. M
counts the decisions of a minibatch, T the steps of a rollout, B the environments side by side,
N = T * B all decisions of a rollout.

Generalised advantage estimation (Schulman et al. 2016) works on one environment. A step that
terminates has no value after it and ends the episode: the advantage of the step after belongs to
another one and does not flow back.

    reward      r0    r1    r2    r3
    terminated   0     1     0     0
    V after     V1     0    V3   last
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ltd_jax.config import PolicyConfig, PPOConfig
from ltd_jax.learning import loop
from ltd_jax.learning.environment import Environment, Step
from ltd_jax.learning.loop import Algorithm, Metrics, Start, TrainState
from ltd_jax.policies.networks import Actor, ActorCritic, Critic, output

PolicyName = Literal["size", "depth"]


def advantages(
    reward_T: jax.Array,
    value_T: jax.Array,
    next_value_T: jax.Array,
    ended_T: jax.Array,
    gamma: float,
    gae_lambda: float,
) -> jax.Array:
    """A[t] = δ[t] + γ λ (1 - ended[t]) A[t+1] with δ[t] = r[t] + γ V'[t] - V[t]; f32 [T].

    Args:
      next_value_T: V', the value after each step: 0 where it terminated, and what the next step saw
        where the episode goes on (or was only cut off).
      ended_T: bool, the next step belongs to another episode.
    """
    delta_T = reward_T + gamma * next_value_T - value_T
    carried_T = gamma * gae_lambda * (1.0 - ended_T)

    def add(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, carried = step
        advantage = delta + carried * later
        return advantage, advantage

    return jax.lax.scan(add, jnp.float32(0), (delta_T, carried_T), reverse=True)[1]


def next_values(value_T: jax.Array, last_value: jax.Array, terminated_T: jax.Array) -> jax.Array:
    """The value after each step, f32 [T].

    Args:
      value_T: value of what each step saw before its action.
      last_value: value of what the step after the rollout sees.
      terminated_T: bool.
    """
    return jnp.where(terminated_T, 0.0, jnp.append(value_T[1:], last_value))


def chained_advantages(
    reward_T: jax.Array,
    value_TD: jax.Array,
    asked_TD: jax.Array,
    over_T: jax.Array,
    last_value: jax.Array,
    gamma: float,
    gae_lambda: float,
) -> jax.Array:
    """Advantages of chains of D decisions, of which the last gets the reward; f32 [T, D].

    `gamma` discounts from one chain to the next only. A decision that was not asked is passed over:
    what follows it counts for the one before, and its own advantage is 0.

    Args:
      asked_TD: bool; the last of a chain is always asked.
      over_T: bool, no value after this chain.
      last_value: of the first decision after all chains.
    """
    last_TD = jnp.zeros_like(asked_TD).at[:, -1].set(True)
    reward_TD = jnp.where(last_TD, reward_T[:, None], 0.0)
    discount_TD = jnp.where(last_TD, gamma * (1.0 - over_T)[:, None], 1.0)

    def add(after: tuple[jax.Array, jax.Array], decision: tuple[jax.Array, ...]) -> Any:
        next_value, later = after
        reward, discount, value, asked = decision
        advantage = reward + discount * (next_value + gae_lambda * later) - value
        passed = (jnp.where(asked, value, next_value), jnp.where(asked, advantage, later))
        return passed, jnp.where(asked, advantage, 0.0)

    steps = [leaf.reshape(-1) for leaf in (reward_TD, discount_TD, value_TD, asked_TD)]
    start = (last_value, jnp.float32(0))
    return jax.lax.scan(add, start, tuple(steps), reverse=True)[1].reshape(value_TD.shape)


@struct.dataclass(kw_only=True)
class Transitions:
    """Decisions of the exploring policy; fields [T, B, ...]."""

    observation: jax.Array  # [T, B, O] f32
    action: jax.Array  # i32
    log_prob: jax.Array  # f32, of the action as the policy was
    step: Step  # what it gave, without the state

    @property
    def throughput(self) -> jax.Array:
        """Tokens per second, committed / seconds, both summed first; 0 without time."""
        committed, seconds = self.step.committed.sum(), self.step.seconds.sum()
        return jnp.where(seconds > 0, committed / jnp.maximum(seconds, 1e-30), 0.0)


@struct.dataclass(kw_only=True)
class Rollout:
    """What PPO learns from; fields [N, ...]."""

    observation: jax.Array  # [N, O] f32
    action: jax.Array  # i32
    log_prob: jax.Array  # f32
    advantage: jax.Array  # f32
    target: jax.Array  # f32, advantage + value: what the critic should have said


def rollout_of(
    transitions: Transitions,
    value_TB: jax.Array,
    next_value_TB: jax.Array,
    ended_TB: jax.Array,
    config: PPOConfig,
) -> Rollout:
    """Advantages and the critic's targets, all decisions in one row; arguments as `advantages`."""
    advantage_TB = jax.vmap(advantages, (1, 1, 1, 1, None, None), 1)(
        transitions.step.reward, value_TB, next_value_TB, ended_TB, config.gamma, config.gae_lambda
    )
    rollout = Rollout(
        observation=transitions.observation,
        action=transitions.action,
        log_prob=transitions.log_prob,
        advantage=advantage_TB,
        target=advantage_TB + value_TB,
    )
    return loop.join_rows(rollout)


def log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Of the actions [...] under normalised logits [..., A]."""
    return jnp.take_along_axis(logits, action[..., None], axis=-1)[..., 0]


@struct.dataclass(kw_only=True)
class Losses:
    """Parts of the loss, f32 []."""

    policy: jax.Array
    value: jax.Array
    entropy: jax.Array  # nats


def loss(
    logits_MA: jax.Array,
    value_M: jax.Array,
    batch: Rollout,
    config: PPOConfig,
    weight_M: jax.Array | None = None,
) -> tuple[jax.Array, Losses]:
    """Clipped surrogate + value * squared error - entropy bonus (Schulman et al. 2017, Eq. 9).

    Args:
      logits_MA: f32, need not be normalised.
      value_M: f32.
      batch: at least two decisions; their advantages are normalised over the minibatch.
      weight_M: f32, 0 for decisions that do not count, else 1; None = all count.
    """
    weight_M = jnp.ones_like(value_M) if weight_M is None else weight_M
    count = jnp.maximum(weight_M.sum(), 2.0)
    mean = lambda value_M: (weight_M * value_M).sum() / count
    log_probs_MA = jax.nn.log_softmax(logits_MA)
    advantage_M = batch.advantage - mean(batch.advantage)
    variance = (weight_M * jnp.square(advantage_M)).sum() / (count - 1)
    advantage_M /= jnp.sqrt(variance) + 1e-8
    ratio_M = jnp.exp(log_prob(log_probs_MA, batch.action) - batch.log_prob)
    clipped_M = jnp.clip(ratio_M, 1 - config.clip, 1 + config.clip)
    losses = Losses(
        policy=-mean(jnp.minimum(ratio_M * advantage_M, clipped_M * advantage_M)),
        value=mean(jnp.square(batch.target - value_M)),
        entropy=-mean((jnp.exp(log_probs_MA) * log_probs_MA).sum(-1)),
    )
    total = losses.policy + config.value * losses.value - config.entropy * losses.entropy
    return total, losses


def adam(config: PPOConfig) -> optax.GradientTransformation:
    """Adam with clipped gradients; the rate rises over the warm-up, then falls to zero (A.3)."""
    steps = config.updates * config.epochs * (config.rollout // config.minibatch)
    warmup = max(1, round(config.warmup * steps))
    rate = optax.schedules.join_schedules(
        [
            optax.linear_schedule(config.learning_rate / warmup, config.learning_rate, warmup),
            optax.linear_schedule(config.learning_rate, 0.0, max(1, steps - warmup)),
        ],
        [warmup],
    )
    clip = optax.clip_by_global_norm(config.max_gradient_norm)
    adam = optax.adam(rate, eps=config.adam_eps)
    return optax.flatten(optax.chain(clip, adam))  # one vector: fewer, larger operations


def learn_in_epochs(
    algorithm: Algorithm,
    config: PPOConfig,
    state: TrainState,
    rows: Any,
    objective: Callable[[Any, Any], tuple[jax.Array, Losses]],
    key: jax.Array,
) -> tuple[TrainState, Losses]:
    """The epochs over one rollout, in shuffled minibatches; returns the mean losses.

    Args:
      rows: a pytree whose leaves have a leading axis of `config.rollout` rows.
      objective: parameters, some of the rows -> what to lower, its parts.
    """
    shuffle = partial(jax.random.permutation, x=config.rollout)
    order = jax.vmap(shuffle)(jax.random.split(key, config.epochs)).reshape(-1, config.minibatch)
    state, losses = loop.descend(algorithm, state, rows, order, objective)
    return state, jax.tree.map(jnp.mean, losses)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO(Algorithm):
    """One policy by PPO; `data` is what its environment reads."""

    policy: PolicyName
    widths: PolicyConfig
    environment: Environment
    settings: PPOConfig

    @property
    def updates(self) -> int:
        return self.settings.updates

    @property
    def actor(self) -> Actor:
        """The policy network."""
        return Actor(getattr(self.widths, f"{self.policy}_actor"), self.environment.action_count)

    @property
    def critic(self) -> Critic:
        """The value network."""
        return Critic(getattr(self.widths, f"{self.policy}_critic"))

    def init(self, key: jax.Array, data: Any) -> Start:
        """Random networks."""
        key_actor, key_critic, key_environments, key_learning = jax.random.split(key, 4)
        keys_B = jax.random.split(key_environments, self.settings.environments)
        environments = jax.vmap(self.environment.reset, (None, 0))(data, keys_B)
        first_BO = jax.vmap(self.environment.observe, (None, 0))(data, environments)
        actor = self.actor.init(key_actor, first_BO)
        critic = self.critic.init(key_critic, first_BO)
        return Start(
            params=ActorCritic(actor=actor, critic=critic),
            environments=environments,
            key=key_learning,
        )

    def optimizer(self) -> optax.GradientTransformation:
        return adam(self.settings)

    def update(self, state: TrainState, data: Any) -> tuple[TrainState, Metrics]:
        """One rollout and the epochs over it."""
        key, key_rollout, key_shuffle = jax.random.split(state.key, 3)
        environments, transitions = self._collect(state, data, key_rollout)
        last_BO = jax.vmap(self.environment.observe, (None, 0))(data, environments)
        critic = partial(output, self.critic, state.params.critic)
        value_TB, last_B = critic(transitions.observation), critic(last_BO)
        ended_TB = transitions.step.terminated
        next_value_TB = jax.vmap(next_values, (1, 0, 1), 1)(value_TB, last_B, ended_TB)
        rollout = rollout_of(transitions, value_TB, next_value_TB, ended_TB, self.settings)
        state, losses = learn_in_epochs(
            self, self.settings, state, rollout, self._objective, key_shuffle
        )
        return state.replace(environments=environments, key=key), Metrics(
            decisions=jnp.float32(self.settings.rollout),
            reward=transitions.step.reward.mean(),
            throughput=transitions.throughput,
            entropy=losses.entropy,
            policy_loss=losses.policy,
            value_loss=losses.value,
        )

    def _collect(self, state: TrainState, data: Any, key: jax.Array) -> tuple[Any, Transitions]:
        """A rollout of actions drawn from the actor; returns the environments after it."""
        environment = self.environment
        actor = partial(output, self.actor, state.params.actor)

        def advance(states_B: Any, key: jax.Array) -> tuple[Any, Transitions]:
            states_B = loop.spread(self, states_B)
            key_action, key_step = jax.random.split(key)
            observation_BO = jax.vmap(environment.observe, (None, 0))(data, states_B)
            logits_BA = jax.nn.log_softmax(actor(observation_BO))
            action_B = jax.random.categorical(key_action, logits_BA)
            keys_B = jax.random.split(key_step, len(action_B))
            step = jax.vmap(environment.step, (None, 0, 0, None, 0))(
                data, states_B, action_B, state.throughput, keys_B
            )
            return step.state, Transitions(
                observation=observation_BO,
                action=action_B,
                log_prob=log_prob(logits_BA, action_B),
                step=step.replace(state=None),
            )

        steps = self.settings.rollout // self.settings.environments
        return jax.lax.scan(advance, state.environments, jax.random.split(key, steps))

    def _objective(self, params: ActorCritic, batch: Rollout) -> tuple[jax.Array, Losses]:
        logits_MA = output(self.actor, params.actor, batch.observation)
        value_M = output(self.critic, params.critic, batch.observation)
        return loss(logits_MA, value_M, batch, self.settings)
