"""The rotary fields of a config.json: both spellings, contradictions, what cannot be, writing."""

import dataclasses
import json
from pathlib import Path

import pytest

from ltd_jax.config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    YarnScaling,
)
from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.hf import rope as hf_rope
from ltd_jax.models.hf import weights as hf_weights
from tests.models.folders import DRAFT, TARGET, edit
from tests.models.hf.test_config import DRAFT_FILE, LLAMA3, TARGET_FILE
from tests.models.refusal import refusal

FACTORS = {"short_factor": [1.0, 1.5], "long_factor": [2, 3.5]}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TARGET_FILE))
    return tmp_path


@pytest.fixture
def draft_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(DRAFT_FILE | {"head_dim": 6}))
    return tmp_path


@pytest.mark.parametrize(
    ("fields", "theta", "scaling"),
    [
        ({"rope_scaling": LLAMA3}, 500.0, Llama3Scaling(8.0, 1.0, 4.0, 8192)),
        (
            {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
            5e5,
            Llama3Scaling(8.0, 1.0, 4.0, 8192),
        ),
        ({"rope_scaling": {"type": "linear", "factor": 4}}, 500.0, LinearScaling(4.0)),
        ({"rope_scaling": {}, "rope_parameters": {"rope_theta": 7}}, 7.0, None),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 1]}}, 500.0, None),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 500.0, DynamicScaling(2.0, 2048)),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "model_type": "qwen2"},
            500.0,
            DynamicScaling(2.0, 32768),  # of a Qwen whose file does not say it
        ),
        (
            {"rope_scaling": {"type": "su", **FACTORS}, "max_position_embeddings": 64},
            500.0,
            LongScaling((1.0, 1.5), (2.0, 3.5), 64, 1.0),
        ),
        # v4 writes its own default beside what v5 has written
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, 5e5, None),
        ({"rope_parameters": {"full_attention": {"rope_theta": 3e4}}}, 3e4, None),
        (
            {"rope_parameters": {name: {"rope_theta": 3e4} for name in ("full", "sliding")}},
            3e4,
            None,
        ),
    ],
    ids=str,
)
def test_what_is_read(folder, fields, theta, scaling):
    edit(folder, **fields)
    found = hf_config.target_config(folder)
    assert found == dataclasses.replace(TARGET, rope_theta=theta, rope_scaling=scaling)


@pytest.mark.parametrize(("share", "dim"), [(0.5, 2), (0.75, 3), (1.0, None), (1, None)])
def test_a_part_of_the_channels(folder, share, dim):
    for fields in ({hf_rope.PARTIAL: share}, {"rope_parameters": {hf_rope.PARTIAL: share}}):
        (folder / "config.json").write_text(json.dumps(TARGET_FILE | fields))
        assert hf_config.target_config(folder).rotary_dim == dim


def doubts_about(folder):
    settings = hf_config.Settings(folder)
    hf_config.target_config(settings)
    return settings.doubts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, ("10000.0", "500000")),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": 9.0}}, ("500", "9")),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": YARN},
            ("linear", "yarn"),
        ),
        ({hf_rope.PARTIAL: 0.5}, ("0.5", "transformers")),
    ],
    ids=str,
)
def test_contradictions_are_doubts(folder, fields, words):
    assert doubts_about(folder) == []
    path = edit(folder, **fields)
    (doubt,) = doubts_about(folder)
    assert str(path) in doubt and all(word in doubt for word in words)


def test_the_same_base_twice_is_no_doubt(folder):
    edit(folder, rope_theta=500, rope_parameters={"rope_theta": 500.0, "rope_type": "default"})
    assert doubts_about(folder) == []


