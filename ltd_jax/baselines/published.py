"""Stable-Baselines3's zips (PPO with an MLP policy), read without unpickling.

data         JSON: the network's widths and activation in `policy_kwargs`, PPO's settings, and
             pickled objects as base64 text, which are never read
policy.pth   a torch file: mlp_extractor.policy_net.0.weight [out, in], .bias, .2 ...,
             mlp_extractor.value_net..., action_net, value_net
"""
# DOC """The published code's policies as a controller: Stable-Baselines3 networks over their own view.
# DOC
# DOC Its words are translated here and nowhere else: it counts *rounds*, the draft passes after the
# DOC first, and asks the depth policy only after rounds 3, 6 and 9. Every cycle is decided by the
# DOC policies, also the first one of a text, where the published code drafts a fixed tree.
# DOC
# DOC     depth [128]    100 cumulative log-probabilities of the newest level, 14 x length / 1000,
# DOC                    14 x rounds / 10
# DOC     size  [1268]   1210 of the whole tree (10 + 12 * 100, not drafted = 0), 29 x length / 1000,
# DOC                    29 x rounds / 10
# DOC """

import dataclasses
import functools
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.models.hf.torch_file import TorchFile
from ltd_jax.policies.networks import ActorCritic
from ltd_jax.policies.policy import Controller, LevelView, TreeView

Activation = Literal["tanh", "relu"]
ACTIVATIONS: dict[str, Activation] = {"Tanh": "tanh", "ReLU": "relu"}
FAILURES = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)


@struct.dataclass
class Layer:
    """One dense layer."""

    kernel: Any  # [in, out] f32
    bias: Any  # [out] f32


@dataclasses.dataclass(frozen=True, eq=False)
class ZipPolicy:
    """Both networks of a zip, numpy."""

    actor: tuple[Layer, ...]  # the last one gives the logits
    critic: tuple[Layer, ...]  # the last one gives the value
    activation: Activation

    @property
    def observation_width(self) -> int:
        """O, what both networks read."""
        return self.actor[0].kernel.shape[0]

    @property
    def action_count(self) -> int:
        """A, the choices."""
        return self.actor[-1].kernel.shape[1]

    @property
    def variables(self) -> ActorCritic:
        """As the Linen variables of `networks.Actor` and `networks.Critic`."""
        return ActorCritic(actor=_variables(self.actor), critic=_variables(self.critic))


def read_zip(path: Path) -> ZipPolicy:
    """Reads a zip that `PPO.save` wrote.

    Raises:
      UserError: the file is missing, damaged, or holds another kind of policy.
    """
    try:
        with zipfile.ZipFile(path) as file:
            settings, weights = json.loads(file.read("data")), file.read("policy.pth")
        kwargs = dict(settings.get("policy_kwargs") or {})
    except FAILURES as error:
        raise UserError(
            f"{path} cannot be read as a policy of Stable-Baselines3 ({error}); give a zip that "
            "PPO.save wrote."
        ) from error
    tensors = TorchFile(path, weights)
    _check_names(path, tensors)
    actor = _zip_network(path, tensors, "policy_net", "action_net")
    critic = _zip_network(path, tensors, "value_net", "value_net")
    return ZipPolicy(actor, critic, _activation(path, kwargs))


def _activation(path: Path, kwargs: dict[str, Any]) -> Activation:
    """Named in `policy_kwargs` only where it is not the default, Tanh."""
    text = str(kwargs.get("activation_fn", "Tanh"))
    name = re.split(r"[^A-Za-z0-9]+", text.strip("<>' "))[-1]
    if name not in ACTIVATIONS:
        raise UserError(f"{path} has the activation {text}; only Tanh and ReLU are read.")
    return ACTIVATIONS[name]


def _check_names(path: Path, tensors: TorchFile) -> None:
    known = re.compile(
        r"(mlp_extractor\.(policy|value)_net\.\d*[02468]|action_net|value_net)\.(weight|bias)"
    )
    strange = sorted(name for name in tensors.places if not known.fullmatch(name))
    if strange:
        raise UserError(
            f"{path} has {strange[0]}, which no MLP policy over discrete actions has; give a PPO "
            'policy of kind "MlpPolicy" over a Discrete space.'
        )


