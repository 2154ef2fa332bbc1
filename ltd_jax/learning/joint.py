"""Joint learning: both policies in one rollout of one process, by PPO (beside the paper's order).

A cycle is a chain of decisions: go on or stop after every pass but the last, then the size. Its one
reward comes with the size and flows back through the levels; `gamma` discounts from cycle to cycle
only, so that drafting another level costs no more than its time.

    slot      pass 1   pass 2   pass 3   size        D slots per cycle
    answer    go on    stop     -        8
    counts    1        1        0        1           what follows a stop was never asked
    reward    0        0                 r

T counts the cycles of a rollout, B the environments, M the cycles of a minibatch, N their passes.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ltd_jax.config import PPOConfig
from ltd_jax.learning import environment, loop, ppo
from ltd_jax.learning.environment import EnvState, Exploration, Observations
from ltd_jax.learning.loop import BothPolicies, Metrics, TrainState
from ltd_jax.learning.ppo import Losses, Rollout
from ltd_jax.policies import networks
from ltd_jax.policies.networks import ActorCritic, ActorCritics, Critic, output


@struct.dataclass(kw_only=True)
class Cycles:
    """Cycles of the exploring policies; fields [T, B, ...], later [M, ...]."""

    cycle: Exploration
    value: jax.Array  # [D] f32 of every slot
    reward: jax.Array  # f32
    advantage: Any = None  # [D] f32 of every slot, from `_with_advantages`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint(BothPolicies):
    """Both policies by PPO, whose settings count cycles; learns on `Observations`."""

    settings: PPOConfig

    @property
    def depth_critic(self) -> Critic:
        """The depth policy's value network."""
        return Critic(self.widths.depth_critic)

    @property
    def size_critic(self) -> Critic:
        """The size policy's value network."""
        return Critic(self.widths.size_critic)

    def init_params(self, key: jax.Array, data: Observations) -> ActorCritics:
        config = data.simulator.config
        key_actors, key_depth, key_size = jax.random.split(key, 3)
        policy = networks.init(key_actors, config, self.widths)
        depth_O, size_O = networks.blank_observations(config, self.widths)
        depth_critic = self.depth_critic.init(key_depth, depth_O)
        size_critic = self.size_critic.init(key_size, size_O)
        return ActorCritics(
            depth=ActorCritic(actor=policy.depth, critic=depth_critic),
            size=ActorCritic(actor=policy.size, critic=size_critic),
        )

    def optimizer(self) -> optax.GradientTransformation:
        return ppo.adam(self.settings)

    def update(self, state: TrainState, data: Observations) -> tuple[TrainState, Metrics]:
        """One rollout and the epochs over it."""
        key, key_walk, key_shuffle = jax.random.split(state.key, 3)
        steps = self.settings.rollout // self.settings.environments
        keep = partial(self._judge, state, data)
        environments, cycles = self.explore(state, data, key_walk, steps, keep)
        cycles = self._with_advantages(state, data, environments, cycles)
        state, losses = ppo.learn_in_epochs(
            self,
            self.settings,
            state,
            loop.join_rows(cycles),
            partial(self._loss, data),
            key_shuffle,
        )
        outcome = cycles.cycle.outcome
        return state.replace(environments=environments, key=key), Metrics(
            decisions=cycles.cycle.decision.asked.sum(dtype=jnp.float32),
            reward=cycles.reward.mean(),
            throughput=outcome.committed.astype(jnp.float32).sum() / outcome.seconds.sum(),
            entropy=losses.entropy,
            policy_loss=losses.policy,
            value_loss=losses.value,
        )

    def _judge(self, state: TrainState, data: Observations, cycle: Exploration) -> Cycles:
        """A cycle with its values and its reward."""
        return Cycles(
            cycle=cycle,
            value=self._values(state.params, data, cycle.start, cycle.decision.levels),
            reward=environment.reward_of(
                self.reward, cycle.outcome, data.simulator, state.throughput
            ),
        )

    def _values(
        self, params: ActorCritics, data: Observations, start: EnvState, levels: jax.Array
    ) -> jax.Array:
        """Of every slot, f32 [D]."""
        depth_DO = environment.observe_depth(data, start)
        size_O = environment.observe_size(data, start, levels)
        depth_D = output(self.depth_critic, params.depth.critic, depth_DO)
        return jnp.append(depth_D, output(self.size_critic, params.size.critic, size_O))

    def _with_advantages(
        self, state: TrainState, data: Observations, after_B: EnvState, cycles: Cycles
    ) -> Cycles:
        one = jnp.int32(1)
        value = lambda start: self._values(state.params, data, start, one)
        advantage = jax.vmap(ppo.chained_advantages, (1, 1, 1, 1, 0, None, None), 1)(
            cycles.reward,
            cycles.value,
            cycles.cycle.decision.asked,
            cycles.cycle.outcome.over,
            jax.vmap(value)(after_B)[:, 0],
            self.settings.gamma,
            self.settings.gae_lambda,
        )
        return cycles.replace(advantage=advantage)

    def _loss(
        self, data: Observations, params: ActorCritics, batch: Cycles
    ) -> tuple[jax.Array, Losses]:
        """PPO's loss of both policies, each over the decisions that were asked of it."""
        config, start, decision = data.simulator.config, batch.cycle.start, batch.cycle.decision
        target_MD = batch.value + batch.advantage
        size_MO = jax.vmap(partial(environment.observe_size, data))(start, decision.levels)
        size_actor = networks.size_actor(config, self.widths)
        size_loss, size_parts = ppo.loss(
            output(size_actor, params.size.actor, size_MO),
            output(self.size_critic, params.size.critic, size_MO),
            Rollout(
                observation=size_MO,
                action=decision.size_index,
                log_prob=decision.size_log_prob,
                advantage=batch.advantage[:, -1],
                target=target_MD[:, -1],
            ),
            self.settings,
        )
        if config.max_levels == 1:
            return size_loss, size_parts
        depth_MDO = jax.vmap(partial(environment.observe_depth, data))(start)
        passes = Rollout(
            observation=depth_MDO,
            action=decision.go_on.astype(jnp.int32),
            log_prob=decision.depth_log_prob,
            advantage=batch.advantage[:, :-1],
            target=target_MD[:, :-1],
        )
        asked_MD = decision.asked[:, :-1].astype(jnp.float32)
        passes_N, asked_N = loop.join_rows((passes, asked_MD))
        depth_loss, depth_parts = ppo.loss(
            output(networks.depth_actor(self.widths), params.depth.actor, passes_N.observation),
            output(self.depth_critic, params.depth.critic, passes_N.observation),
            passes_N,
            self.settings,
            asked_N,
        )
        return size_loss + depth_loss, jax.tree.map(jnp.add, size_parts, depth_parts)
