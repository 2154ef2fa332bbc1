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
SLIDING = {
    "architectures": ["Qwen3ForCausalLM"],
    "use_sliding_window": True,
    "sliding_window": 5,
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
    ("architecture", "asked", "bias", "output_bias", "norm"),
    (
        ("LlamaForCausalLM", False, False, False, False),
        ("LlamaForCausalLM", True, True, True, False),
        ("Qwen2ForCausalLM", False, True, False, False),
        ("Qwen2ForCausalLM", True, True, False, False),
        ("Qwen3ForCausalLM", False, False, False, True),
        ("Qwen3ForCausalLM", True, True, True, True),
    ),
)
def test_families(folder, architecture, asked, bias, output_bias, norm):
    edit(folder, architectures=[architecture], attention_bias=asked, tie_word_embeddings=True)
    parts = {"attention_bias": bias, "output_bias": output_bias, "qk_norm": norm}
    expected = dataclasses.replace(TARGET, tie_embeddings=True, **parts)
    assert hf_config.target_config(folder) == expected


@pytest.mark.parametrize(
    ("fields", "layers"),
    (
        ({"use_sliding_window": False}, ()),
        ({"max_window_layers": 7}, ()),
        ({"max_window_layers": 28}, ()),
        ({}, ()),  # transformers' max_window_layers is 28
        ({"max_window_layers": 5}, (5, 6)),
        ({"max_window_layers": 0}, tuple(range(7))),
        ({"layer_types": ["full_attention", "sliding_attention"] * 4}, (1, 3, 5)),
        ({"layer_types": ["full_attention"] * 7, "max_window_layers": 0}, ()),
        ({"layer_types": ["sliding_attention"] * 7, "use_sliding_window": False}, ()),
    ),
)
def test_which_layers_of_a_qwen_slide(folder, fields, layers):
    edit(folder, **SLIDING | fields)
    found = hf_config.target_config(folder)
    assert found.sliding_layers == layers and found.sliding_window == (5 if layers else 0)


def test_a_window_that_is_null_slides_nowhere_and_one_that_is_missing_is_transformers(folder):
    path = edit(folder, **SLIDING | {"max_window_layers": 0})
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"sliding_window": None}))
    assert hf_config.target_config(folder).sliding_layers == ()
    path.write_text(json.dumps({name: fields[name] for name in fields if name != "sliding_window"}))
    assert hf_config.target_config(folder).sliding_window == 4096


def test_a_llama_does_not_slide(folder):
    edit(folder, use_sliding_window=True, sliding_window=5, max_window_layers=0)
    settings = hf_config.Settings(folder)
    assert hf_config.target_config(settings) == TARGET
    assert "use_sliding_window" in settings.doubts[0]


LAYERS_8 = dataclasses.replace(TARGET, layer_count=8, feature_layers=(0, 0, 0))


@pytest.mark.parametrize(
    ("ids", "speculators", "layers", "doubted"),
    (
        ([1, 3, 5], False, (2, 4, 6), True),  # SGLang, SpecForge and ModelOpt: layers left
        ([1, 3, 4], False, (2, 4, 5), False),  # their default of 8 layers
        ([1, 3, 5, 6], False, (2, 4, 6, 7), True),
        ([1, 3, 7], False, (2, 4, 8), True),
        ([2, 4, 5], False, (2, 4, 5), False),  # EAGLE's default, layers entered
        ([0, 3, 5], False, (0, 3, 5), False),
        ([4, 6, 8], False, (4, 6, 8), False),  # the last layer's output
        ([3, 5], False, (3, 5), False),
        ([1, 3, 5], True, (1, 3, 5), False),  # vLLM and speculators: layers entered
        ([1, 3, 4], True, (2, 4, 5), False),  # a SpecForge draft that speculators converted
    ),
)
def test_feature_layers_in_every_dialect(draft_folder, ids, speculators, layers, doubted):
    kind = {"speculators_model_type": "eagle3"} if speculators else {}
    edit(draft_folder, eagle_config={hf_config.LAYER_IDS: ids}, **kind)
    found = hf_config.draft_settings(draft_folder, LAYERS_8)
    assert found.feature_layers == layers and found.config.feature_count == len(layers)
    assert any(str(layers) in remark for remark in found.remarks)
    assert bool(found.doubts) == doubted and all("`feature_layers`" in d for d in found.doubts)


