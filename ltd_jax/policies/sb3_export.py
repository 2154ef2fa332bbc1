"""Policies written as Stable-Baselines3's zips, which `PPO.load` reads; neither is needed here.

What that library keeps as pickled objects (spaces, classes) is written as the few instructions
that make them.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ltd_jax.errors import UserError
from ltd_jax.models import torch_writer
from ltd_jax.models.torch_writer import Call, Global
from ltd_jax.policies.sb3_file import ACTIVATIONS, Policy

TORCH_NAMES = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
SETTINGS = {
    "verbose": 0,
    "n_envs": 1,
    "num_timesteps": 0,
    "_total_timesteps": 0,
    "seed": None,
    "use_sde": False,
    "learning_rate": 3e-4,
    "n_steps": 2048,
    "batch_size": 64,
    "n_epochs": 10,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "clip_range_vf": None,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "normalize_advantage": True,
    "target_kl": None,
}  # the library's defaults; they matter only where such a zip is trained further


def write(policy: Policy, path: Path) -> None:
    """Writes a zip that `PPO.load` reads; a killed process leaves the old file or the new one.

    Raises:
      UserError: the file cannot be written.
    """
    state = {}
    for inner, last, layers in (
        ("policy_net", "action_net", policy.actor),
        ("value_net", "value_net", policy.critic),
    ):
        names = [f"mlp_extractor.{inner}.{2 * index}" for index in range(len(layers) - 1)] + [last]
        for name, layer in zip(names, layers, strict=True):
            state[f"{name}.weight"] = np.asarray(layer.kernel, np.float32).T
            state[f"{name}.bias"] = np.asarray(layer.bias, np.float32)
    content = torch_writer.archive(
        {
            "data": json.dumps(_settings(policy), indent=4).encode(),
            "policy.pth": torch_writer.tensors(state),
            "policy.optimizer.pth": torch_writer.tensors(_fresh_adam(len(state))),
        }
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


def _settings(policy: Policy) -> dict[str, Any]:
    """The zip's `data`: what `PPO.load` sets up before it reads the weights."""
    widths = {
        name: [int(layer.bias.shape[0]) for layer in layers[:-1]]
        for name, layers in (("pi", policy.actor), ("vf", policy.critic))
    }
    activation = Global("torch.nn.modules.activation", TORCH_NAMES[policy.activation])
    kwargs = {"net_arch": widths, "activation_fn": activation}
    shown = {"net_arch": widths, "activation_fn": f"<class '{'.'.join(activation)}'>"}
    box = Call(
        Global("gymnasium.spaces.box", "Box"),
        (-float("inf"), float("inf"), (policy.observation_width,)),
    )
    choices = Call(Global("gymnasium.spaces.discrete", "Discrete"), (policy.action_count,))
    kind = Global("stable_baselines3.common.policies", "ActorCriticPolicy")
    return SETTINGS | {
        "policy_class": _serialized(kind, "<class 'abc.ABCMeta'>"),
        "policy_kwargs": _serialized(kwargs, "<class 'dict'>") | shown,
        "observation_space": _serialized(box, "<class 'gymnasium.spaces.box.Box'>"),
        "action_space": _serialized(choices, "<class 'gymnasium.spaces.discrete.Discrete'>"),
    }


def _serialized(value: Any, kind: str) -> dict[str, Any]:
    text = base64.b64encode(torch_writer.instructions(value)).decode()
    return {":type:": kind, ":serialized:": text}


def _fresh_adam(count: int) -> dict[str, Any]:
    """The state dict of an Adam that has not stepped yet, over `count` tensors."""
    group = {
        "lr": 3e-4,
        "betas": (0.9, 0.999),
        "eps": 1e-5,
        "weight_decay": 0,
        "amsgrad": False,
        "params": list(range(count)),
    }
    return {"state": {}, "param_groups": [group]}
