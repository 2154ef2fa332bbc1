import dataclasses

import jax
import numpy as np
import pytest

from experiments.studies import bench_learning
from ltd_jax.config import CycleConfig, LearningConfig, PolicyConfig, PPOConfig
from ltd_jax.learning.loop import CurvePoint
from ltd_jax.replay import simulate
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 2, 4), context=64)
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,))
PPO = PPOConfig(total_steps=64, environments=4, rollout=32, minibatch=32, epochs=2)


def curve(*rows: tuple[str, float, float]) -> list[CurvePoint]:
    """Points of (stage, seconds within it, validation)."""
    blank = CurvePoint("", 0, 0, 0.0, None, None, None, None, None, 0.0)
    return [
        dataclasses.replace(blank, stage=stage, decisions=100, seconds=seconds, validation=score)
        for stage, seconds, score in rows
    ]


def test_seconds_run_on_from_stage_to_stage():
    stages = curve(("a", 1, 5), ("a", 4, 6), ("b", 2, 7), ("b", 3, 8), ("c", 1, 9))
    assert bench_learning.seconds_of(stages) == [1, 4, 6, 7, 8]
    assert bench_learning.rate_of_training(curve(("a", 1, 5), ("b", 3, 8))) == 200 / 4


def test_time_to_the_quality_of_the_paper_s_end():
    paper = curve(("a", 10, 99), ("b", 20, 7), ("b", 70, 6))  # at its end 7, after 80 s
    quality = bench_learning.time_to_quality(paper, curve(("joint", 2, 5), ("joint", 4, 7.5)))
    assert quality["time_to_quality_ratio"] == 80 / 4 and quality["paper_validation"] == 7
    assert quality["almost_seconds"] == {"paper": 10, "default": 4}
    never = bench_learning.time_to_quality(paper, curve(("joint", 2, 5)))
    assert never["time_to_quality_ratio"] is None and never["default_validation"] == 5
    assert never["almost_seconds"]["default"] is None


def test_the_mix_of_a_schedule():
    learning = LearningConfig(
        size=PPO, depth=dataclasses.replace(PPO, total_steps=640), alternations=3
    )
    # size alone, iter1, iter3: 3 x 64; depth alone, iter2: 2 x 640
    mixed = bench_learning.rate_of_schedule({"size": 10.0, "depth": 100.0}, learning)
    assert mixed == pytest.approx((192 + 1280) / (192 / 10 + 1280 / 100))
    short = bench_learning.shorten(learning, 0.1)
    assert (short.size.total_steps, short.depth.total_steps) == (6, 64)


def test_environments_and_training_run():
    trace = synthetic.trace(CONFIG, text_tokens=(9, 12))
    simulator = simulate.build(trace, synthetic.table(CONFIG), CONFIG)
    made = bench_learning.environments(simulator)
    assert bench_learning.environment_rate(*made["depth"], walks=4, steps=5, rounds=1) > 0
    environment, data = made["size"]
    update = bench_learning.ppo_update("size", environment, WIDTHS, PPO, data)
    first, second = (jax.tree.leaves(update())[0] for _ in range(2))
    assert not np.array_equal(first, second)
