"""A small setting in which policies learn within a second, by every algorithm.

Learning and simulators of these shapes share their programs, also with the golden policies.
"""

import dataclasses

from ltd_jax.config import (
    CycleConfig,
    ExactConfig,
    LearningConfig,
    ObservationConfig,
    PolicyConfig,
    PPOConfig,
)
from ltd_jax.learning.loop import Splits
from ltd_jax.replay import simulate
from ltd_jax.replay.simulate import Simulator
from tests.replay import synthetic

CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4, 8), context=64)
POLICY = PolicyConfig(
    size_actor=(8,),
    size_critic=(8,),
    depth_actor=(8,),
    depth_critic=(8,),
    observation=ObservationConfig(top_k_probs=4, expected_tokens=True, acceptance_ema=True),
)
EXACT = LearningConfig(
    algorithm="exact",
    exact=ExactConfig(
        updates=7, environments=16, cycles=4, steps=4, minibatch=32, learning_rate=2e-2
    ),
    reward="average",
    validate_every=3,
)
JOINT = dataclasses.replace(
    EXACT,
    algorithm="joint",
    joint=PPOConfig(
        total_steps=7 * 128,
        environments=32,
        rollout=128,
        minibatch=64,
        epochs=2,
        learning_rate=1e-2,
        gamma=0.5,
    ),
)
_ONE = PPOConfig(total_steps=4 * 128, environments=32, rollout=128, minibatch=64, epochs=2)
ALTERNATE = dataclasses.replace(
    EXACT,
    algorithm="alternate",
    size=dataclasses.replace(_ONE, gamma=0.9),
    depth=dataclasses.replace(_ONE, gamma=0.999),
    alternations=2,
)

WIDE = dataclasses.replace(POLICY, size_actor=(64,), depth_actor=(64,))


def longer(learning: LearningConfig, updates: int) -> LearningConfig:
    """The same exact learning with more and smaller steps, and weights that do not decay."""
    exact = dataclasses.replace(
        learning.exact,
        updates=updates,
        environments=64,
        minibatch=256,
        steps=16,
        learning_rate=3e-3,
        weight_decay=0.0,
        entropy=0.6,
    )
    return dataclasses.replace(learning, exact=exact)


def simulator(seed: int, config: CycleConfig = CYCLE) -> Simulator:
    """Four texts with a table that makes levels and sizes cost."""
    trace = synthetic.trace(config, seed=seed, text_tokens=(24, 17, 20, 22))
    return simulate.build(trace, synthetic.table(config), config)


def splits() -> Splits:
    """To learn and to validate on."""
    return Splits(train=simulator(0), validation=simulator(1))
