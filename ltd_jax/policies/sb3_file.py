"""Stable-Baselines3's zips (PPO with an MLP policy), read without unpickling.

data         JSON: the network's widths and activation in `policy_kwargs`, PPO's settings, and
             pickled objects as base64 text, which are never read
policy.pth   a torch file: mlp_extractor.policy_net.0.weight [out, in], .bias, .2 ...,
             mlp_extractor.value_net..., action_net, value_net
"""

import dataclasses
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flax import struct

from ltd_jax.errors import UserError
from ltd_jax.models.torch_file import TorchFile
from ltd_jax.policies.networks import ActorCritic

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
class Policy:
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


def of_networks(actor: Any, critic: Any | None, activation: Activation = "relu") -> Policy:
    """Of Linen variables; without a critic, one that says 0 of everything."""
    layers = _layers_of_variables(actor)
    width = layers[0].kernel.shape[0]
    nothing = Layer(np.zeros((width, 1), np.float32), np.zeros(1, np.float32))
    return Policy(
        layers, (nothing,) if critic is None else _layers_of_variables(critic), activation
    )


def read(path: Path) -> Policy:
    """Reads a zip that `PPO.save` or `sb3_export.write` wrote.

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
    actor = _network(path, tensors, "policy_net", "action_net")
    critic = _network(path, tensors, "value_net", "value_net")
    return Policy(actor, critic, _activation(path, kwargs))


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


def _network(path: Path, tensors: TorchFile, inner: str, last: str) -> tuple[Layer, ...]:
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


def _layers_of_variables(variables: Any) -> tuple[Layer, ...]:
    named = variables["params"]
    ordered = sorted(named, key=lambda name: int(name.rsplit("_", 1)[1]))
    to_numpy = lambda leaf: np.asarray(leaf, np.float32)
    return tuple(
        Layer(to_numpy(named[each]["kernel"]), to_numpy(named[each]["bias"])) for each in ordered
    )
