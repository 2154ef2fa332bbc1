"""From numbers to controllers: one function per compared method."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError
from ltd_jax.policies import classifiers, controller, cost_aware, heuristics
from ltd_jax.policies.controller import Controller
from ltd_jax.policies.settings import Parts, Setting, size_index


def ddd(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """Dynamic depth decoding."""
    checked = np.isin(np.arange(1, config.max_levels + 1), setting["checks"])
    params = heuristics.MassParams(
        _f32(setting, "threshold"),
        jnp.asarray(checked),
        _i32(setting, "most"),
        _size(config, setting),
    )
    return heuristics.mass_rule(), params


def svip(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """SVIP."""
    return heuristics.entropy_rule(), heuristics.EntropyParams(
        threshold=_f32(setting, "threshold"),
        scale=_f32(setting, "scale"),
        most=_i32(setting, "most"),
        size=_size(config, setting),
    )


def gammatune(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """GammaTune, and with a confidence above 0 GammaTune+."""
    if setting["start"][0] < 1:
        raise UserError(f"gammatune: start is {setting['start'][0]:g} but must be at least 1.")
    keys = ("start", "share", "step", "least", "most", "confidence")
    numbers = {key: _f32(setting, key) for key in keys}
    params = heuristics.GammaParams(**numbers, size=_size(config, setting))
    return heuristics.gamma_rule(config), params


def tiers(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """EMA tiers."""
    levels, sizes = setting["levels"], setting["sizes"]
    if len(levels) != len(sizes) or list(levels) != sorted(set(levels)):
        raise UserError(
            "tiers: levels must rise and have one size each, like levels=1/3,sizes=2/8."
        )
    if setting["start"][0] >= len(levels):
        raise UserError(
            f"tiers: start is {setting['start'][0]:g} but the tiers are numbered 0 to "
            f"{len(levels) - 1}."
        )
    return heuristics.tier_rule(), heuristics.TierParams(
        levels=jnp.asarray(levels, jnp.int32),
        size=jnp.asarray([size_index(config, size) for size in sizes], jnp.int32),
        start=_i32(setting, "start"),
        share=_f32(setting, "share"),
        every=_i32(setting, "every"),
        warm_up=_i32(setting, "warm_up"),
        up=_f32(setting, "up"),
        down=_f32(setting, "down"),
    )


def disco(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """Disco; needs its classifier."""
    network, width = _head(parts, "disco")
    return classifiers.disco(width), classifiers.DiscoParams(
        network, _f32(setting, "threshold"), _i32(setting, "most"), _size(config, setting)
    )


def specdec(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """SpecDec++; needs its classifier."""
    network, width = _head(parts, "specdec")
    aggregate: classifiers.Aggregate = "any" if setting["any"][0] else "sum"
    return classifiers.survival(config, width, aggregate), classifiers.SurvivalParams(
        network=network,
        threshold=_f32(setting, "threshold"),
        least=_i32(setting, "least"),
        most=_i32(setting, "most"),
        size=_size(config, setting),
    )


def c2t(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """C2T; needs its classifier."""
    network, width = _head(parts, "c2t")
    return classifiers.node_classifier(config, width), classifiers.NodeParams(
        network=network,
        threshold=_f32(setting, "threshold"),
        most_nodes=_i32(setting, "nodes"),
        most=_i32(setting, "most"),
    )


def constant(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """A fixed setting."""
    size_index(config, setting["size"][0])
    try:
        params = controller.constant_params(
            int(setting["levels"][0]), int(setting["size"][0]), config
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return controller.constant(), params


def cost_aware_tree(config: CycleConfig, setting: Setting, parts: Parts) -> tuple[Controller, Any]:
    """The cost-aware tree; needs a device's costs."""
    costs = parts.costs
    assert costs is not None  # whoever builds asks `needs_costs` first
    throughput = setting["speedup"][0] / costs.plain_seconds
    power = np.ones(config.max_levels) if parts.power is None else parts.power
    return cost_aware.cost_rule(config), cost_aware.CostParams(
        throughput=jnp.float32(throughput),
        ratio=_f32(setting, "ratio"),
        power=jnp.asarray(power, jnp.float32),
        contexts=jnp.asarray(costs.contexts, jnp.float32),
        draft_seconds=jnp.asarray(costs.draft_seconds, jnp.float32),
        verify_seconds=jnp.asarray(costs.verify_seconds, jnp.float32),
    )


def _head(parts: Parts, name: str) -> tuple[Any, int]:
    assert parts.heads is not None and parts.widths is not None  # asked for by `Family.head`
    return parts.heads[name], parts.widths[name]


def _f32(setting: Setting, key: str) -> jax.Array:
    return jnp.float32(setting[key][0])


def _i32(setting: Setting, key: str) -> jax.Array:
    return jnp.int32(setting[key][0])


def _size(config: CycleConfig, setting: Setting) -> jax.Array:
    return jnp.int32(size_index(config, setting["size"][0]))
