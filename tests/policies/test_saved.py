"""Policies come back as they were, and only for what they were trained for."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from ltd_jax import files
from ltd_jax.config import CycleConfig, ObservationConfig, PolicyConfig
from ltd_jax.files import Identity, UserError
from ltd_jax.policies import networks, saved

CYCLE = CycleConfig(beam_width=4, max_levels=3, sizes=(0, 2, 5), context=32, prefill_chunk=8)
WIDTHS = PolicyConfig((8,), (8,), (8,), (8,), ObservationConfig(top_k_probs=3, acceptance_ema=True))
ORIGIN = {"fingerprint": "pair-1", "latency": "table-1", "device": "a machine"}
HERE = Identity(pair="pair-1", device="a machine", dtype="float32")


def policy(seed: int = 1) -> networks.Learned:
    return networks.init(jax.random.key(seed), CYCLE, WIDTHS)


def written(tmp_path, **origin):
    path = tmp_path / "new" / "policy.safetensors"
    saved.save(policy(), path, CYCLE, ORIGIN | origin)
    return path


def test_a_file_alone_is_enough(tmp_path):
    found = saved.load(written(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, found.policy.traced(), policy().traced())
    assert (found.cycle, found.policy.widths) == (CYCLE, WIDTHS)
    assert found.provenance == ORIGIN
    assert (found.policy.origin.pair, found.policy.origin.latency) == ("pair-1", "table-1")


def test_any_tool_reads_the_file(tmp_path):
    with safetensors.safe_open(written(tmp_path), framework="np") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert {"depth.Dense_0.kernel", "depth.Dense_1.bias", "size.Dense_0.kernel"} <= names
    assert json.loads(metadata["provenance"]) == ORIGIN
    assert json.loads(metadata["cycle"])["beam_width"] == 4


def test_what_was_saved_is_bound_to_no_device(tmp_path):
    """Else the cycle is compiled twice: for the first state, and for the one that it returns."""
    found = saved.load(written(tmp_path)).policy
    assert not any(leaf.committed for leaf in jax.tree.leaves(found))


def test_the_newest_is_read(tmp_path):
    path = written(tmp_path)
    saved.save(policy(2), path, CYCLE, ORIGIN)
    jax.tree.map(
        np.testing.assert_array_equal, saved.load(path).policy.traced(), policy(2).traced()
    )


def test_the_pair_and_the_device_must_be_theirs(tmp_path):
    found = saved.load(written(tmp_path))
    saved.check(found, HERE)
    with pytest.raises(UserError, match="trained for pair pair-1, not pair-2"):
        other = dataclasses.replace(HERE, pair="pair-2")
        saved.check(found, other, other_hardware=True)
    other = dataclasses.replace(HERE, device="another")
    with pytest.raises(UserError, match="for a machine, not another; .*`allow_other_hardware`"):
        saved.check(found, other)
    with pytest.warns(UserWarning, match="for a machine, not another; .* may be slow here"):
        saved.check(found, other, other_hardware=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="There is no policy file .*nowhere; check the path"):
        saved.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="There is no policy file"):
        saved.load(tmp_path)


def test_another_version_is_named(tmp_path, monkeypatch):
    path = written(tmp_path)
    monkeypatch.setattr(saved, "SCHEMA", "2")
    with pytest.raises(UserError, match="has schema 1, this version reads 2; train them again"):
        saved.load(path)


def test_damaged_files_are_named(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged: its weights are not what was saved"):
        saved.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is no policy file or is damaged"):
        saved.load(path)


def test_weights_that_are_no_numbers_are_neither_written_nor_read(tmp_path, monkeypatch):
    path, broken = tmp_path / "p.safetensors", jax.tree.map(lambda leaf: leaf * jnp.nan, policy())
    with pytest.raises(UserError, match=r"Cannot write .*: depth.Dense_0.*\[0.*\] is nan"):
        saved.save(broken, path, CYCLE, ORIGIN)
    with pytest.raises(UserError, match="Cannot write .*rate is infinite"):
        saved.save(policy(), path, CYCLE, ORIGIN | {"rate": float("inf")})
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as unchecked:
        unchecked.setattr("ltd_jax.files.require_finite", lambda *args, **kwargs: None)
        saved.save(broken, path, CYCLE, ORIGIN)
    with pytest.raises(UserError, match="p.safetensors is of no use: depth.* is nan"):
        saved.load(path)


def test_another_number_of_devices_is_other_hardware(tmp_path):
    four = files.device_name(4)
    found = saved.load(written(tmp_path, device=four))
    saved.check(found, dataclasses.replace(HERE, device=four))
    with pytest.raises(UserError, match="split over 4, not .*; give `devices` 4, or measure and"):
        saved.check(found, dataclasses.replace(HERE, device=files.device_name()))
    with pytest.raises(UserError, match="split over 4, not another machine; measure and"):
        saved.check(found, dataclasses.replace(HERE, device="another machine"))


def test_another_dtype_is_other_hardware(tmp_path):
    found = saved.load(written(tmp_path, dtype="float32"))
    saved.check(found, HERE)
    half = dataclasses.replace(HERE, dtype="bfloat16")
    with pytest.raises(UserError, match="a machine in float32, not a machine in bfloat16"):
        saved.check(found, half)
    with pytest.warns(UserWarning, match="in float32, not a machine in bfloat16"):
        saved.check(found, half, other_hardware=True)