def _zip_network(path: Path, tensors: TorchFile, inner: str, last: str) -> tuple[Layer, ...]:
    pattern = re.compile(rf"mlp_extractor\.{inner}\.(\d+)\.weight")
    found = (pattern.fullmatch(name) for name in tensors.places)
    hidden = sorted(int(match[1]) for match in found if match)
    layers: list[Layer] = []
    for name in [*(f"mlp_extractor.{inner}.{index}" for index in hidden), last]:
        try:
            weight, bias = tensors.read(f"{name}.weight"), tensors.read(f"{name}.bias")
        except KeyError as error:
            raise UserError(f"{path} lacks {error}; it is damaged, copy it again.") from error
        width = layers[-1].bias.shape[0] if layers else weight.shape[-1]
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise UserError(
                f"{path}: {name} has shapes {weight.shape} and {bias.shape}, which do not follow "
                f"a width of {width}."
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise UserError(f"{path}: {name} holds numbers that are not finite.")
        layers.append(Layer(np.array(weight.T, np.float32), np.array(bias, np.float32)))
    return tuple(layers)


def _variables(layers: tuple[Layer, ...]) -> Any:
    named = {
        f"Dense_{index}": {"kernel": layer.kernel, "bias": layer.bias}
        for index, layer in enumerate(layers)
    }
    return {"params": named}


BEAM_WIDTH = 10
DECISION_ROUNDS = (3, 6, 9)
MOST_ROUNDS = 12
FIXED_ROUNDS = 8  # without a depth policy
FIXED_SIZE = 59  # without a size policy: 60 with the root
SIZES = tuple(range(10, 250, 10))  # by action, root not counted
NODES = BEAM_WIDTH + MOST_ROUNDS * BEAM_WIDTH**2
DEPTH_SCALARS, SIZE_SCALARS = 14, 29  # copies of each scalar
DEPTH_WIDTH = BEAM_WIDTH**2 + 2 * DEPTH_SCALARS
SIZE_WIDTH = NODES + 2 * SIZE_SCALARS
LENGTH_SCALE, ROUNDS_SCALE = 1000, 10
CONSTANT_LENGTH = 10  # what the depth policy takes for the context length when it decodes


@dataclasses.dataclass(frozen=True)
class PublishedSetting:
    """The static side of a pair of policies."""

    depth: Activation | None = None  # None = no depth policy: `fixed_levels`
    size: Activation | None = None  # None = no size policy: `fixed_size`
    constant_length: bool = True  # the depth policy sees 10 tokens, as it does in the published
    # decoding code; False = the true length, which it was trained with
    fixed_levels: int = FIXED_ROUNDS + 1
    fixed_size: int = FIXED_SIZE


@struct.dataclass(kw_only=True)
class PublishedParams:
    """Actors, tuples of `Layer`; None where there is none."""

    depth: Any
    size: Any


def levels_of(rounds: int) -> int:
    """Node levels below the root after so many rounds: the first pass is not counted as a round."""
    return rounds + 1


def load(
    depth: Path | None, size: Path | None, *, constant_length: bool = True
) -> tuple[PublishedSetting, PublishedParams]:
    """Reads the zips of one or both policies.

    Raises:
      UserError: a file cannot be read, or is not a policy of this kind.
    """
    depth_policy = _read_policy(depth, "depth", DEPTH_WIDTH, 2)
    size_policy = _read_policy(size, "size", SIZE_WIDTH, len(SIZES))
    setting = PublishedSetting(
        depth=None if depth_policy is None else depth_policy.activation,
        size=None if size_policy is None else size_policy.activation,
        constant_length=constant_length,
    )
    params = PublishedParams(
        depth=None if depth_policy is None else depth_policy.actor,
        size=None if size_policy is None else size_policy.actor,
    )
    return setting, params


def smallest_cycle(setting: PublishedSetting, base: CycleConfig) -> CycleConfig:
    """`base` with the beam width, levels and sizes that the policies choose among."""
    return dataclasses.replace(
        base,
        beam_width=BEAM_WIDTH,
        max_levels=setting.fixed_levels if setting.depth is None else levels_of(MOST_ROUNDS),
        sizes=(setting.fixed_size,) if setting.size is None else SIZES,
    )


def check(setting: PublishedSetting, config: CycleConfig) -> None:
    """Raises UserError unless a cycle has what the policies choose among.

    A cycle of 12 levels will do, though the published code drafts up to 13.
    """
    levels = setting.fixed_levels if setting.depth is None else MOST_ROUNDS
    sizes = (setting.fixed_size,) if setting.size is None else SIZES
    lacking = sorted(set(sizes) - set(config.sizes))
    if config.beam_width != BEAM_WIDTH or config.max_levels < levels or lacking:
        wanted = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}, {sizes[1]} ... {sizes[-1]}"
        raise UserError(
            f"The published policies need a cycle of beam width {BEAM_WIDTH}, at least {levels} "
            f"levels and sizes {wanted}; this one has beam width {config.beam_width}, "
            f"{config.max_levels} levels and sizes {config.sizes}."
        )


