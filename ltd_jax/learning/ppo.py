"""Generalised advantage estimation (Schulman et al. 2016) for one environment; vmap outside.

T counts the steps of a rollout. A step that *terminates* has no value behind it; a step that is
*truncated* was cut off by a limit, so the value of what it would have seen next still counts. Both
end the episode: the advantage of the step after belongs to another one and does not flow back.

    reward      r0    r1    r2    r3
    terminated   0     1     0     0
    truncated    0     0     1     0
    V behind    V1     0    cut2  last
"""
# DOC """Rollouts: decisions of the exploring policy in many environments, judged by the critic.
# DOC
# DOC In: an `Environment`, its states side by side, both networks. Out: the next states, what happened,
# DOC and the flat `Rollout` that PPO learns from. Environments are vmapped, steps are a `lax.scan`.
# DOC
# DOC T counts the steps of a rollout, B the environments, N = T * B all decisions.
# DOC """
# DOC """PPO's loss over one minibatch (Schulman et al. 2017, Eq. 9), as Stable-Baselines3 computes it.
# DOC
# DOC In: what the networks say now and what they said when they acted. Out: one number to lower, and its
# DOC parts. M counts the decisions of the minibatch.
# DOC """
# DOC """Proximal policy optimisation of one policy, after Stable-Baselines3 (paper A.3).
# DOC
# DOC In: a `Learner` (environment, networks' widths, settings, validation), a `TrainState`, and the
# DOC pytrees that environment and validation read. Out: the next `TrainState` and one `Metrics` row per
# DOC update. Many updates are one compiled program; a state that was saved and restored goes on bit for
# DOC bit.
# DOC
# DOC M counts the decisions of a minibatch, B the environments side by side.
# DOC """

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ltd_jax.config import PPOConfig
from ltd_jax.learning.environment import Environment, Step
from ltd_jax.policies.networks import Actor, ActorCritic, Critic, output


def next_values(
    value_T: jax.Array,
    cut_value_T: jax.Array,
    last_value: jax.Array,
    terminated_T: jax.Array,
    truncated_T: jax.Array,
) -> jax.Array:
    """The value behind each step, f32 [T].

    Args:
      value_T: value of what each step saw before its action.
      cut_value_T: value of what each step saw after it, before any reset; used where truncated.
      last_value: value of what the step after the rollout sees.
      terminated_T: bool, wins over truncated.
      truncated_T: bool.
    """
    following_T = jnp.append(value_T[1:], last_value)
    return jnp.where(terminated_T, 0.0, jnp.where(truncated_T, cut_value_T, following_T))


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
      next_value_T: V', as `next_values` gives it.
      ended_T: bool, terminated or truncated.
    """
    delta_T = reward_T + gamma * next_value_T - value_T
    carried_T = gamma * gae_lambda * (1.0 - ended_T)

    def add(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, carried = step
        advantage = delta + carried * later
        return advantage, advantage

    return jax.lax.scan(add, jnp.float32(0), (delta_T, carried_T), reverse=True)[1]


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
      over_T: bool, no value behind this chain.
      last_value: of the first decision after all chains.
    """
    last_TD = jnp.zeros_like(asked_TD).at[:, -1].set(True)
    reward_TD = jnp.where(last_TD, reward_T[:, None], 0.0)
    discount_TD = jnp.where(last_TD, gamma * (1.0 - over_T)[:, None], 1.0)

    def add(behind: tuple[jax.Array, jax.Array], decision: tuple[jax.Array, ...]) -> Any:
        next_value, later = behind
        reward, discount, value, asked = decision
        advantage = reward + discount * (next_value + gae_lambda * later) - value
        passed = (jnp.where(asked, value, next_value), jnp.where(asked, advantage, later))
        return passed, jnp.where(asked, advantage, 0.0)

    steps = [leaf.reshape(-1) for leaf in (reward_TD, discount_TD, value_TD, asked_TD)]
    start = (last_value, jnp.float32(0))
    return jax.lax.scan(add, start, tuple(steps), reverse=True)[1].reshape(value_TD.shape)


Network = Callable[
    [jax.Array], jax.Array
]  # f32 [..., O] -> logits f32 [..., A] or values f32 [...]


