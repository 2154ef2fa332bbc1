"""Proximal policy optimisation of one policy, after Stable-Baselines3 (paper A.3).

In: a `Learner` (environment, networks' widths, settings, validation), a `TrainState`, and the
pytrees that environment and validation read. Out: the next `TrainState` and one `Metrics` row per
update. Many updates are one compiled program; a state that was saved and restored goes on bit for
bit.

M counts the decisions of a minibatch, B the environments side by side.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ltd_jax.config import PPOConfig
from ltd_jax.learning import rollout
from ltd_jax.learning.loss import Losses, loss
from ltd_jax.learning.rollout import Rollout
from ltd_jax.policies.networks import Actor, ActorCritic, Critic, output
from ltd_jax.replay.environment import Environment

THROUGHPUT_RATE = 0.2  # weight of the newest rollout in the running throughput


class Learner(NamedTuple):
    """What learns, on what, and how; hashable, so a static argument."""

    environment: Environment
    config: PPOConfig
    actor_widths: tuple[int, ...]
    critic_widths: tuple[int, ...]
    validate: Callable[[Any, Any], jax.Array]  # actor's variables, validation pytree -> f32 []
    validate_every: int = 10  # updates
    with_throughput: Callable[[Any, jax.Array], Any] = lambda data, throughput: data

    @property
    def actor(self) -> Actor:
        """The policy network."""
        return Actor(self.actor_widths, self.environment.action_count)

    @property
    def critic(self) -> Critic:
        """The value network."""
        return Critic(self.critic_widths)


@struct.dataclass(kw_only=True)
class TrainState:
    """All that a resumed training needs."""

    params: ActorCritic
    optimizer: optax.OptState
    environments: Any  # states, leading axis [environments]
    key: jax.Array
    update: jax.Array  # i32 [] updates done
    throughput: jax.Array  # f32 [] running tokens per second of the policy as it explores
    best: ActorCritic  # parameters of the best validation so far
    best_validation: jax.Array  # f32 []


@struct.dataclass(kw_only=True)
class Metrics:
    """One row per update, each field f32 [updates]; nan where there is nothing to say."""

    decisions: jax.Array  # made in this update
    reward: jax.Array  # mean per decision
    throughput: jax.Array  # committed / seconds of the rollout
    entropy: jax.Array  # nats
    policy_loss: jax.Array
    value_loss: jax.Array  # nan where no value is learned
    validation: jax.Array  # of the greedy policy; nan between validations


@functools.partial(jax.jit, static_argnames="learner")
def init(
    learner: Learner,
    key: jax.Array,
    data: Any,
    validation: Any,
    *,
    throughput: float | jax.Array = 0.0,
    params: ActorCritic | None = None,
) -> TrainState:
    """A training before its first update; the starting policy is validated and is the best so far.

    Args:
      data: what the environment reads.
      validation: what `learner.validate` reads.
      throughput: tokens per second to start the running throughput from.
      params: policy to go on from; None = random networks.
    """
    key_actor, key_critic, key_environments, key_learning = jax.random.split(key, 4)
    if params is None:
        observation_O = jnp.zeros(learner.environment.observation_width)
        params = ActorCritic(
            actor=learner.actor.init(key_actor, observation_O),
            critic=learner.critic.init(key_critic, observation_O),
        )
    keys_B = jax.random.split(key_environments, learner.config.environments)
    return TrainState(
        params=params,
        optimizer=optimizer(learner).init(params),
        environments=jax.vmap(learner.environment.reset, (None, 0))(data, keys_B),
        key=key_learning,
        update=jnp.int32(0),
        throughput=jnp.asarray(throughput, jnp.float32),
        best=params,
        best_validation=learner.validate(params.actor, validation),
    )


def optimizer(learner: Learner) -> optax.GradientTransformation:
    """The learner's `adam`."""
    return adam(learner.config)


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


