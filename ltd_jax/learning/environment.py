"""The decision process that policies learn in, over simulated cycles (paper Sec. 4).

A cycle starts at a position of a text with the history of the cycles before it (`EnvState`). The
depth policy is asked after every pass but the last, then the size policy once; the cycle gives its
outcome and leads to the next start, at the end of a text to any other one (`step`).

Learning sees this process in two ways:

    Observations    both policies decide. What trees show never changes, so all positions are looked
                    at once (`observe_all`) and rows are gathered while learning.
    Environment     one policy decides and the other one is frozen, as in the paper: the size policy
                    once per cycle (`SizeEnvironment`), the depth policy once per draft pass
                    (`DepthEnvironment`).

All functions work on one environment; callers vmap.
"""

import dataclasses
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from ltd_jax.config import CycleConfig, ObservationConfig, Reward
from ltd_jax.policies import networks, observe
from ltd_jax.policies.networks import DEPTH_ACTIONS, Learned
from ltd_jax.policies.policy import Outcome, Policy
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import Cycle, CycleOutcome, Simulator, Totals

_POSITIONS = 256  # looked at together by `observe_all`


@struct.dataclass
class EnvState:
    """Where a cycle starts."""

    position: jax.Array  # i32 []
    history: jax.Array  # [K] f32, see `observe.update_history`


def draw_state(simulator: Simulator, seen: ObservationConfig, key: jax.Array) -> EnvState:
    """Any position, nothing remembered."""
    position = jax.random.randint(key, (), 0, simulator.tokens_left.shape[0])
    return EnvState(position, observe.init_history(seen))


def step(
    simulator: Simulator,
    state: EnvState,
    levels: jax.Array,
    size_index: jax.Array,
    seen: ObservationConfig,
    key: jax.Array | None,
) -> tuple[EnvState, CycleOutcome]:
    """The cycle that was decided on, and the start after it.

    Args:
      key: for any other start where the text is over; None = the start means nothing there.
    """
    outcome = simulate.cycle_outcome(
        simulator, state.position, levels, size_index, charge_decisions=True
    )
    told = Outcome(levels, size_index, outcome.accepted)
    history = observe.update_history(state.history, told, simulator.config, seen)
    after = EnvState(outcome.next_position, history)
    if key is not None:
        other = draw_state(simulator, seen, key)
        after = jax.tree.map(partial(jnp.where, outcome.over), other, after)
    return after, outcome


def reward_of(
    reward: Reward, outcome: CycleOutcome, simulator: Simulator, throughput: jax.Array
) -> jax.Array:
    """All in tokens or plain steps, so about 1 on any device; the scale never changes.

    Args:
      outcome: its fields may have any leading axes.
      throughput: f32 [] tokens per second of the current policies, for the average reward.
    """
    seconds, plain_seconds = outcome.seconds, simulator.plain_seconds
    if reward == "paper":
        return outcome.committed / seconds * plain_seconds  # Eq. 4 as a speedup
    if reward == "average":  # by the renewal-reward theorem its optimum is the highest throughput
        return outcome.committed - throughput * seconds
    if reward == "accepted":
        return outcome.accepted.astype(jnp.float32)
    return -seconds / plain_seconds


@struct.dataclass
class Observations:
    """A simulator and what its trees show the policies."""

    simulator: Simulator
    depth: jax.Array  # [P, D - 1, O] f32 after every pass but the last, without the history
    size: jax.Array  # [P, D, O] f32 with every number of levels, without the history


@struct.dataclass
class Decision:
    """What both policies chose in one cycle, and how likely that was."""

    levels: jax.Array  # i32 []
    size_index: jax.Array  # i32 []
    go_on: jax.Array  # [D - 1] bool, the depth policy's answers; those after a stop do not count
    depth_log_prob: jax.Array  # [D - 1] f32, of these answers
    size_log_prob: jax.Array  # f32 []

    @property
    def asked(self) -> jax.Array:
        """What was asked, bool [D]: after passes up to the stop, and always the size."""
        passes_D = jnp.broadcast_to(jnp.arange(self.go_on.shape[-1]), self.go_on.shape)
        asked_D = passes_D < self.levels[..., None]
        return jnp.concatenate([asked_D, jnp.ones((*asked_D.shape[:-1], 1), bool)], axis=-1)


def observe_all(simulator: Simulator, seen: ObservationConfig) -> Observations:
    """Looks once at every position, with every number of levels."""
    return Observations(simulator, *_observe_all(simulator, seen))


@partial(jax.jit, static_argnames="seen")
def _observe_all(simulator: Simulator, seen: ObservationConfig) -> tuple[jax.Array, jax.Array]:
    config = simulator.config
    levels_D = jnp.arange(1, config.max_levels + 1)
    see_level = lambda view: observe.depth_view(view, config, seen)
    see_tree = lambda view: observe.size_view(view, config, seen)

    def look(position: jax.Array) -> tuple[jax.Array, jax.Array]:
        level_D = jax.vmap(partial(simulate.level_view, simulator, position))(levels_D[:-1])
        tree_D = jax.vmap(partial(simulate.tree_view, simulator, position))(levels_D)
        return jax.vmap(see_level)(level_D), jax.vmap(see_tree)(tree_D)

    positions = jnp.arange(simulator.tokens_left.shape[0])
    return jax.lax.map(look, positions, batch_size=_POSITIONS)


