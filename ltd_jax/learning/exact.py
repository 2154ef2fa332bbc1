"""Exact learning: the gradient of the expected reward itself, since the replay knows every outcome.

At a start the depth policy's answers give a probability to every number of levels, the size policy
one to every size, and the replay a reward to every pair of them. Their sum is differentiated as it
is; no action is sampled, so nothing is left to chance but where cycles start:

    J = sum over (levels, size) of P(levels) * P(size | levels) * reward(levels, size)
    P(levels = l) = go_on[1] * ... * go_on[l - 1] * stop[l],  stop[D] = 1

Starts come from walks of the current policies, so memory and position are as often seen as in
decoding. Entropy is rewarded at first and less and less, weights decay: a trace is small. Where a
cycle ends also matters for the cycles behind it, but a value of the next position, computed exactly
from the texts, taught nothing that holds on other texts (share of the gap on test texts 17.6 %
with it, 17.7 % without), so a cycle is judged alone. M counts the starts of a minibatch, A the
sizes.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import environment, loop
from ltd_jax.learning.environment import Observations, ReplayData, Start
from ltd_jax.learning.loop import Algorithm, TrainState
from ltd_jax.learning.ppo import THROUGHPUT_RATE, Metrics
from ltd_jax.policies import networks
from ltd_jax.policies.networks import ActorCritic, LearnedParams, PolicyParams


@struct.dataclass(kw_only=True)
class Expected:
    """What the policies are expected to give at a start, f32 []."""

    reward: jax.Array
    entropy: jax.Array  # nats, of all decisions of a cycle
    committed: jax.Array  # tokens
    seconds: jax.Array


def method(
    config: CycleConfig, policy: PolicyConfig, learning: LearningConfig, mesh: Mesh | None = None
) -> Algorithm:
    """Exact gradients with the settings of `learning.exact`."""
    return Algorithm(
        name="exact",
        config=config,
        policy=policy,
        learning=dataclasses.replace(learning, seed=0),
        environments=learning.exact.environments,
        asked_updates=learning.exact.updates,
        fresh=fresh,
        rule=rule,
        improve=improve,
        mesh=mesh,
    )


def fresh(method: Algorithm, key: jax.Array) -> PolicyParams:
    """Random policies; no values are learned."""
    actors = networks.init_learned(key, method.config, method.policy)
    return PolicyParams(
        depth=ActorCritic(actor=actors.depth, critic=None),
        size=ActorCritic(actor=actors.size, critic=None),
    )


def rule(method: Algorithm) -> optax.GradientTransformation:
    """Adam with decaying weights; the rate falls to 0 over the whole training."""
    config = method.learning.exact
    steps = method.updates * config.steps
    rate = optax.linear_schedule(config.learning_rate, 0.0, steps)
    return optax.adamw(rate, weight_decay=config.weight_decay)


def improve(
    method: Algorithm, state: TrainState, lesson: Observations
) -> tuple[TrainState, Metrics]:
    """Walks on with the current policies, then steps over minibatches of the starts seen."""
    config = method.learning.exact
    key, key_walk, key_choose = jax.random.split(state.key, 3)
    cycle = partial(_cycle, method, state.params.learned, lesson)
    starts, (seen, decisions) = jax.lax.scan(
        cycle, state.starts, jax.random.split(key_walk, config.cycles)
    )
    seen = loop.rows(seen)
    left = 1 - state.update / (method.updates)
    objective = partial(_loss, method, lesson, state.throughput, config.entropy * left)
    shape = (config.steps, config.minibatch)
    index = jax.random.randint(key_choose, shape, 0, config.environments * config.cycles)
    learn = lambda state, index_M: loop.gradient_step(
        method, state, jax.tree.map(lambda leaf: leaf[index_M], seen), objective
    )
    state, expected = jax.lax.scan(learn, state, index)
    throughput = expected.committed.mean() / expected.seconds.mean()
    state = state.replace(
        starts=starts,
        key=key,
        update=state.update + 1,
        throughput=state.throughput + THROUGHPUT_RATE * (throughput - state.throughput),
    )
    return state, Metrics(
        decisions=decisions.sum(dtype=jnp.float32),
        reward=expected.reward.mean(),
        throughput=throughput,
        entropy=expected.entropy.mean(),
        policy_loss=-expected.reward.mean(),
        value_loss=jnp.float32(jnp.nan),
        validation=jnp.float32(jnp.nan),
    )


def expectation(
    method: Algorithm,
    actors: LearnedParams,
    lesson: Observations,
    throughput: jax.Array,
    start: Start,
) -> Expected:
    """What the policies are expected to give in the cycle from a start."""
    config, policy = method.config, method.policy
    level_log_D, entropy = _levels(method, actors, lesson, start)
    actor = networks.size_actor(config, policy)
    seen_DO = environment.sizes_seen(lesson, start)
    size_log_DA = jax.nn.log_softmax(networks.output(actor, actors.size, seen_DO))
    level_D, size_DA = jnp.exp(level_log_D), jnp.exp(size_log_DA)
    both_DA = level_D[:, None] * size_DA
    result_DA = environment.all_outcomes(lesson, start.position, config)
    data = ReplayData(lesson.replay, (), throughput)
    reward_DA = environment.reward_of(method.learning.reward, result_DA, data)
    return Expected(
        reward=(both_DA * reward_DA).sum(),
        entropy=entropy - (both_DA * size_log_DA).sum(),
        committed=(both_DA * result_DA.committed).sum(),
        seconds=(both_DA * result_DA.seconds).sum(),
    )


def _levels(
    method: Algorithm, actors: LearnedParams, lesson: Observations, start: Start
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of every number of levels, f32 [D], and the entropy of the answers."""
    actor = networks.depth_actor(method.policy)
    logits = networks.output(actor, actors.depth, environment.depth_seen(lesson, start))
    answer_log = jax.nn.log_softmax(logits)  # [D - 1, 2]
    stop, go_on = answer_log[:, 0], answer_log[:, 1]
    reached_D = jnp.append(0.0, jnp.cumsum(go_on))
    entropy = -(jnp.exp(answer_log) * answer_log).sum(-1)
    return reached_D + jnp.append(stop, 0.0), (jnp.exp(reached_D[:-1]) * entropy).sum()


def _cycle(
    method: Algorithm, actors: LearnedParams, lesson: Observations, starts_B: Start, key: jax.Array
) -> tuple[Start, tuple[Start, jax.Array]]:
    """One cycle of every walk; also gives where it started and how many decisions it took."""

    def one(start: Start, key: jax.Array) -> tuple[Start, jax.Array]:
        key_decide, key_fresh = jax.random.split(key)
        config, policy = method.config, method.policy
        decision = environment.act(actors, lesson, start, config, policy, key_decide)
        after, result = environment.follow(lesson, start, decision, config, policy)
        asked = jnp.minimum(decision.levels, config.max_levels - 1) + 1
        return loop.restart(method, lesson, after, result.over, key_fresh), asked

    keys_B = jax.random.split(key, method.environments)
    after_B, asked_B = jax.vmap(one)(loop.spread(method, starts_B), keys_B)
    return after_B, (starts_B, asked_B)


def _loss(
    method: Algorithm,
    lesson: Observations,
    throughput: jax.Array,
    entropy: jax.Array,
    params: PolicyParams,
    starts_M: Start,
) -> tuple[jax.Array, Expected]:
    expect = partial(expectation, method, params.learned, lesson, throughput)
    mean = jax.tree.map(jnp.mean, jax.vmap(expect)(starts_M))
    return -(mean.reward + entropy * mean.entropy), mean
