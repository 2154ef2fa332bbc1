"""Learning one pair of policies for many latency tables: they see the table that they serve.

Exact learning on a replay whose texts stand under different tables; what the networks read begins
with the costs of the text's table. A validation is the throughput on the validation texts in the
same way, as a ratio over the best constant settings.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import many_tables, observing_policies
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning import environment, exact, loop
from ltd_jax.learning.environment import Observations
from ltd_jax.learning.loop import Algorithm, Point, Splits, Stage
from ltd_jax.policies.networks import ActorCritic, LearnedParams, PolicyParams
from ltd_jax.replay import latency
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import Simulator

COPIES = 2  # of every text, each under a table of its own


class Observing(NamedTuple):
    """What a training gave."""

    params: LearnedParams  # of observing policies; see policies.observing.specialised
    curves: list[Point]


def train(
    replays: Splits,
    known: Sequence[LatencyTable],
    config: CycleConfig,
    widths: PolicyConfig,
    learning: LearningConfig,
    *,
    folder: Path | None = None,
    progress: Callable[[Point, float], None] = lambda point, share: None,
) -> Observing:
    """Trains both policies, or goes on where the folder's checkpoints end.

    Args:
      known: the tables.
      folder: for checkpoints; None = leave none.
      progress: called with every new point and the share that is done.

    Raises:
      UserError: the folder holds a training with other settings or tables.
    """
    if folder is not None:
        loop.claim(folder, _settings(replays, known, config, widths, learning))
    method = exact.method(config, widths, learning)._replace(fresh=fresh)
    learn, check = (lesson(replay, known, config, widths) for replay in replays)
    key, rate = jax.random.key(learning.seed), jnp.float32(1.0)
    state, points = loop.run_stage(
        Stage(
            name="observing",
            start=lambda: loop.init(method, key, rate, learn, check),
            advance=lambda state: loop.advance(method, state, learn, check),
            updates=method.updates,
        ),
        folder=None if folder is None else folder / "observing",
        provenance={},
        report=lambda point: progress(point, point.update / method.updates),
    )
    return Observing(state.best.learned, points)


def fresh(method: Algorithm, key: jax.Array) -> PolicyParams:
    """Random policies that read costs, too; no values are learned."""
    actors = observing_policies.init(key, method.config, method.policy)
    return PolicyParams(
        depth=ActorCritic(actor=actors.depth, critic=None),
        size=ActorCritic(actor=actors.size, critic=None),
    )


def lesson(
    replay: Simulator, known: Sequence[LatencyTable], config: CycleConfig, widths: PolicyConfig
) -> Observations:
    """A replay under the tables, and what its trees and tables show the policies."""
    under = many_tables.spread(replay, known, config, COPIES, seed=0)
    plain = environment.observe_all(under.replay, config, widths)
    seen = functools.partial(_after_costs, under.cost)
    return plain.replace(depth=seen(plain.depth), size=seen(plain.size))


def _after_costs(cost_PC: np.ndarray, view_PDO: jax.Array) -> jax.Array:
    shape = (*view_PDO.shape[:2], cost_PC.shape[1])
    return observing_policies.with_costs(jnp.broadcast_to(cost_PC[:, None], shape), view_PDO)


def _settings(
    replays: Splits,
    known: Sequence[LatencyTable],
    config: CycleConfig,
    widths: PolicyConfig,
    learning: LearningConfig,
) -> dict[str, Any]:
    return loop.resume_settings(replays, config, widths, learning) | {
        "tables": [latency.fingerprint(table) for table in known]
    }