def observe_depth(observations: Observations, state: EnvState) -> jax.Array:
    """What the depth policy sees after every pass but the last: f32 [D - 1, O]."""
    return _with_history(observations.depth[state.position], state.history)


def observe_sizes(observations: Observations, state: EnvState) -> jax.Array:
    """What the size policy sees with every number of levels: f32 [D, O]."""
    return _with_history(observations.size[state.position], state.history)


def observe_size(observations: Observations, state: EnvState, levels: jax.Array) -> jax.Array:
    """What the size policy sees with so many levels: f32 [O]."""
    return jnp.concatenate([observations.size[state.position, levels - 1], state.history])


def _with_history(view_DO: jax.Array, history_K: jax.Array) -> jax.Array:
    rows_DK = jnp.broadcast_to(history_K, (view_DO.shape[0], history_K.shape[0]))
    return jnp.concatenate([view_DO, rows_DK], axis=1)


def act(
    policy: Learned, observations: Observations, state: EnvState, key: jax.Array | None
) -> Decision:
    """Both policies' choices for one cycle: drawn with a key, the likeliest without one."""
    widths, config = policy.widths, observations.simulator.config
    depth_actor, size_actor = networks.depth_actor(widths), networks.size_actor(config, widths)
    depth_DA = networks.output(depth_actor, policy.depth, observe_depth(observations, state))
    key_levels, key_size = (None, None) if key is None else jax.random.split(key)
    answer_D, depth_log_prob_D = _choose(depth_DA, key_levels)
    levels = 1 + jnp.cumprod(answer_D).sum()
    size_A = networks.output(size_actor, policy.size, observe_size(observations, state, levels))
    size_index, size_log_prob = _choose(size_A, key_size)
    return Decision(levels, size_index, answer_D == 1, depth_log_prob_D, size_log_prob)


def _choose(logits: jax.Array, key: Any) -> tuple[jax.Array, jax.Array]:
    """Choices [...] of logits [..., A] and their log-probabilities."""
    log_prob = jax.nn.log_softmax(logits)
    drawn = jnp.argmax(logits, -1) if key is None else jax.random.categorical(key, logits)
    chosen = jnp.take_along_axis(log_prob, drawn[..., None], axis=-1)[..., 0]
    return drawn.astype(jnp.int32), chosen


@struct.dataclass
class Exploration:
    """One cycle of exploring policies."""

    start: EnvState
    decision: Decision
    outcome: CycleOutcome


def explore(
    policy: Learned, observations: Observations, state: EnvState, key: jax.Array
) -> tuple[EnvState, Exploration]:
    """A cycle of drawn choices; returns the start after it, anywhere where the text was over."""
    simulator, seen = observations.simulator, policy.widths.observation
    key_act, key_restart = jax.random.split(key)
    decision = act(policy, observations, state, key_act)
    levels, size_index = decision.levels, decision.size_index
    after, outcome = step(simulator, state, levels, size_index, seen, key_restart)
    return after, Exploration(state, decision, outcome)


def all_outcomes(simulator: Simulator, position: jax.Array) -> CycleOutcome:
    """What every (levels, size) gives at a position: fields [D, V]."""
    levels_D = jnp.arange(1, simulator.config.max_levels + 1)
    index_V = jnp.arange(len(simulator.config.sizes))
    one = partial(simulate.cycle_outcome, simulator, position, charge_decisions=True)
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(levels_D, index_V)


@jax.jit
def greedy_totals(policy: Learned, observations: Observations) -> Totals:
    """`simulate.run` of the likeliest choices, by observations that were made before."""
    simulator, seen = observations.simulator, policy.widths.observation

    def decide(position: jax.Array, history: jax.Array) -> Cycle:
        state = EnvState(position, history)
        decision = act(policy, observations, state, None)
        levels, size_index = decision.levels, decision.size_index
        after, outcome = step(simulator, state, levels, size_index, seen, None)
        return Cycle(levels, size_index, outcome, after.history)

    return simulate.walk_totals(simulator, decide, observe.init_history(seen))


@struct.dataclass
class Step:
    """What an environment gives after one action."""

    state: Any  # auto-reset where the episode ended
    reward: jax.Array  # f32 []
    terminated: jax.Array  # bool [], no value after this step
    committed: jax.Array  # f32 [] tokens gained in this step (0 for level decisions that go on)
    seconds: jax.Array  # f32 [] time spent


