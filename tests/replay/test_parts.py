"""Parts that are timed alone run one round after the other."""

import dataclasses

import jax.numpy as jnp
import pytest
from flax import struct

from ltd_jax.files import UserError
from ltd_jax.policies import policy as policy_module
from ltd_jax.replay import profile
from ltd_jax.replay.profile import CycleTimer
from tests.cycle import tiny


@struct.dataclass
class Found:
    token: jnp.ndarray


def test_every_round_starts_from_the_token_before():
    part = lambda token, step: Found(jnp.stack([token * 2, token + step]))
    found = profile.in_a_row(part)(jnp.int32(3), jnp.int32(5))
    before = 3 * 2 ** (profile.ROUNDS - 1)
    assert found.token.tolist() == [2 * before, before + 5]


def test_seconds_by_levels_and_by_size():
    cycle = dataclasses.replace(tiny.CONFIG.cycle, max_levels=2, sizes=(0, 8), short_catch_ups=())
    pair = dataclasses.replace(tiny.pair(0), config=dataclasses.replace(tiny.CONFIG, cycle=cycle))
    clock = CycleTimer(pair, policy_module.constant(), 8, 1)
    draft_D, verify_V = profile.part_seconds(pair, clock.rewound())
    assert draft_D.shape == (2,) and verify_V.shape == (2,)
    assert (draft_D > 0).all() and (verify_V > 0).all()
    setting = policy_module.constant_params(1, 0, cycle)
    clock.cycle_seconds(setting)  # its state is still whole
    late = CycleTimer(pair, policy_module.constant(), cycle.context - 5, 1)
    with pytest.raises(UserError, match=f"no room to time cycles behind {cycle.context - 5} token"):
        late.cycle_seconds(setting)
