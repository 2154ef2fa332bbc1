"""The published code's policies: zips of Stable-Baselines3 (PPO, MLP policy) and what they do.

A zip is read without unpickling:

    data         JSON: the network's widths and activation in `policy_kwargs`, PPO's settings, and
                 pickled objects as base64 text, which are never read
    policy.pth   a torch file: mlp_extractor.policy_net.0.weight [out, in], .bias, .2 ...,
                 mlp_extractor.value_net..., action_net, value_net

The published code's words are translated here and nowhere else: it counts *rounds*, the draft
passes after the first, and asks the depth policy only after rounds 3, 6 and 9. Every cycle is
decided by the policies, also the first one of a text, where the published code drafts a fixed tree.
They see

    depth [128]    100 cumulative log-probabilities of the newest level, 14 x length / 1000,
                   14 x rounds / 10
    size  [1268]   1210 of the whole tree (10 + 12 * 100, not drafted = 0), 29 x length / 1000,
                   29 x rounds / 10
"""

import dataclasses
import json
import re
import zlib
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.models.hf.torch_file import TorchFile
from ltd_jax.policies.policy import LevelView, Policy, TreeView, size_index, static

Activation = Literal["tanh", "relu"]
ACTIVATIONS: dict[str, Activation] = {"Tanh": "tanh", "ReLU": "relu"}
# What a damaged zip, or JSON of another form, may raise.
FAILURES = (OSError, LookupError, ValueError, TypeError, AttributeError, BadZipFile, zlib.error)

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


def levels_of(rounds: int) -> int:
    """Node levels below the root after so many rounds: the first pass is not counted as a round."""
    return rounds + 1


@struct.dataclass
class Layer:
    """One dense layer."""

    kernel: Any  # [in, out] f32
    bias: Any  # [out] f32


@struct.dataclass
class Network:
    """Dense layers with a nonlinearity between them."""

    layers: tuple[Layer, ...]  # the last one gives the logits
    activation: Activation = static()

    def __call__(self, observation_O: jax.Array) -> jax.Array:
        """f32 [A]."""
        hidden = observation_O
        bend = jnp.tanh if self.activation == "tanh" else jax.nn.relu
        for layer in self.layers[:-1]:
            hidden = bend(hidden @ layer.kernel + layer.bias)
        return hidden @ self.layers[-1].kernel + self.layers[-1].bias


