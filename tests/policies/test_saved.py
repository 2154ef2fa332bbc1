"""Policies come back as they were, and only for what they were trained for."""

import jax
import numpy as np
import pytest

from ltd_jax import checkpoint, files
from ltd_jax.config import CycleConfig, ObservationConfig, PolicyConfig
from ltd_jax.files import UserError
from ltd_jax.policies import networks, saved

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 2, 5), context=32, prefill_chunk=8)
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,), ObservationConfig(top_k_probs=3, acceptance_ema=True))
ORIGIN = {"fingerprint": "pair-1", "latency": "table-1", "device": "a machine"}


@pytest.fixture
def folder(tmp_path):
    params = networks.init_learned(jax.random.key(1), CYCLE, WIDTHS)
    saved.save(tmp_path / "policies", params, CYCLE, WIDTHS, ORIGIN)
    return tmp_path / "policies"


def test_a_folder_alone_is_enough(folder):
    found = saved.load(folder)
    params = networks.init_learned(jax.random.key(1), CYCLE, WIDTHS)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert (found.cycle, found.widths) == (CYCLE, WIDTHS)
    assert found.provenance.items() >= ORIGIN.items()


def test_what_was_saved_is_bound_to_no_device(folder):
    """Else the cycle is compiled twice: for the first state, and for the one that it returns."""
    assert not any(leaf.committed for leaf in jax.tree.leaves(saved.load(folder).params))


def test_the_newest_is_read(folder):
    newer = networks.init_learned(jax.random.key(2), CYCLE, WIDTHS)
    saved.save(folder, newer, CYCLE, WIDTHS, ORIGIN)
    jax.tree.map(np.testing.assert_array_equal, saved.load(folder).params, newer)


def test_the_pair_and_the_device_must_be_theirs(folder):
    found = saved.load(folder)
    saved.check(found, "pair-1", "a machine", other_device=False)
    with pytest.raises(UserError, match="trained for pair pair-1, not pair-2"):
        saved.check(found, "pair-2", "a machine", other_device=True)
    with pytest.raises(UserError, match="for a machine, not another; .*--allow-other-hardware"):
        saved.check(found, "pair-1", "another", other_device=False)
    with pytest.warns(UserWarning, match="for a machine, not another; .* may be slow here"):
        saved.check(found, "pair-1", "another", other_device=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="There are no policies in .*nowhere; train them by"):
        saved.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="There are no policies in .*; train them by"):
        saved.load(tmp_path)


def test_another_version_is_named(tmp_path):
    params = networks.init_learned(jax.random.key(1), CYCLE, WIDTHS)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, params, ORIGIN | {"cycle": {"width": 3}, "policy": {}})
    with pytest.raises(UserError, match="of another version .*; train them again"):
        saved.load(tmp_path)


def test_another_number_of_devices_is_other_hardware(tmp_path):
    params = networks.init_learned(jax.random.key(1), CYCLE, WIDTHS)
    four = files.device_name(4)
    saved.save(tmp_path / "4", params, CYCLE, WIDTHS, ORIGIN | {"device": four})
    found = saved.load(tmp_path / "4")
    saved.check(found, "pair-1", four, False)
    with pytest.raises(UserError, match="split over 4, not .*; give --devices 4, or measure and"):
        saved.check(found, "pair-1", files.device_name(), False)
    with pytest.raises(UserError, match="split over 4, not another machine; measure and"):
        saved.check(found, "pair-1", "another machine", False)


def test_another_dtype_is_other_hardware(tmp_path):
    params = networks.init_learned(jax.random.key(1), CYCLE, WIDTHS)
    saved.save(tmp_path, params, CYCLE, WIDTHS, ORIGIN | {"dtype": "float32"})
    found = saved.load(tmp_path)
    saved.check(found, "pair-1", "a machine", False, "float32")
    with pytest.raises(UserError, match="a machine in float32, not a machine in bfloat16"):
        saved.check(found, "pair-1", "a machine", False, "bfloat16")
    with pytest.warns(UserWarning, match="in float32, not a machine in bfloat16"):
        saved.check(found, "pair-1", "a machine", True, "bfloat16")