@functools.cache
def controller(config: CycleConfig, setting: PublishedSetting) -> Controller:
    """The policies' likeliest choices; params are `Params`. Equal arguments give the same object.

    Raises:
      UserError: the cycle lacks what the policies choose among.
    """
    check(setting, config)
    return Controller(
        init=lambda: (),
        keep_drafting=functools.partial(_keep_drafting, config, setting),
        choose_size=functools.partial(_choose_size, config, setting),
        update=lambda state, outcome: state,
    )


def depth_observation(
    level_score_WW: jax.Array, levels: jax.Array, length: jax.Array, constant_length: bool
) -> jax.Array:
    """f32 [128]; arguments as in `cycle.observe.depth_observation`, W = 10."""
    seen = CONSTANT_LENGTH if constant_length else length
    return _with_scalars(_padded(level_score_WW), levels, jnp.asarray(seen), DEPTH_SCALARS)


def size_observation(score_DWW: jax.Array, levels: jax.Array, length: jax.Array) -> jax.Array:
    """f32 [1268]; arguments as in `cycle.observe.size_observation`, W = 10."""
    drafted = jnp.arange(score_DWW.shape[0])[:, None, None] < levels
    score_DWW = jnp.where(drafted, _padded(score_DWW), 0.0)
    flat = jnp.concatenate([score_DWW[0, 0], score_DWW[1:].reshape(-1)])[:NODES]
    flat = jnp.pad(flat, (0, NODES - flat.shape[0]))
    return _with_scalars(flat, levels, length, SIZE_SCALARS)


def logits(
    layers: tuple[Layer, ...], activation: Activation, observation_O: jax.Array
) -> jax.Array:
    """f32 [A]."""
    value = observation_O
    bend = jnp.tanh if activation == "tanh" else jax.nn.relu
    for layer in layers[:-1]:
        value = bend(value @ layer.kernel + layer.bias)
    return value @ layers[-1].kernel + layers[-1].bias


def _read_policy(path: Path | None, name: str, width: int, actions: int) -> ZipPolicy | None:
    policy = None if path is None else read_zip(path)
    if policy is None or (policy.observation_width, policy.action_count) == (width, actions):
        return policy
    raise UserError(
        f"{path} reads {policy.observation_width} numbers and chooses among "
        f"{policy.action_count}; a published {name} policy reads {width} and chooses among "
        f"{actions}."
    )


def _keep_drafting(
    config: CycleConfig,
    setting: PublishedSetting,
    params: PublishedParams,
    state: tuple[()],
    view: LevelView,
) -> jax.Array:
    activation = setting.depth
    if activation is None:
        return view.levels < setting.fixed_levels

    def ask() -> jax.Array:
        seen_O = depth_observation(view.score, view.levels, view.length, setting.constant_length)
        return jnp.argmax(logits(params.depth, activation, seen_O)) == 1

    asked = jnp.isin(view.levels, jnp.array([levels_of(rounds) for rounds in DECISION_ROUNDS]))
    go_on = jax.lax.cond(asked, ask, lambda: jnp.bool_(True))
    return go_on & (view.levels < min(levels_of(MOST_ROUNDS), config.max_levels))


def _choose_size(
    config: CycleConfig,
    setting: PublishedSetting,
    params: PublishedParams,
    state: tuple[()],
    view: TreeView,
) -> jax.Array:
    if setting.size is None:
        return jnp.int32(config.sizes.index(setting.fixed_size))
    index_A = jnp.array([config.sizes.index(size) for size in SIZES], jnp.int32)
    seen_O = size_observation(view.score, view.levels, view.length)
    return index_A[jnp.argmax(logits(params.size, setting.size, seen_O))]


def _padded(score: jax.Array) -> jax.Array:
    """Scores with 0 where there is no node, as the published code fills its buffer."""
    return jnp.where(jnp.isfinite(score), score, 0.0)


def _with_scalars(score: jax.Array, levels: jax.Array, length: jax.Array, copies: int) -> jax.Array:
    rounds = levels - levels_of(0)
    scalars = [length / LENGTH_SCALE, rounds / ROUNDS_SCALE]
    parts = [jnp.broadcast_to(value, (copies,)) for value in scalars]
    return jnp.concatenate([score.reshape(-1), *parts]).astype(jnp.float32)
