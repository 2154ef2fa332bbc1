"""Draft folders in every public dialect: the same draft under all names, or one clear sentence."""

import dataclasses
import json
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from ltd_jax.config import Llama3Scaling
from ltd_jax.models import draft, eagle3, kv_cache
from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from tests.models.folders import DRAFT, TARGET, draft_params, edit
from tests.models.hf.test_config import LLAMA3
from tests.models.refusal import refusal
from tests.oracle import draft as oracle

SWITCHES = (
    {},
    {"norm_before_residual": True},
    {"norm_before_fc": True},
    {"norm_each_feature": True},
    {"norm_output": True},
    {"norm_before_residual": True, "norm_before_fc": True, "norm_output": True},
    {"qk_norm": True},
    {"attention_bias": True, "output_bias": True, "fuse_bias": True},
    {"layer_count": 3, "norm_before_residual": True, "norm_output": True, "qk_norm": True},
    {"feature_count": 4, "norm_each_feature": True},
    {"feature_count": 1, "norm_before_fc": True},
    {"layer_count": 2, "sliding_window": 2, "sliding_layers": (1,), "attention_bias": True},
)


@pytest.fixture
def folder(tmp_path) -> Path:
    hf_weights.save_draft(tmp_path, DRAFT, draft_params(), np.float32)
    return tmp_path


def load(folder, rope_theta=None, target=TARGET):
    """The folder's draft; unused tensors are an error."""
    with warnings.catch_warnings(action="error"):
        return hf_weights.load_draft(
            folder, target, draft_params().embedding, jnp.float32, rope_theta
        )


def rename(folder, change):
    """Writes all tensors back under other names; None leaves one out."""
    tensors = load_file(folder / "model.safetensors")
    settings = hf_tensors.read_json(folder / "config.json")
    renamed = {change(name): tensor for name, tensor in tensors.items() if change(name)}
    hf_tensors.write_folder(folder, settings, renamed)


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace("midlayer.", "layers.0."),
        lambda name: name.replace("midlayer.", "model.layers.0."),
        lambda name: f"model.{name}",
        lambda name: None if name == "t2d" else name.replace("midlayer.", "layers.0."),
    ],
)
def test_names_of_all_trainers(folder, change):
    rename(folder, change)
    same(load(folder).params, draft_params())


def test_the_verifiers_own_tensors_are_left_alone(folder):
    tensors = load_file(folder / "model.safetensors")
    copies = ("verifier_norm.weight", "verifier_lm_head.weight")
    tensors |= {name: np.zeros((2, 2), np.float32) for name in copies}
    settings = hf_tensors.read_json(folder / "config.json")
    hf_tensors.write_folder(folder, settings, tensors)
    same(load(folder).params, draft_params())


def test_the_official_form():
    """A torch file in half precision, a config.json without rope_theta and head_dim."""
    folder = Path(__file__).parents[1] / "golden" / "eagle_draft"
    found = load(folder)
    assert found.config == DRAFT and found.feature_layers is None
    narrow = jax.tree.map(
        lambda leaf: leaf if leaf.dtype == jnp.int32 else leaf.astype(jnp.float16), draft_params()
    )
    narrow = narrow.replace(embedding=draft_params().embedding)  # the target's, not stored
    same(found.params, jax.tree.map(lambda a, b: a.astype(b.dtype), narrow, draft_params()))


