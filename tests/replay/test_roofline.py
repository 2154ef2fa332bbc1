"""Modelled times beside the same arithmetic by hand."""

import numpy as np
import pytest

from ltd_jax import presets
from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.replay import roofline
from ltd_jax.replay.roofline import Accelerator, Work

SLOW = Accelerator("slow", bytes_per_second=1e6, operations_per_second=1e7)
TARGET, DRAFT = presets.EMBEDDED_TARGET, presets.EMBEDDED_DRAFT
CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 8, 32), context=64)
# q, k, v, o, three feed-forward maps and two norms of each layer; the head
LAYER = 2 * 256 * 256 + 2 * 256 * 64 + 3 * 256 * 640 + 2 * 256
WEIGHTS = 12 * LAYER + 256 * 2048


def test_a_pass_takes_what_it_reads_or_what_it_multiplies():
    assert Work(8e5, 1.0, 0).seconds(SLOW) == pytest.approx(1.0)
    assert Work(1.0, 1e7, 0).seconds(SLOW) == pytest.approx(2.0)
    assert Work(8e5, 1e7, 3).seconds(SLOW) == pytest.approx(2.0 + 3e-5)


def test_a_target_pass_reads_weights_and_cache_once():
    one, many = (roofline.target_pass(TARGET, rows, 100) for rows in (1, 30))
    assert one.bytes == many.bytes == 2 * (WEIGHTS + 2 * 12 * 2 * 32 * 100)
    assert many.operations == 30 * one.operations == 60 * (WEIGHTS + 2 * 12 * 8 * 32 * 100)
    assert one.layers == 12


def test_only_the_first_draft_pass_fuses_features():
    first, second = (roofline.draft_pass(DRAFT, CYCLE, level, 100) for level in (1, 2))
    assert first.bytes - second.bytes == 2 * 3 * 256 * 256


def test_the_table_is_the_sum_of_its_passes():
    table = roofline.table(SLOW, TARGET, DRAFT, CYCLE, PolicyConfig((8,), (8,), (8,), (8,)), "tiny")
    passes = [roofline.draft_pass(DRAFT, CYCLE, level, 1024).seconds(SLOW) for level in (1, 2, 3)]
    verify = roofline.target_pass(TARGET, 33, 1024).seconds(SLOW)
    np.testing.assert_allclose(table.draft_seconds[1], np.cumsum(passes))
    assert table.cycle_seconds[1, 2, 2] == pytest.approx(sum(passes) + verify)
    assert table.plain_seconds[1] == roofline.target_pass(TARGET, 1, 1024).seconds(SLOW)
    assert table.provenance["kind"] == "modelled" and "modelled" in table.provenance["device"]
    bytes_of_depth = 4 * ((4 * 4 + 2) * 8 + 8 + 8 * 2 + 2)
    assert table.depth_seconds == pytest.approx(bytes_of_depth / 8e5 + 1e-5)
