"""Joint learning: both policies in one rollout of one process, by PPO (beside the paper's order).

A cycle is a chain of decisions: go on or stop after every pass but the last, then the size. Its one
reward comes with the size and flows back through the levels; `gamma` discounts from cycle to cycle
only, so that drafting another level costs no more than its time.

    slot      pass 1   pass 2   pass 3   size        D slots per cycle
    answer    go on    stop     -        8
    counts    1        1        0        1           what follows a stop was never asked
    reward    0        0                 r

T counts the cycles of a rollout, B the environments, M the cycles of a minibatch.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import environment, loop, ppo
from ltd_jax.learning.environment import Decision, Observations, ReplayData, Start
from ltd_jax.learning.loop import Algorithm, TrainState
from ltd_jax.learning.ppo import Losses, Metrics, Rollout, loss
from ltd_jax.policies import networks
from ltd_jax.policies.networks import ActorCritic, Critic, PolicyParams, output


@struct.dataclass(kw_only=True)
class Walked:
    """Cycles of the exploring policies; fields [T, B, ...], later [M, ...]."""

    start: Start
    decision: Decision
    value: jax.Array  # [D] f32 of every slot
    reward: jax.Array  # f32
    over: jax.Array  # bool, the text is over
    committed: jax.Array  # f32 tokens
    seconds: jax.Array  # f32
    advantage: jax.Array  # [D] f32 of every slot, 0 before `_judge`


def method(
    config: CycleConfig, policy: PolicyConfig, learning: LearningConfig, mesh: Mesh | None = None
) -> Algorithm:
    """Joint PPO with the settings of `learning.joint`, which count cycles."""
    return Algorithm(
        name="joint",
        config=config,
        policy=policy,
        learning=dataclasses.replace(learning, seed=0),
        environments=learning.joint.environments,
        asked_updates=learning.joint.updates,
        fresh=fresh,
        rule=rule,
        improve=improve,
        mesh=mesh,
    )


def rule(method: Algorithm) -> optax.GradientTransformation:
    """How gradients change the policies and the values."""
    return ppo.adam(method.learning.joint)


def fresh(method: Algorithm, key: jax.Array) -> PolicyParams:
    """Random policies and values."""
    key_actors, key_depth, key_size = jax.random.split(key, 3)
    actors = networks.init_learned(key_actors, method.config, method.policy)
    depth_O, size_O = networks.blank_observations(method.config, method.policy)
    depth_critic, size_critic = _critics(method)
    return PolicyParams(
        depth=ActorCritic(actor=actors.depth, critic=depth_critic.init(key_depth, depth_O)),
        size=ActorCritic(actor=actors.size, critic=size_critic.init(key_size, size_O)),
    )


def improve(
    method: Algorithm, state: TrainState, lesson: Observations
) -> tuple[TrainState, Metrics]:
    """One rollout and the epochs over it."""
    config = method.learning.joint
    key, key_walk, key_shuffle = jax.random.split(state.key, 3)
    steps = config.rollout // config.environments
    cycle = partial(_cycle, method, state, lesson)
    starts, walked = jax.lax.scan(cycle, state.starts, jax.random.split(key_walk, steps))
    walked = _judge(method, state, lesson, starts, walked)
    flat = loop.rows(walked)
    shuffle = partial(jax.random.permutation, x=config.rollout)
    order = jax.vmap(shuffle)(jax.random.split(key_shuffle, config.epochs))
    learn = lambda state, index_M: loop.gradient_step(
        method,
        state,
        jax.tree.map(lambda leaf: leaf[index_M], flat),
        partial(_loss, method, lesson),
    )
    state, losses = jax.lax.scan(learn, state, order.reshape(-1, config.minibatch))
    throughput = walked.committed.sum() / walked.seconds.sum()
    state = state.replace(
        starts=starts,
        key=key,
        update=state.update + 1,
        throughput=state.throughput + ppo.THROUGHPUT_RATE * (throughput - state.throughput),
    )
    return state, _metrics(walked, throughput, losses)


def _metrics(walked: Walked, throughput: jax.Array, losses: Losses) -> Metrics:
    mean = jax.tree.map(jnp.mean, losses)
    return Metrics(
        decisions=_counts(walked.decision).sum(dtype=jnp.float32),
        reward=walked.reward.mean(),
        throughput=throughput,
        entropy=mean.entropy,
        policy_loss=mean.policy,
        value_loss=mean.value,
        validation=jnp.float32(jnp.nan),
    )


def _cycle(
    method: Algorithm, state: TrainState, lesson: Observations, starts_B: Start, key: jax.Array
) -> tuple[Start, Walked]:
    """One cycle of every environment."""

    def one(start: Start, key: jax.Array) -> tuple[Start, Walked]:
        key_decide, key_fresh = jax.random.split(key)
        actors, config, policy = state.params.learned, method.config, method.policy
        decision = environment.act(actors, lesson, start, config, policy, key_decide)
        after, result = environment.follow(lesson, start, decision, config, policy)
        data = ReplayData(lesson.replay, (), state.throughput)
        value_D = _values(method, state.params, lesson, start, decision.levels)
        walked = Walked(
            start=start,
            decision=decision,
            value=value_D,
            reward=environment.reward_of(method.learning.reward, result, data),
            over=result.over,
            committed=result.committed.astype(jnp.float32),
            seconds=result.seconds,
            advantage=jnp.zeros_like(value_D),
        )
        return loop.restart(method, lesson, after, result.over, key_fresh), walked

    keys_B = jax.random.split(key, method.environments)
    return jax.vmap(one)(loop.spread(method, starts_B), keys_B)


def _values(
    method: Algorithm, params: PolicyParams, lesson: Observations, start: Start, levels: jax.Array
) -> jax.Array:
    """Of every slot, f32 [D]."""
    depth_critic, size_critic = _critics(method)
    depth_D = output(depth_critic, params.depth.critic, environment.depth_seen(lesson, start))
    seen_O = environment.size_seen(lesson, start, levels)
    size = output(size_critic, params.size.critic, seen_O)
    return jnp.append(depth_D, size)


def _judge(
    method: Algorithm, state: TrainState, lesson: Observations, starts_B: Start, walked: Walked
) -> Walked:
    """Fills in the advantages."""
    config = method.learning.joint
    one = jnp.int32(1)
    last_BD = jax.vmap(lambda start: _values(method, state.params, lesson, start, one))(starts_B)
    advantage = jax.vmap(ppo.chained_advantages, (1, 1, 1, 1, 0, None, None), 1)
    return walked.replace(
        advantage=advantage(
            walked.reward,
            walked.value,
            _counts(walked.decision),
            walked.over,
            last_BD[:, 0],
            config.gamma,
            config.gae_lambda,
        )
    )


def _loss(
    method: Algorithm, lesson: Observations, params: PolicyParams, batch: Walked
) -> tuple[jax.Array, Losses]:
    """PPO's loss of both policies, each over the decisions that were asked of it."""
    config, decision = method.learning.joint, batch.decision
    depth_critic, size_critic = _critics(method)
    target_MD = batch.value + batch.advantage
    size_MO = jax.vmap(partial(environment.size_seen, lesson))(batch.start, decision.levels)
    size_actor = networks.size_actor(method.config, method.policy)
    size_loss, size_parts = loss(
        output(size_actor, params.size.actor, size_MO),
        output(size_critic, params.size.critic, size_MO),
        Rollout(
            observation=size_MO,
            action=decision.size,
            log_prob=decision.size_log_prob,
            advantage=batch.advantage[:, -1],
            target=target_MD[:, -1],
        ),
        config,
    )
    if method.config.max_levels == 1:
        return size_loss, size_parts
    seen_NO = loop.rows(jax.vmap(partial(environment.depth_seen, lesson))(batch.start))
    depth_loss, depth_parts = loss(
        output(networks.depth_actor(method.policy), params.depth.actor, seen_NO),
        output(depth_critic, params.depth.critic, seen_NO),
        Rollout(
            observation=seen_NO,
            action=loop.rows(decision.go_on).astype(jnp.int32),
            log_prob=loop.rows(decision.depth_log_prob),
            advantage=loop.rows(batch.advantage[:, :-1]),
            target=loop.rows(target_MD[:, :-1]),
        ),
        config,
        loop.rows(_counts(decision)[:, :-1]).astype(jnp.float32),
    )
    return size_loss + depth_loss, jax.tree.map(jnp.add, size_parts, depth_parts)


def _counts(decision: Decision) -> jax.Array:
    """Which slots were asked, bool [..., D]: passes up to the stop, and always the size."""
    passes = jnp.broadcast_to(jnp.arange(decision.go_on.shape[-1]), decision.go_on.shape)
    asked = passes < decision.levels[..., None]
    return jnp.concatenate([asked, jnp.ones((*asked.shape[:-1], 1), bool)], axis=-1)


def _critics(method: Algorithm) -> tuple[Critic, Critic]:
    return Critic(method.policy.depth_critic), Critic(method.policy.size_critic)
