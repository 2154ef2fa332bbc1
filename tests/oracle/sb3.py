"""Plain-Python twin of the published code's observations, from its own description.

In: levels as lists of (row, child) scores, in the order in which the published code appends them.
Also reads both networks of a zip for our own, where the library needs the policy's alone.
"""

import zipfile
from pathlib import Path
from typing import Any

from ltd_jax.baselines import published
from ltd_jax.models.hf.torch_file import TorchFile
from ltd_jax.policies.networks import ActorCritic


def actor_critic(path: Path) -> ActorCritic:
    """Both networks of a zip as the Linen variables of `networks.Actor` and `networks.Critic`."""
    with zipfile.ZipFile(path) as file:
        tensors = TorchFile(path, file.read("policy.pth"))

    def variables(inner: str, last: str) -> Any:
        layers = enumerate(published.read_layers(path, tensors, inner, last))
        return {"params": {f"Dense_{index}": vars(layer) for index, layer in layers}}

    return ActorCritic(
        actor=variables("policy_net", "action_net"), critic=variables("value_net", "value_net")
    )


def depth_row(newest: list[list[float]], length: float, rounds: int) -> list[float]:
    """128 numbers: the newest round's children row by row, then the scalars, 14 times each."""
    row = [score for children in newest for score in children]
    row += [0.0] * (100 - len(row))
    return row + [length / 1000] * 14 + [rounds / 10] * 14


def size_row(levels: list[list[list[float]]], length: float) -> list[float]:
    """1268 numbers: the root's children, then every round's, zeros up to 1210, then scalars."""
    row: list[float] = list(levels[0][0])
    for level in levels[1:]:
        for children in level:
            row.extend(children)
    rounds = len(levels) - 1
    assert len(row) == 10 + 100 * rounds
    row += [0.0] * (1210 - len(row))
    return row + [length / 1000] * 29 + [rounds / 10] * 29
