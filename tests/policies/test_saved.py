"""Policies come back as they were, and only for what they were trained for."""

import jax
import numpy as np
import pytest

from ltd_jax.config import CycleConfig, PolicyConfig
from ltd_jax.errors import UserError
from ltd_jax.policies import networks, saved

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 2, 5), context=32, prefill_chunk=8)
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,))
ORIGIN = {"fingerprint": "pair-1", "latency": "table-1"}


@pytest.fixture
def folder(tmp_path):
    params = networks.init_learned(jax.random.key(1), CYCLE, WIDTHS)
    saved.save(tmp_path / "policies", params, CYCLE, WIDTHS, ORIGIN)
    return tmp_path / "policies"


def load(folder, **changes):
    return saved.load(folder, CYCLE, WIDTHS, **(ORIGIN | changes))


def test_round_trip(folder):
    params = networks.init_learned(jax.random.key(1), CYCLE, WIDTHS)
    jax.tree.map(np.testing.assert_array_equal, load(folder), params)


def test_the_newest_is_read(folder):
    newer = networks.init_learned(jax.random.key(2), CYCLE, WIDTHS)
    saved.save(folder, newer, CYCLE, WIDTHS, ORIGIN)
    jax.tree.map(np.testing.assert_array_equal, load(folder), newer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": "pair-2"}, "trained for pair pair-1, not pair-2"),
        ({"latency": "table-2"}, "trained for latency table table-1, not table-2"),
    ],
)
def test_another_pair_or_table_is_refused(folder, change, words):
    with pytest.raises(UserError, match=words):
        load(folder, **change)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="There are no policies in .*nowhere; train them first"):
        load(tmp_path / "nowhere")
