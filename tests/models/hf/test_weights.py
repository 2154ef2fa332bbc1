"""Weights: round trips bit for bit; what does not fit is refused or reported."""

import dataclasses
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from tests.models.folders import DRAFT, TARGET, TOKENS, draft_params, edit, target_params
from tests.models.refusal import refusal

DTYPES = pytest.mark.parametrize("dtype", (np.float32, ml_dtypes.bfloat16), ids=("f32", "bf16"))


@pytest.fixture
def folder(tmp_path) -> Path:
    hf_weights.save_target(tmp_path, TARGET, target_params(), np.float32)
    return tmp_path


@pytest.fixture
def draft_folder(tmp_path) -> Path:
    hf_weights.save_draft(tmp_path, DRAFT, draft_params(), np.float32)
    return tmp_path


def load_target(folder: Path):
    return hf_weights.load_target(folder, jnp.float32)


def load_draft(folder: Path):
    found = hf_weights.load_draft(folder, TARGET, draft_params().embedding, jnp.float32)
    return found.config, found.params


def rewrite(folder: Path, change) -> None:
    """Changes the dict of tensors in place and writes it back."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    settings = hf_tensors.read_json(folder / "config.json")
    hf_tensors.write_folder(folder, settings, tensors)


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


@DTYPES
@pytest.mark.parametrize("tied", (False, True))
def test_target_round_trip(tmp_path, dtype, tied):
    config = dataclasses.replace(TARGET, tie_embeddings=tied)
    params = target_params(config, dtype)
    hf_weights.save_target(tmp_path, config, params, dtype)
    found_config, found = hf_weights.load_target(tmp_path, dtype)
    assert found_config == config
    assert_same_bits(found, params)


@DTYPES
def test_draft_round_trip(tmp_path, dtype):
    params = draft_params(dtype=dtype)
    hf_weights.save_draft(tmp_path, DRAFT, params, dtype)
    found = hf_weights.load_draft(tmp_path, TARGET, params.embedding, dtype)
    assert found.config == DRAFT
    assert_same_bits(found.params, params)


def test_draft_files_are_those_of_eagle3(draft_folder):
    tensors = load_file(draft_folder / "model.safetensors")
    np.testing.assert_array_equal(tensors["d2t"], TOKENS - np.arange(8))
    np.testing.assert_array_equal(np.flatnonzero(tensors["t2d"]), TOKENS)
    assert tensors["midlayer.self_attn.q_proj.weight"].shape == (12, 24)
    assert tensors["fc.weight"].shape == (12, 36)
    assert "embed_tokens.weight" not in tensors


def test_draft_of_another_width_brings_its_embedding(tmp_path):
    config = dataclasses.replace(DRAFT, hidden_size=10)
    params = draft_params(config)
    hf_weights.save_draft(tmp_path, config, params, np.float32)
    found_config, found = load_draft(tmp_path)
    assert found_config == config
    assert_same_bits(found, params)
    rewrite(tmp_path, lambda tensors: tensors.pop("embed_tokens.weight"))
    assert "embed_tokens.weight" in refusal(lambda: load_draft(tmp_path))


def test_draft_without_d2t_speaks_of_all_tokens(tmp_path):
    config = dataclasses.replace(DRAFT, draft_vocab_size=24)
    params = draft_params(config, tokens=np.arange(24))
    hf_weights.save_draft(tmp_path, config, params, np.float32)
    rewrite(tmp_path, lambda tensors: (tensors.pop("d2t"), tensors.pop("t2d")))
    edit(tmp_path, draft_vocab_size=None)
    assert_same_bits(load_draft(tmp_path)[1], params)


def test_stored_narrow_loaded_wide(tmp_path):
    params = target_params()
    hf_weights.save_target(tmp_path, TARGET, params, ml_dtypes.bfloat16)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)
    assert_same_bits(load_target(tmp_path)[1], rounded)


def test_shards_are_loaded_as_one_file_is(folder):
    whole = load_target(folder)
    hf_weights.save_target(folder, TARGET, target_params(), np.float32, shard_bytes=4000)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert (folder / hf_tensors.INDEX).exists()
    assert_same_bits(load_target(folder)[1], whole[1])


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    (
        ("Qwen2ForCausalLM", {"q_proj.bias": 16, "k_proj.bias": 8, "v_proj.bias": 8}),
        ("Qwen3ForCausalLM", {"q_norm.weight": 4, "k_norm.weight": 4}),
    ),
)
def test_qwen_families(folder, architecture, sizes):
    extra = {
        f"model.layers.{layer}.self_attn.{name}": np.full(size, layer + 1, np.float32)
        for layer in range(TARGET.layer_count)
        for name, size in sizes.items()
    }
    rewrite(folder, lambda tensors: tensors.update(extra))
    edit(folder, architectures=[architecture])
    with warnings.catch_warnings(action="error"):
        config, params = load_target(folder)
    layer = params.layers[3]
    found = layer.qkv_bias or layer.qk_norms
    for array, size in zip(found, sizes.values(), strict=True):
        np.testing.assert_array_equal(array, np.full(size, 4.0))
    hf_weights.save_target(folder, config, params, np.float32)
    found_config, found = load_target(folder)
    assert found_config == config
    assert_same_bits(found, params)


def test_missing_tensor_and_wrong_shape(folder):
    name = "model.layers.4.mlp.up_proj.weight"
    rewrite(folder, lambda tensors: tensors.update({name: tensors[name].T}))
    message = refusal(lambda: load_target(folder))
    assert name in message and str(folder / "model.safetensors") in message
    rewrite(folder, lambda tensors: tensors.pop(name))
    message = refusal(lambda: load_target(folder))
    assert name in message and str(folder) in message


@pytest.mark.parametrize(("token", "offset"), ((24, 17), (-3, -10)))
def test_d2t_out_of_range(draft_folder, token, offset):
    rewrite(draft_folder, lambda tensors: tensors["d2t"].__setitem__(7, offset))
    message = refusal(lambda: load_draft(draft_folder))
    for word in ("d2t", str(draft_folder), str(token), "24"):
        assert word in message


def test_all_tensors_are_used(folder):
    with warnings.catch_warnings(action="error"):
        load_target(folder)