def test_one_tensor_under_two_names(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.fc.weight"] = tensors["fc.weight"]
    settings = hf_tensors.read_json(folder / "config.json")
    hf_tensors.write_folder(folder, settings, tensors)
    message = refusal(lambda: load(folder))
    assert "model.fc.weight" in message and str(folder) in message


def test_speculators_keep_the_layer_in_an_object_of_its_own(folder):
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    outer = {"draft_vocab_size", "tie_word_embeddings"}
    layer = {name: fields[name] for name in fields if name not in outer}
    speculators = {name: fields[name] for name in outer} | {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "transformer_layer_config": layer | {"rope_scaling": LLAMA3, "rope_theta": 5e5},
        "norm_before_residual": True,
        hf_config.LAYER_IDS: None,
        "target_hidden_size": None,
    }
    path.write_text(json.dumps(speculators))
    rename(folder, lambda name: name.replace("midlayer.", "layers.0."))
    found = load(folder)
    scaling = Llama3Scaling(8.0, 1.0, 4.0, 8192)
    expected = {"norm_before_residual": True, "rope_theta": 5e5, "rope_scaling": scaling}
    assert found.config == dataclasses.replace(DRAFT, **expected)


def test_modelopt_keeps_flags_in_eagle_config(folder):
    edit(folder, eagle_config={hf_config.LAYER_IDS: [2, 4, 7], "use_aux_hidden_state": True})
    assert load(folder).feature_layers == (2, 4, 7)  # 7 of 7: what leaves the last layer


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_switch_is_the_oracles_and_survives_a_round_trip(tmp_path, switches):
    config = dataclasses.replace(DRAFT, **switches)
    params = draft_params(config)
    hf_weights.save_draft(tmp_path, config, params, np.float32)
    found = load(tmp_path)
    assert found.config == config
    same(found.params, params)
    random, T = np.random.default_rng(0), 5
    tokens = random.integers(0, config.vocab_size, T)
    features = random.normal(size=(T, 12 * config.feature_count)).astype(np.float32)
    fused = draft.fuse(found.params, config, jnp.asarray(features))
    hidden, _ = draft.forward(
        found.params,
        config,
        jnp.asarray(tokens),
        fused,
        jnp.arange(T),
        kv_cache.empty(config, 8, jnp.float32),
        draft.empty_block(config, T, jnp.float32),
        0,
        jnp.tril(jnp.ones((T, T), bool)),
    )
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    wide_fused = oracle.fuse(wide, config, features)
    expected = oracle.forward(wide, config, tokens, wide_fused, np.arange(T), np.tri(T) > 0)
    np.testing.assert_allclose(hidden, expected, rtol=1e-4, atol=1e-4)
    log_probs = draft.log_probs(found.params, config, hidden)
    wanted = oracle.log_probs(wide, config, expected)
    np.testing.assert_allclose(log_probs, wanted, rtol=1e-4, atol=1e-4)


def test_switches_change_the_draft():
    """Each of them, so that none of the comparisons above is empty."""
    random = np.random.default_rng(0)
    features = random.normal(size=(4, 36)).astype(np.float32)
    params = draft_params(dataclasses.replace(DRAFT, norm_before_fc=True))
    plain = np.asarray(draft.fuse(params, DRAFT, jnp.asarray(features)))
    for name in ("norm_before_fc", "norm_each_feature"):
        config = dataclasses.replace(DRAFT, **{name: True})
        assert not np.allclose(draft.fuse(params, config, jnp.asarray(features)), plain)
    fused, mixed = jnp.asarray(plain), jnp.zeros((4, 12))
    for name in ("norm_before_residual", "norm_output"):
        config = dataclasses.replace(DRAFT, **{name: True})
        found = eagle3.output(params, config, fused, mixed)
        assert not np.allclose(found, eagle3.output(params, DRAFT, fused, mixed))


def test_head_dim_is_that_of_the_weights(folder):
    edit(folder, head_dim=5)
    found = load(folder)
    assert found.config.head_dim == DRAFT.head_dim
    assert any("head_dim is 6" in doubt for doubt in found.doubts)
    edit(folder, num_attention_heads=5, num_key_value_heads=1)
    assert "12 rows" in refusal(lambda: load(folder))


@pytest.mark.parametrize(
    ("fields", "override", "theta", "words"),
    [
        ({"rope_theta": None}, None, 10_000.0, "names none"),
        ({"rope_theta": 1e6}, None, 1e6, "try 10000 too"),
        ({"rope_theta": 1e4}, None, 1e4, "from rope_theta"),
        (
            {"rope_theta": None, "rope_parameters": {"rope_theta": 5e5}},
            None,
            5e5,
            "rope_parameters",
        ),
        ({"rope_theta": 1e6}, 1e4, 1e4, "as asked for"),
    ],
)
def test_the_rope_base_and_why(folder, fields, override, theta, words):
    edit(folder, **fields)
    found = load(folder, override)
    assert found.config.rope_theta == theta
    assert any("RoPE base" in remark and words in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("named", "layers"),
    [(None, None), ([2, 3, 4], (2, 3, 4)), ([1, 2, 3], (2, 3, 4)), ([1, 3, 5], (2, 4, 6))],
)
def test_feature_layers_are_those_the_stream_enters(folder, named, layers):
    """[1, 2, 3] of 7 is EAGLE's default, written as layers that the stream leaves."""
    edit(folder, **{hf_config.LAYER_IDS: named})
    found = load(folder)
    assert found.feature_layers == layers
    assert any(str(layers or TARGET.feature_layers) in remark for remark in found.remarks)


def test_a_map_and_its_mask_must_agree(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["t2d"][4] = True
    settings = hf_tensors.read_json(folder / "config.json")
    hf_tensors.write_folder(folder, settings, tensors)
    assert "t2d" in refusal(lambda: load(folder))


def test_a_folder_that_holds_no_draft(folder):
    rename(folder, lambda name: name.replace("midlayer.", "block."))
    message = refusal(lambda: load(folder))
    assert str(folder) in message and "no EAGLE-3 draft" in message