@struct.dataclass(kw_only=True)
class Transitions:
    """What happened; fields [T, B, ...]."""

    observation: jax.Array  # [T, B, O] f32
    action: jax.Array  # i32
    log_prob: jax.Array  # f32, of the action as the policy was
    cut_value: jax.Array  # f32, value of the next observation where truncated, else 0
    reward: jax.Array  # f32
    terminated: jax.Array  # bool
    truncated: jax.Array  # bool
    committed: jax.Array  # f32 tokens
    seconds: jax.Array  # f32


@struct.dataclass(kw_only=True)
class Rollout:
    """What PPO learns from; fields [N, ...]."""

    observation: jax.Array  # [N, O] f32
    action: jax.Array  # i32
    log_prob: jax.Array  # f32
    advantage: jax.Array  # f32
    target: jax.Array  # f32, advantage + value: what the critic should have said


def collect(
    environment: Environment,
    data: Any,
    states_B: Any,
    actor: Network,
    critic: Network,
    steps: int,
    key: jax.Array,
) -> tuple[Any, Transitions]:
    """`steps` actions of every environment, drawn from the actor; returns the states after them."""

    def advance(states_B: Any, key: jax.Array) -> tuple[Any, Transitions]:
        key_action, key_step = jax.random.split(key)
        observation_BO = jax.vmap(environment.observe, (None, 0))(data, states_B)
        logits_BA = jax.nn.log_softmax(actor(observation_BO))
        action_B = jax.random.categorical(key_action, logits_BA)
        keys_B = jax.random.split(key_step, len(action_B))
        step = jax.vmap(environment.step, (None, 0, 0, 0))(data, states_B, action_B, keys_B)
        return step.state, Transitions(
            observation=observation_BO,
            action=action_B,
            log_prob=log_prob(logits_BA, action_B),
            cut_value=_cut_value(step, critic),
            reward=step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            committed=step.committed,
            seconds=step.seconds,
        )

    return jax.lax.scan(advance, states_B, jax.random.split(key, steps))


def advantages_of(
    decisions: Transitions, last_BO: jax.Array, critic: Network, config: PPOConfig
) -> Rollout:
    """Advantages and the critic's targets, all decisions in one row.

    Args:
      last_BO: what the environments see after the rollout.
    """
    value_TB, last_value_B = critic(decisions.observation), critic(last_BO)
    next_value_TB = jax.vmap(next_values, (1, 1, 0, 1, 1), 1)(
        value_TB, decisions.cut_value, last_value_B, decisions.terminated, decisions.truncated
    )
    ended_TB = decisions.terminated | decisions.truncated
    advantage_TB = jax.vmap(advantages, (1, 1, 1, 1, None, None), 1)(
        decisions.reward, value_TB, next_value_TB, ended_TB, config.gamma, config.gae_lambda
    )
    rollout = Rollout(
        observation=decisions.observation,
        action=decisions.action,
        log_prob=decisions.log_prob,
        advantage=advantage_TB,
        target=advantage_TB + value_TB,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rollout)


def rollout_throughput(decisions: Transitions) -> jax.Array:
    """Tokens per second of the rollout, committed / seconds, both summed first; 0 without time."""
    seconds = decisions.seconds.sum()
    return jnp.where(seconds > 0, decisions.committed.sum() / jnp.maximum(seconds, 1e-30), 0.0)


def log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Of the actions [...] under normalised logits [..., A]."""
    return jnp.take_along_axis(logits, action[..., None], axis=-1)[..., 0]


def _cut_value(step: Step, critic: Network) -> jax.Array:
    # Most environments never truncate: the critic runs here only where one did.
    return jax.lax.cond(
        jnp.any(step.truncated),
        lambda: jnp.where(step.truncated, critic(step.next_observation), 0.0),
        lambda: jnp.zeros_like(step.reward),
    )


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
    """Clipped surrogate + value * squared error - entropy bonus.

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
    environments, decisions = collect(
        environment, data, state.environments, actor, critic, steps, key_rollout
    )
    last_BO = jax.vmap(environment.observe, (None, 0))(data, environments)
    experience = advantages_of(decisions, last_BO, critic, config)
    state, losses = _improve(learner, state, experience, key_shuffle)
    throughput = rollout_throughput(decisions)
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