class Environment(Protocol):
    """What one policy learns in; hashable by value. `data` is a pytree that all methods read."""

    @property
    def action_count(self) -> int: ...

    def reset(self, data: Any, key: jax.Array) -> Any:
        """The state at the start of an episode."""

    def observe(self, data: Any, state: Any) -> jax.Array:
        """f32 [O]."""

    def step(
        self, data: Any, state: Any, action: jax.Array, throughput: jax.Array, key: jax.Array
    ) -> Step:
        """One action, i32 []; `throughput` is the running tokens per second, for the reward."""


@struct.dataclass
class EnvData:
    """What the two environments below read; traced, so that a new policy does not compile again."""

    simulator: Simulator
    other: Policy | None  # decides what is not learned; it sees the history of these environments


@struct.dataclass
class TreeState:
    """A cycle in which some levels are drafted."""

    start: EnvState
    levels: jax.Array  # i32 []


@dataclasses.dataclass(frozen=True)
class _OnePolicy:
    """What both environments have in common."""

    config: CycleConfig
    reward: Reward
    seen: ObservationConfig = observe.PAPER

    def _verify(
        self,
        data: EnvData,
        tree: TreeState,
        size_index: jax.Array,
        throughput: jax.Array,
        key: jax.Array,
    ) -> Step:
        """The rest of a cycle; its state is the start after it."""
        simulator = data.simulator
        after, outcome = step(simulator, tree.start, tree.levels, size_index, self.seen, key)
        return Step(
            state=after,
            reward=reward_of(self.reward, outcome, simulator, throughput),
            terminated=outcome.over,
            committed=outcome.committed.astype(jnp.float32),
            seconds=outcome.seconds,
        )


@dataclasses.dataclass(frozen=True)
class SizeEnvironment(_OnePolicy):
    """One step = one cycle; the action is an index into config.sizes (paper Sec. 4, size policy).

    An episode walks along a text and terminates at its end, never before; the next starts anywhere.
    Levels are those of `data.other`, or drawn from 1..D for every cycle where it is None.
    """

    @property
    def action_count(self) -> int:
        return len(self.config.sizes)

    def reset(self, data: EnvData, key: jax.Array) -> TreeState:
        key_position, key_levels = jax.random.split(key)
        return self._draft(data, draw_state(data.simulator, self.seen, key_position), key_levels)

    def observe(self, data: EnvData, state: TreeState) -> jax.Array:
        view = simulate.tree_view(data.simulator, state.start.position, state.levels)
        return observe.size_observation(view, state.start.history, self.config, self.seen)

    def step(
        self,
        data: EnvData,
        state: TreeState,
        action: jax.Array,
        throughput: jax.Array,
        key: jax.Array,
    ) -> Step:
        key_position, key_levels = jax.random.split(key)
        verified = self._verify(data, state, action, throughput, key_position)
        return verified.replace(state=self._draft(data, verified.state, key_levels))

    def _draft(self, data: EnvData, start: EnvState, key: jax.Array) -> TreeState:
        if data.other is None:
            return TreeState(start, jax.random.randint(key, (), 1, self.config.max_levels + 1))
        levels = simulate.choose_levels(data.simulator, data.other, start.position, start.history)
        return TreeState(start, levels)


@dataclasses.dataclass(frozen=True)
class DepthEnvironment(_OnePolicy):
    """One step = one answer to a draft pass: 1 = draft another level, 0 = stop (at D it must).

    An episode is one cycle: reward, tokens and seconds come with the stop, which terminates it. The
    next one starts where the cycle led to, or anywhere after a text's end. Sizes are those of
    `data.other`.
    """

    @property
    def action_count(self) -> int:
        return DEPTH_ACTIONS

    def reset(self, data: EnvData, key: jax.Array) -> TreeState:
        return TreeState(draw_state(data.simulator, self.seen, key), jnp.int32(1))

    def observe(self, data: EnvData, state: TreeState) -> jax.Array:
        view = simulate.level_view(data.simulator, state.start.position, state.levels)
        return observe.depth_observation(view, state.start.history, self.config, self.seen)

    def step(
        self,
        data: EnvData,
        state: TreeState,
        action: jax.Array,
        throughput: jax.Array,
        key: jax.Array,
    ) -> Step:
        start, levels = state.start, jnp.minimum(state.levels + action, self.config.max_levels)
        drafted, zero = TreeState(start, levels), jnp.float32(0)
        goes_on = Step(drafted, zero, jnp.bool_(False), committed=zero, seconds=zero)
        view = simulate.tree_view(data.simulator, start.position, levels)
        assert data.other is not None  # only levels are drawn at random
        size_index = data.other.choose_size(start.history, view, self.config)
        verified = self._verify(data, drafted, size_index, throughput, key)
        fresh = TreeState(verified.state, jnp.int32(1))
        stops = verified.replace(state=fresh, terminated=jnp.bool_(True))
        stop = (action == 0) | (levels == self.config.max_levels)
        return jax.tree.map(partial(jnp.where, stop), stops, goes_on)