@pytest.mark.parametrize("name", ["aux_hidden_state_layer_ids", "layer_ids"])
def test_other_names_of_the_feature_layers(draft_folder, name):
    edit(draft_folder, eagle_config={name: [2, 4, 6]})
    assert hf_config.draft_settings(draft_folder, LAYERS_8).feature_layers == (2, 4, 6)


@pytest.mark.parametrize(
    ("fields", "window", "layers"),
    (
        ({"layer_types": ["sliding_attention"]}, 5, (0,)),
        ({"layer_types": ["full_attention"]}, 0, ()),
        ({}, 0, ()),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"]}, 0, ()),
        ({"model_type": "qwen3", "use_sliding_window": True, "max_window_layers": 0}, 5, (0,)),
        ({"use_sliding_window": True, "max_window_layers": 28}, 0, ()),  # as its target says
    ),
)
def test_which_layers_of_a_draft_slide(draft_folder, fields, window, layers):
    edit(draft_folder, sliding_window=5, **fields)
    found = hf_config.draft_settings(draft_folder, TARGET)
    assert (found.config.sliding_window, found.config.sliding_layers) == (window, layers)
    assert any("latest 5 tokens" in remark for remark in found.remarks) == bool(layers)


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
        ({"mlp_bias": True}, ("mlp_bias",)),
        ({"attention_bias": "false"}, ("attention_bias", "neither true nor false")),
        ({"tie_word_embeddings": "false"}, ("tie_word_embeddings",)),
        ({"head_dim": 0}, ("head_dim",)),
        ({"head_dim": 5}, ("head_dim",)),
        ({"hidden_size": 0}, ("hidden_size",)),
        ({"num_hidden_layers": 10**9}, ("num_hidden_layers", "no model has")),
        ({"vocab_size": 10**30}, ("vocab_size", "no model has")),
        (SLIDING | {"sliding_window": 0, "max_window_layers": 0}, ("sliding_window",)),
        (SLIDING | {"max_window_layers": -1}, ("max_window_layers",)),
        (SLIDING | {"layer_types": ["chunked_attention"] * 7}, ("layer_types",)),
        (SLIDING | {"layer_types": ["sliding_attention"] * 6}, ("layer_types", "6", "7")),
        ({"quantization_config": {"quant_method": "fp8"}}, ("quantised", "fp8")),
        ({"compression_config": {"format": "int-quantized"}}, ("quantised",)),
        ({"quantization": {"bits": 4, "group_size": 64}}, ("quantised",)),
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
        ({"speculators_model_type": "peagle"}, ("peagle", "EAGLE-3")),
        ({"parallel_drafting": True}, ("parallel_drafting",)),
        ({"num_key_value_heads": 3}, ("kv_head_count",)),
        ({"fc_norm": "yes"}, ("fc_norm",)),
        ({"kv_lora_rank": 512, "architectures": ["Eagle3DeepseekV2ForCausalLM"]}, ("Deepseek",)),
        ({"eagle_config": {"use_aux_hidden_state": False}}, ("EAGLE-2",)),
        ({"mlp_bias": True}, ("mlp_bias",)),
        ({"norm_before_fc": True, "fc_norm": True}, ("norm_before_fc", "fc_norm")),
        ({hf_config.LAYER_IDS: [2, "3", 4]}, (hf_config.LAYER_IDS,)),
        ({hf_config.LAYER_IDS: []}, (hf_config.LAYER_IDS,)),
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