@struct.dataclass(kw_only=True)
class PublishedPolicies(Policy):
    """The likeliest choice of each policy; where there is none, the published code's constant."""

    depth: Network | None
    size: Network | None
    constant_length: bool = static(default=True)
    """the depth policy sees 10 tokens, as it does in the published decoding code; False = the true
    length, which it was trained with"""

    @property
    def most_levels(self) -> int:
        """Levels that the policies choose among."""
        return levels_of(FIXED_ROUNDS if self.depth is None else MOST_ROUNDS)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes that the policies choose among."""
        return (FIXED_SIZE,) if self.size is None else SIZES

    def smallest_cycle(self, base: CycleConfig) -> CycleConfig:
        """`base` with the beam width, levels and sizes that the policies choose among."""
        return dataclasses.replace(
            base, beam_width=BEAM_WIDTH, max_levels=self.most_levels, sizes=self.sizes
        )

    def check(self, config: CycleConfig) -> None:
        levels, sizes = min(self.most_levels, MOST_ROUNDS), self.sizes  # 12 of 13 levels will do
        has_sizes = set(sizes) <= set(config.sizes)
        if config.beam_width == BEAM_WIDTH and config.max_levels >= levels and has_sizes:
            return
        wanted = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}, {sizes[1]} ... {sizes[-1]}"
        raise UserError(
            f"The published policies need a cycle of beam width {BEAM_WIDTH}, at least {levels} "
            f"levels and sizes {wanted}; this one has beam width {config.beam_width}, "
            f"{config.max_levels} levels and sizes {config.sizes}."
        )

    def keep_drafting(self, history: Any, view: LevelView, config: CycleConfig) -> jax.Array:
        network = self.depth
        if network is None:
            return view.levels < self.most_levels
        length = jnp.int32(CONSTANT_LENGTH) if self.constant_length else view.length

        def goes_on() -> jax.Array:
            return jnp.argmax(network(depth_observation(view.log_prob, view.levels, length))) == 1

        decision_levels = jnp.array([levels_of(rounds) for rounds in DECISION_ROUNDS])
        is_asked = jnp.isin(view.levels, decision_levels)
        go_on = jax.lax.cond(is_asked, goes_on, lambda: jnp.bool_(True))
        return go_on & (view.levels < min(self.most_levels, config.max_levels))

    def choose_size(self, history: Any, view: TreeView, config: CycleConfig) -> jax.Array:
        if self.size is None:
            return size_index(FIXED_SIZE, config)
        action = jnp.argmax(self.size(size_observation(view.log_prob, view.levels, view.length)))
        return size_index(jnp.asarray(SIZES)[action], config)


def depth_observation(
    log_prob_WW: jax.Array, levels: jax.Array, length: jax.Array | int
) -> jax.Array:
    """What the depth policy sees of the newest level, f32 [128]; W = 10."""
    return _with_scalars(_padded(log_prob_WW), levels, length, DEPTH_SCALARS)


def size_observation(
    log_prob_DWW: jax.Array, levels: jax.Array, length: jax.Array | int
) -> jax.Array:
    """What the size policy sees of the tree, f32 [1268]; levels after `levels` are not read."""
    drafted_D11 = jnp.arange(log_prob_DWW.shape[0])[:, None, None] < levels
    log_prob_DWW = jnp.where(drafted_D11, _padded(log_prob_DWW), 0.0)
    log_prob_N = jnp.concatenate([log_prob_DWW[0, 0], log_prob_DWW[1:].reshape(-1)])[:NODES]
    return _with_scalars(
        jnp.pad(log_prob_N, (0, NODES - log_prob_N.shape[0])), levels, length, SIZE_SCALARS
    )


def _padded(log_prob: jax.Array) -> jax.Array:
    """0 where there is no node, as the published code fills its buffer."""
    return jnp.where(jnp.isfinite(log_prob), log_prob, 0.0)


def _with_scalars(
    log_prob: jax.Array, levels: jax.Array, length: jax.Array | int, copies: int
) -> jax.Array:
    rounds = levels - levels_of(0)
    scalars_2 = jnp.stack([length / LENGTH_SCALE, rounds / ROUNDS_SCALE])
    repeated = jnp.repeat(scalars_2, copies)
    return jnp.concatenate([log_prob.reshape(-1), repeated]).astype(jnp.float32)


def load(
    depth: Path | None, size: Path | None, *, constant_length: bool = True
) -> PublishedPolicies:
    """Reads the zips of one or both policies.

    Raises:
      UserError: a file cannot be read, or is not a policy of this kind.
    """
    return PublishedPolicies(
        depth=_read_actor(depth, "depth", DEPTH_WIDTH, 2),
        size=_read_actor(size, "size", SIZE_WIDTH, len(SIZES)),
        constant_length=constant_length,
    )


def _read_actor(path: Path | None, name: str, inputs: int, outputs: int) -> Network | None:
    if path is None:
        return None
    actor = read_zip(path)
    reads, choices = actor.layers[0].kernel.shape[0], actor.layers[-1].kernel.shape[1]
    if (reads, choices) == (inputs, outputs):
        return actor
    raise UserError(
        f"{path} reads {reads} numbers and chooses among {choices}; a published {name} policy "
        f"reads {inputs} and chooses among {outputs}."
    )


def read_zip(path: Path) -> Network:
    """The policy's network, numpy, of a zip that `PPO.save` wrote; its value is not read.

    Raises:
      UserError: the file is missing, damaged, or holds another kind of policy.
    """
    try:
        with ZipFile(path) as file:
            settings, weights = json.loads(file.read("data")), file.read("policy.pth")
        kwargs = dict(settings.get("policy_kwargs") or {})
    except FAILURES as error:
        raise UserError(
            f"{path} cannot be read as a policy of Stable-Baselines3 ({error}); give a zip that "
            "PPO.save wrote."
        ) from error
    tensors = TorchFile(path, weights)
    _check_names(path, tensors)
    layers = read_layers(path, tensors, "policy_net", "action_net")
    return Network(layers, _activation(path, kwargs))


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


def read_layers(path: Path, tensors: TorchFile, inner: str, last: str) -> tuple[Layer, ...]:
    """The dense layers of `mlp_extractor.INNER`, then the one named `last`.

    Raises:
      UserError: one is missing, of another shape, or holds numbers that are not finite.
    """
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
