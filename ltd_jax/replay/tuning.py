"""Tuning the compared methods: settings tried on a replay, all with the same budget."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ltd_jax.config import CycleConfig
from ltd_jax.policies import catalogue
from ltd_jax.policies.catalogue import Family
from ltd_jax.policies.controller import Controller
from ltd_jax.policies.settings import Parts, Setting
from ltd_jax.replay import cycles, overhead
from ltd_jax.replay.cycles import Replay
from ltd_jax.replay.overhead import Overhead


class Tuned(NamedTuple):
    """A method at one setting, and what the replay that it was tried on predicts."""

    family: Family
    setting: Setting
    controller: Controller
    params: Any
    overhead: Overhead
    tokens_per_second: float


def published(
    replay: Replay,
    config: CycleConfig,
    family: Family,
    parts: Parts,
    own: Callable[[str, Controller, Any], Overhead],
) -> Tuned:
    """A method at its published setting.

    Args:
      own: what the decisions of a method cost, by its name, controller and parameters.
    """
    setting = family.published(config)
    controller, params = family.build(config, setting, parts)
    cost = own(family.name, controller, params)
    rate = _rate(overhead.with_overhead(replay, cost), config, controller, params)
    return Tuned(family, setting, controller, params, cost, float(rate))


def best(replay: Replay, config: CycleConfig, first: Tuned, parts: Parts) -> Tuned:
    """The best of a method's grid by throughput; of equal ones the first.

    Args:
      first: the method at its published setting, whose own time all settings share.
    """
    family = first.family
    settings = [first.setting | given for given in family.grid(config)]
    if len(settings) > catalogue.BUDGET:
        raise ValueError(f"{family.name} has a grid of {len(settings)} settings.")
    if not settings:
        return first
    priced = overhead.with_overhead(replay, first.overhead)
    made = [family.build(config, setting, parts) for setting in settings]
    controller = made[0][0]
    rates = [float(_rate(priced, config, controller, params)) for _, params in made]
    chosen = int(np.argmax(rates))
    found = (settings[chosen], controller, made[chosen][1], first.overhead, rates[chosen])
    return Tuned(family, *found)


def _rate(replay: Replay, config: CycleConfig, controller: Controller, params: Any) -> jax.Array:
    return cycles.throughput(cycles.run(replay, config, controller, params, learned=True))
