"""Weights of the learned policies that always choose the same."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ltd_jax.policies.networks import LearnedParams


def forced(params: LearnedParams, levels: Literal["least", "most"], size: int) -> LearnedParams:
    """Weights that always choose one or all levels and `config.sizes[size]`, at full cost.

    With them the learned controller is told what to do in the very program that decodes.
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
