"""What every way of learning takes and gives: replays in, policies and their curves out."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np

from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig
from ltd_jax.learning.stage import Point
from ltd_jax.policies.networks import LearnedParams, PolicyParams
from ltd_jax.replay.cycles import Replay


class Replays(NamedTuple):
    """What to learn and to validate on."""

    train: Replay
    validation: Replay


@dataclasses.dataclass(frozen=True)
class Learned:
    """What a training gave."""

    policies: PolicyParams
    stages: dict[str, LearnedParams]  # by stage: its policy and the other one (None = none yet)
    curves: list[Point]

    @property
    def params(self) -> LearnedParams:
        """For the controller `networks.learned`."""
        return self.policies.learned


def settings(
    replays: Replays, config: CycleConfig, widths: PolicyConfig, learning: LearningConfig
) -> dict[str, Any]:
    """What a resumed training must have in common with its beginning."""
    return {
        "cycle": dataclasses.asdict(config),
        "policy": dataclasses.asdict(widths),
        "learning": dataclasses.asdict(learning),
        "replay": dict(zip(Replays._fields, map(_fingerprint, replays), strict=True)),
    }


def _fingerprint(replay: Replay) -> str:
    """12 hex characters over all but the scores, which `accepted` comes from."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(replay.replace(score=())):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]
