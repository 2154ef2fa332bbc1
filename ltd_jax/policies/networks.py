"""The two learned policies: small multilayer perceptrons over `observe` (paper A.2).

In: observations f32 [O] of one sequence. Out: logits over the choices, a value, or a `Policy` that
takes the likeliest choice. Initialised as in Stable-Baselines3: orthogonal, gain sqrt(2) in hidden
layers, 0.01 for logits, 1 for the value, biases zero.

Layers have Linen's automatic names, which seed their initialisation; `layers_of` is the one place
that knows them.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.files import Identity, UserError
from ltd_jax.policies import observe
from ltd_jax.policies.policy import LevelView, Outcome, Policy, TreeView, static

DEPTH_ACTIONS = 2  # 0 = stop and verify, 1 = draft another level


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


@struct.dataclass
class Learned(Policy):
    """LTD's depth policy and size policy, the likeliest choice of each (Sec. 4).

    Example:
      >>> import ltd_jax as ltd
      >>> policy = init(jax.random.key(0), ltd.CycleConfig(), ltd.PolicyConfig())
      >>> isinstance(policy, ltd.Learned)
      True
    """

    depth: Any  # Linen variables of the depth policy's `Actor`; None = not asked
    size: Any  # Linen variables of the size policy's `Actor`; None = not asked
    widths: PolicyConfig = static()
    origin: Identity | None = static(default=None)  # what they were trained for

    @property
    def cycle(self) -> CycleConfig:
        """The cycle that they were trained for; UserError where they do not say it."""
        if self.origin is None or self.origin.cycle is None:
            raise UserError("The policies do not say their cycle; save them and load the file.")
        return CycleConfig(**dict(self.origin.cycle))

    @property
    def needs_root_entropy(self) -> bool:
        return self.widths.observation.root_entropy

    def check(self, config: CycleConfig) -> None:
        """Raises UserError where the weights belong to a cycle of other shapes."""
        if self.depth is not None:
            width = observe.depth_width(config, self.widths.observation)
            check_inputs("depth policy", self.depth, width)
        if self.size is not None:
            width = observe.size_width(config, self.widths.observation)
            check_inputs("size policy", self.size, width)

    def traced(self) -> "Learned":
        """The policy without its origin: policies of one shape share their programs."""
        return super().traced().replace(origin=None)

    def init_history(self, config: CycleConfig) -> jax.Array:
        return observe.init_history(self.widths.observation)

    def keep_drafting(self, history: jax.Array, view: LevelView, config: CycleConfig) -> jax.Array:
        observation_O = observe.depth_observation(view, history, config, self.widths.observation)
        go_on = jnp.argmax(output(depth_actor(self.widths), self.depth, observation_O)) == 1
        return go_on & (view.levels < config.max_levels)

    def choose_size(self, history: jax.Array, view: TreeView, config: CycleConfig) -> jax.Array:
        observation_O = observe.size_observation(view, history, config, self.widths.observation)
        logits_A = output(size_actor(config, self.widths), self.size, observation_O)
        return jnp.argmax(logits_A).astype(jnp.int32)

    def update_history(
        self, history: jax.Array, outcome: Outcome, config: CycleConfig
    ) -> jax.Array:
        return observe.update_history(history, outcome, config, self.widths.observation)


@struct.dataclass(kw_only=True)
class ActorCritic:
    """Parameters of one policy and of the value that taught it."""

    actor: Any  # Linen variables of `Actor`
    critic: Any  # Linen variables of `Critic`; None = no value is learned


@struct.dataclass(kw_only=True)
class ActorCritics:
    """Both policies while they learn."""

    depth: ActorCritic
    size: ActorCritic

    def policy(self, widths: PolicyConfig) -> Learned:
        """The actors alone, as decoding needs them."""
        return Learned(self.depth.actor, self.size.actor, widths)


def output(network: nn.Module, variables: Any, observation: jax.Array) -> jax.Array:
    """A network's output for observations; `apply` alone may also give a tuple, says its type."""
    return cast(jax.Array, network.apply(variables, observation))


def size_actor(config: CycleConfig, widths: PolicyConfig) -> Actor:
    """The size policy's network; one action per entry of `config.sizes`."""
    return Actor(widths.size_actor, len(config.sizes))


def depth_actor(widths: PolicyConfig) -> Actor:
    """The depth policy's network; actions 0 = stop and verify, 1 = draft another level."""
    return Actor(widths.depth_actor, DEPTH_ACTIONS)


def init(key: jax.Array, config: CycleConfig, widths: PolicyConfig) -> Learned:
    """Random policies."""
    key_depth, key_size = jax.random.split(key)
    depth_O, size_O = blank_observations(config, widths)
    return Learned(
        depth=depth_actor(widths).init(key_depth, depth_O),
        size=size_actor(config, widths).init(key_size, size_O),
        widths=widths,
    )


def blank_observations(config: CycleConfig, widths: PolicyConfig) -> tuple[jax.Array, jax.Array]:
    """Zeros of the shapes that the depth and the size policy see."""
    observation = widths.observation
    depth_O = jnp.zeros(observe.depth_width(config, observation))
    return depth_O, jnp.zeros(observe.size_width(config, observation))


def layers_of(variables: Any) -> list[str]:
    """Names of a network's layers, from its input to its output."""
    return sorted(variables["params"], key=lambda name: int(name.rsplit("_", 1)[1]))


def check_inputs(name: str, variables: Any, width: int) -> None:
    """Raises UserError where a network does not read the `width` numbers that a cycle gives."""
    inputs = variables["params"][layers_of(variables)[0]]["kernel"].shape[0]
    if inputs != width:
        raise UserError(
            f"The {name} reads {inputs} numbers, but this cycle gives {width}; use the cycle that "
            "it was trained with."
        )


def _hidden(widths: tuple[int, ...], value: jax.Array) -> jax.Array:
    for width in widths:
        value = nn.relu(_dense(width, 2**0.5)(value))
    return value


def _dense(width: int, gain: float) -> nn.Dense:
    return nn.Dense(width, kernel_init=_orthogonal(gain))


def _orthogonal(gain: float) -> nn.initializers.Initializer:
    """Orthogonal weights, one matrix after another also under `vmap`.

    On a CPU a factorisation of a batch occupies a thread of XLA's pool while it waits for work that
    it has put into the same pool: two of them on two cores wait for ever.
    """
    whole = nn.initializers.orthogonal(gain)

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.custom_batching.sequential_vmap(lambda key: whole(key, shape, dtype))(key)

    return init