@functools.partial(jax.jit, static_argnames=("learner", "updates"))
def run_updates(
    learner: Learner, state: TrainState, data: Any, validation: Any, updates: int
) -> tuple[TrainState, Metrics]:
    """The next `updates` updates; those beyond the training's end change nothing (metrics nan)."""
    names = Metrics.__dataclass_fields__

    def advance(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return jax.lax.cond(
            state.update < learner.config.updates,
            lambda state: update(learner, state, data, validation),
            lambda state: (state, Metrics(**dict.fromkeys(names, jnp.float32(jnp.nan)))),
            state,
        )

    return jax.lax.scan(advance, state, None, length=updates)


def update(
    learner: Learner, state: TrainState, data: Any, validation: Any
) -> tuple[TrainState, Metrics]:
    """One rollout, the epochs over it, and a validation where one is due."""
    key, key_rollout, key_shuffle = jax.random.split(state.key, 3)
    config, environment = learner.config, learner.environment
    actor = functools.partial(output, learner.actor, state.params.actor)
    critic = functools.partial(output, learner.critic, state.params.critic)
    data = learner.with_throughput(data, state.throughput)
    steps = config.rollout // config.environments
    environments, decisions = rollout.collect(
        environment, data, state.environments, actor, critic, steps, key_rollout
    )
    last_BO = jax.vmap(environment.observe, (None, 0))(data, environments)
    experience = rollout.judge(decisions, last_BO, critic, config)
    state, losses = _improve(learner, state, experience, key_shuffle)
    throughput = rollout.throughput(decisions)
    newer = THROUGHPUT_RATE * (throughput - state.throughput)
    state = state.replace(
        environments=environments,
        key=key,
        update=state.update + 1,
        throughput=state.throughput + newer,
    )
    state, validation_score = _validated(learner, state, validation)
    return state, Metrics(
        decisions=jnp.float32(config.rollout),
        reward=decisions.reward.mean(),
        throughput=throughput,
        entropy=losses.entropy,
        policy_loss=losses.policy,
        value_loss=losses.value,
        validation=validation_score,
    )


def _improve(
    learner: Learner, state: TrainState, experience: Rollout, key: jax.Array
) -> tuple[TrainState, Losses]:
    """The epochs over one rollout; returns the mean losses."""
    config, rule = learner.config, optimizer(learner)

    def objective(params: ActorCritic, batch: Rollout) -> tuple[jax.Array, Losses]:
        logits_MA = output(learner.actor, params.actor, batch.observation)
        value_M = output(learner.critic, params.critic, batch.observation)
        return loss(logits_MA, value_M, batch, config)

    def learn(state: TrainState, index_M: jax.Array) -> tuple[TrainState, Losses]:
        batch = jax.tree.map(lambda leaf: leaf[index_M], experience)
        gradient, losses = jax.grad(objective, has_aux=True)(state.params, batch)
        change, optimizer_state = rule.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, change)
        return state.replace(params=params, optimizer=optimizer_state), losses

    shuffle = functools.partial(jax.random.permutation, x=config.rollout)
    order = jax.vmap(shuffle)(jax.random.split(key, config.epochs)).reshape(-1, config.minibatch)
    state, losses = jax.lax.scan(learn, state, order)
    return state, jax.tree.map(jnp.mean, losses)


def _validated(
    learner: Learner, state: TrainState, validation: Any
) -> tuple[TrainState, jax.Array]:
    """Keeps the better of the newest and the best policy; nan where no validation is due."""

    def judge(state: TrainState) -> tuple[TrainState, jax.Array]:
        score = learner.validate(state.params.actor, validation)
        better = score > state.best_validation
        best = jax.tree.map(functools.partial(jnp.where, better), state.params, state.best)
        highest = jnp.maximum(score, state.best_validation)
        return state.replace(best=best, best_validation=highest), score

    due = (state.update % learner.validate_every == 0) | (state.update == learner.config.updates)
    return jax.lax.cond(due, judge, lambda state: (state, jnp.float32(jnp.nan)), state)
