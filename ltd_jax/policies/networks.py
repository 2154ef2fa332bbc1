"""The two learned policies: small multilayer perceptrons over `cycle.observe` (paper A.2).

In: observations f32 [O] of one sequence. Out: logits over the choices, a value, or a `Controller`
that takes the likeliest choice. Initialised as in Stable-Baselines3: orthogonal, gain sqrt(2) in
hidden layers, 0.01 for logits, 1 for the value, biases zero.
"""

import functools
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.policies import observe
from ltd_jax.policies.policy import Controller, LevelView, Outcome, TreeView

DEPTH_ACTIONS = 2  # 0 = stop and verify, 1 = draft another level


@struct.dataclass(kw_only=True)
class ActorCritic:
    """Parameters of one policy and of the value that taught it."""

    actor: Any  # Linen variables of `Actor`
    critic: Any  # Linen variables of `Critic`


@struct.dataclass(kw_only=True)
class LearnedParams:
    """What the `learned` controller decides with: actors only."""

    depth: Any  # Linen variables of the depth policy's `Actor`
    size: Any  # Linen variables of the size policy's `Actor`


@struct.dataclass(kw_only=True)
class PolicyParams:
    """Both policies while they learn."""

    depth: ActorCritic
    size: ActorCritic

    @property
    def learned(self) -> LearnedParams:
        """The actors alone, as decoding needs them."""
        return LearnedParams(depth=self.depth.actor, size=self.size.actor)


class Actor(nn.Module):
    """Logits over the choices; works on any leading axes: f32 [..., O] -> f32 [..., A]."""

    widths: tuple[int, ...]
    actions: int

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        hidden = _hidden(self.widths, observation)
        return _dense(self.actions, 0.01)(hidden)


class Critic(nn.Module):
    """Expected discounted reward: f32 [..., O] -> f32 [...]."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        hidden = _hidden(self.widths, observation)
        return _dense(1, 1.0)(hidden)[..., 0]


def output(network: nn.Module, variables: Any, observation: jax.Array) -> jax.Array:
    """What a network says of observations; `apply` alone may also give a tuple, says its type."""
    return cast(jax.Array, network.apply(variables, observation))


def size_actor(config: CycleConfig, policy: PolicyConfig) -> Actor:
    """The size policy's network; one action per entry of `config.sizes`."""
    return Actor(policy.size_actor, len(config.sizes))


def depth_actor(policy: PolicyConfig) -> Actor:
    """The depth policy's network; actions 0 = stop and verify, 1 = draft another level."""
    return Actor(policy.depth_actor, DEPTH_ACTIONS)


@functools.cache
def learned(config: CycleConfig, policy: PolicyConfig) -> Controller:
    """The two policies as a controller, likeliest choice each; params are `LearnedParams`.

    Equal configs give the same object, so that what was compiled with it is found again.
    """
    depth, size, seen = depth_actor(policy), size_actor(config, policy), policy.observation

    def keep_drafting(params: LearnedParams, memory: jax.Array, view: LevelView) -> jax.Array:
        seen_O = observe.depth_observation(view, memory, config, seen)
        go_on = jnp.argmax(output(depth, params.depth, seen_O)) == 1
        return go_on & (view.levels < config.max_levels)

    def choose_size(params: LearnedParams, memory: jax.Array, view: TreeView) -> jax.Array:
        seen_O = observe.size_observation(view, memory, config, seen)
        return jnp.argmax(output(size, params.size, seen_O)).astype(jnp.int32)

    def update(memory: jax.Array, outcome: Outcome) -> jax.Array:
        return observe.remember(memory, outcome, config, seen)

    return Controller(
        init=lambda: observe.no_memory(seen),
        keep_drafting=keep_drafting,
        choose_size=choose_size,
        update=update,
    )


@functools.cache
def learned_size(config: CycleConfig, policy: PolicyConfig, levels: int) -> Controller:
    """`learned`, but every cycle drafts `levels` levels; `LearnedParams.depth` is not read."""
    return learned(config, policy)._replace(
        keep_drafting=lambda params, state, view: view.levels < levels
    )


@functools.cache
def learned_depth(config: CycleConfig, policy: PolicyConfig, size: int) -> Controller:
    """`learned`, but every cycle verifies `config.sizes[size]` nodes; params.size is not read."""
    return learned(config, policy)._replace(choose_size=lambda params, state, view: jnp.int32(size))


def init_learned(key: jax.Array, config: CycleConfig, policy: PolicyConfig) -> LearnedParams:
    """Random parameters of `learned`, e.g. as the abstract state of a checkpoint."""
    key_depth, key_size = jax.random.split(key)
    depth_O, size_O = blank_observations(config, policy)
    return LearnedParams(
        depth=depth_actor(policy).init(key_depth, depth_O),
        size=size_actor(config, policy).init(key_size, size_O),
    )


def blank_observations(config: CycleConfig, policy: PolicyConfig) -> tuple[jax.Array, jax.Array]:
    """Zeros of the shapes that the depth and the size policy see."""
    seen = policy.observation
    depth_O = jnp.zeros(observe.depth_width(config, seen))
    return depth_O, jnp.zeros(observe.size_width(config, seen))


def forced(params: LearnedParams, levels: Literal["least", "most"], size: int) -> LearnedParams:
    """Weights that always choose one or all levels and `config.sizes[size]`, at full cost.

    With them the policies' own time is measured in the very program that decodes.
    """
    push = {"least": 0, "most": 1}[levels]
    return LearnedParams(depth=_always(params.depth, push), size=_always(params.size, size))


def _always(actor: Any, action: int) -> Any:
    """An actor of the same shapes whose logits are 1 for one action and 0 for all others."""
    zeros = jax.tree.map(jnp.zeros_like, actor)
    last = max(zeros["params"], key=lambda name: int(name.rsplit("_", 1)[1]))
    bias = zeros["params"][last]["bias"].at[action].set(1.0)
    layers = zeros["params"] | {last: zeros["params"][last] | {"bias": bias}}
    return zeros | {"params": layers}


def _hidden(widths: tuple[int, ...], value: jax.Array) -> jax.Array:
    for width in widths:
        value = nn.relu(_dense(width, 2**0.5)(value))
    return value


def _dense(width: int, gain: float) -> nn.Dense:
    return nn.Dense(width, kernel_init=_orthogonal(gain))


def _orthogonal(gain: float) -> nn.initializers.Initializer:
    """Orthogonal weights, one matrix after another also under `vmap`.

    On a processor a factorisation of a batch occupies a thread of XLA's pool while it waits for
    work that it has put into the same pool: two of them on two cores wait for ever.
    """
    whole = nn.initializers.orthogonal(gain)

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.custom_batching.sequential_vmap(lambda key: whole(key, shape, dtype))(key)

    return init
