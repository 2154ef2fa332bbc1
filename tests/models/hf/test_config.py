"""config.json: what it says in its several dialects, and one clear sentence for what is wrong."""

import dataclasses
import json

import pytest

from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.pair import with_features
from tests.models.folders import DRAFT, TARGET, edit
from tests.models.refusal import refusal

SHARED = {"vocab_size": 24, "hidden_size": 12, "rms_norm_eps": 1e-5}
TARGET_FILE = SHARED | {
    "architectures": ["LlamaForCausalLM"],
    "intermediate_size": 20,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "rope_theta": 500.0,
    "rope_scaling": None,
}
DRAFT_FILE = SHARED | {
    "draft_vocab_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TARGET_FILE))
    return tmp_path


@pytest.fixture
def draft_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(DRAFT_FILE))
    return tmp_path


def test_target(folder):
    assert hf_config.target_config(folder) == TARGET


def test_a_small_targets_features_are_the_drafts_affair(folder):
    (folder / "config.json").write_text(json.dumps(TARGET_FILE | {"num_hidden_layers": 6}))
    found = hf_config.target_config(folder)
    assert with_features(found, None, (1, 3, 5)).feature_layers == (1, 3, 5)
    assert with_features(found, (2, 3, 4), None).feature_layers == (2, 3, 4)
    assert with_features(found, (), None).feature_layers == ()  # Griffin
    assert hf_config.feature_layers(hf_config.Settings(folder), found) == (
        None,
        "The draft names no feature layers, and 6 layers have no default ones.",
    )
    with pytest.raises(ValueError, match="6 layers .* say in `feature_layers`"):
        with_features(found, None, None)


def test_draft(draft_folder):
    assert hf_config.draft_settings(draft_folder, TARGET).config == DRAFT


def test_fields_that_may_be_missing(folder):
    gone = ("num_key_value_heads", "head_dim", "rope_theta", "rms_norm_eps")
    edit(folder, **dict.fromkeys(gone), num_attention_heads=3)
    found = hf_config.target_config(folder)
    assert (found.kv_head_count, found.head_dim, found.rope_theta) == (3, 4, 10_000.0)
    assert found.rms_norm_eps == 1e-6


@pytest.mark.parametrize(
    ("architecture", "bias", "norm"),
    (
        ("LlamaForCausalLM", False, False),
        ("Qwen2ForCausalLM", True, False),
        ("Qwen3ForCausalLM", False, True),
    ),
)
def test_families(folder, architecture, bias, norm):
    edit(folder, architectures=[architecture], tie_word_embeddings=True)
    expected = dataclasses.replace(TARGET, tie_embeddings=True, attention_bias=bias, qk_norm=norm)
    assert hf_config.target_config(folder) == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    (
        ({"architectures": ["GPT2LMHeadModel"]}, ("GPT2LMHeadModel", "LlamaForCausalLM")),
        ({"architectures": None}, ("architecture",)),
        ({"num_hidden_layers": None}, ("num_hidden_layers",)),
        ({"vocab_size": "24"}, ("vocab_size",)),
        ({"num_key_value_heads": 3}, ("kv_head_count",)),
        ({"num_attention_heads": 0}, ("num_attention_heads",)),
        ({"rms_norm_eps": "small"}, ("rms_norm_eps",)),
        ({"attention_bias": True}, ("attention_bias", "Qwen2")),
    ),
)
def test_target_settings_that_are_refused(folder, fields, words):
    path = edit(folder, **fields)
    message = refusal(lambda: hf_config.target_config(folder))
    for word in (str(path), *words):
        assert word in message


@pytest.mark.parametrize(
    ("fields", "words"),
    (
        ({"vocab_size": 32}, ("vocab_size", "32", "24")),
        ({"target_hidden_size": 16}, ("target_hidden_size", "16", "12")),
        ({"draft_vocab_size": 25}, ("draft_vocab_size", "25")),
        ({"intermediate_size": None}, ("intermediate_size",)),
        ({"num_hidden_layers": 2}, ("2 layers",)),
        ({"kv_lora_rank": 512, "architectures": ["Eagle3DeepseekV2ForCausalLM"]}, ("Deepseek",)),
        ({"eagle_config": {"use_aux_hidden_state": False}}, ("EAGLE-2",)),
        ({"attention_bias": True}, ("attention_bias",)),
        ({"norm_before_fc": True, "fc_norm": True}, ("norm_before_fc", "fc_norm")),
        ({hf_config.LAYER_IDS: [2, 3]}, (hf_config.LAYER_IDS,)),
    ),
)
def test_draft_settings_that_are_refused(draft_folder, fields, words):
    path = edit(draft_folder, **fields)
    message = refusal(lambda: hf_config.draft_settings(draft_folder, TARGET))
    for word in (str(path), *words):
        assert word in message


def test_broken_config(folder):
    (folder / "config.json").write_text('{"architectures": ')
    assert str(folder / "config.json") in refusal(lambda: hf_config.target_config(folder))