UNREADABLE = [
    ({"rope_scaling": "llama3"}, ("rope_scaling", "object")),
    ({"rope_scaling": {"type": "xpos"}}, ("xpos", "longrope")),
    ({"rope_scaling": {"type": "yarn"}}, ("factor",)),
    ({"rope_scaling": {"type": "linear", "factor": "4.0"}}, ("factor",)),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, ("factor",)),
    ({"rope_scaling": {"type": "linear", "factor": -2.0}}, ("factor",)),
    ({"rope_scaling": {"type": "linear", "factor": True}}, ("factor",)),
    ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, ("factor",)),
    ({"rope_scaling": LLAMA3 | {"low_freq_factor": 0}}, ("low_freq_factor",)),
    ({"rope_scaling": {"type": "llama3", "factor": 2}}, ("low_freq_factor",)),
    ({"rope_scaling": YARN | {"attention_factor": "1"}}, ("attention_factor",)),
    ({"rope_scaling": YARN | {"original_max_position_embeddings": 0}}, ("original_max",)),
    ({"rope_scaling": YARN | {"original_max_position_embeddings": 0.5}}, ("original_max",)),
    ({"rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.0]}}, ("long_factor",)),
    ({"rope_scaling": {"type": "longrope", **FACTORS, "long_factor": [1, "2"]}}, ("long_factor",)),
    ({"rope_scaling": {"type": "longrope", **FACTORS, "long_factor": [1]}}, ("1 factors",)),
    ({"rope_scaling": YARN, "rope_theta": 1.0}, ("cannot be computed",)),
    ({"rope_theta": "big"}, ("rope_theta",)),
    ({"rope_theta": -1.0}, ("rope_theta",)),
    ({"rope_theta": 0}, ("rope_theta",)),
    ({hf_rope.PARTIAL: 1.5}, ("channels",)),
    ({hf_rope.PARTIAL: 0.1}, ("0 of the", "channels")),
    (
        {"rope_parameters": {"full": {"rope_theta": 1e4}, "sliding": {"rope_theta": 5.0}}},
        ("full, sliding",),
    ),
]


@pytest.mark.parametrize(("fields", "words"), UNREADABLE, ids=str)
def test_a_target_that_cannot_be_turned_gets_one_sentence(folder, fields, words):
    path = edit(folder, **fields)
    message = refusal(lambda: hf_config.target_config(folder))
    assert str(path) in message and all(word in message for word in words)


@pytest.mark.parametrize(("fields", "words"), UNREADABLE, ids=str)
def test_a_drafts_positions_refuse_no_pair(draft_folder, fields, words):
    path = edit(draft_folder, **fields)
    found = hf_weights.read_draft_settings(draft_folder, TARGET)
    assert (found.config.rope_scaling, found.config.rotary_dim) == (None, None)
    said = next(remark for remark in found.remarks if "costs acceptance at most" in remark)
    assert str(path) in said
    assert hf_weights.read_draft_settings(draft_folder, TARGET, 7.0).config.rope_theta == 7.0


def test_equal_and_exchanged_bounds_are_computed(folder):
    """A step in the place of the ramp, as transformers computes it (golden/rope.py)."""
    for low in (4.0, 9.0):
        edit(folder, rope_scaling=LLAMA3 | {"low_freq_factor": low})
        assert hf_config.target_config(folder).rope_scaling == Llama3Scaling(8.0, low, 4.0, 8192)


WRITTEN = [
    {},
    {"rope_scaling": LinearScaling(4.0)},
    {"rope_scaling": DynamicScaling(2.5, 777)},
    {"rope_scaling": Llama3Scaling(8.0, 1.0, 4.0, 8192)},
    {"rope_scaling": YarnScaling(4.0, 64, 1.2, beta_fast=16.0, beta_slow=2.0, truncate=False)},
    {"rope_scaling": LongScaling((1.0, 1.5, 2.0), (2.0, 3.5, 4.0), 64, 1.19)},
    {"rotary_dim": 2},
]


@pytest.mark.parametrize("fields", WRITTEN, ids=str)
def test_what_is_written_is_read(draft_folder, fields):
    config = dataclasses.replace(DRAFT, rope_theta=3e4, **fields)
    written = hf_config.fields_of(config, "float32", {"max_position_embeddings": 4096})
    (draft_folder / "config.json").write_text(json.dumps(written))
    assert hf_config.draft_settings(draft_folder, TARGET).config == config


def test_every_part_of_a_head_survives_being_written():
    for head_dim in range(2, 130, 2):
        for dim in range(2, head_dim, 2):
            config = dataclasses.replace(DRAFT, head_dim=head_dim, rotary_dim=dim)
            fields = hf_rope.fields_of(config)
            assert hf_rope.read(Path("config.json"), fields, head_dim).rotary_dim == dim


@pytest.mark.parametrize("fields", WRITTEN, ids=str)
def test_what_eagles_own_code_reads(fields):
    """Nothing, or linear and dynamic with a base of 10,000."""
    known = fields.get("rope_scaling") is None or isinstance(
        fields["rope_scaling"], LinearScaling | DynamicScaling
    )
    config = dataclasses.replace(DRAFT, **fields)
    if known and "rotary_dim" not in fields:
        hf_rope.refuse_for_eagle(config)
    else:
        assert "layers.0" in refusal(lambda: hf_rope.refuse_for_eagle(config))
    scaled = dataclasses.replace(config, rope_theta=5e5)
    if fields:
        assert "layers.0" in refusal(lambda: hf_rope.refuse_for_eagle(scaled))
    else:
        hf_rope.refuse_for_eagle(scaled)
