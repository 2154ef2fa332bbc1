"""Griffin folders: known by their tensors, read under their authors' names, or refused."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from ltd_jax.models import griffin
from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.hf import inspect
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from tests.cycle import varieties
from tests.models.folders import TARGET, edit, target_params
from tests.models.hf.test_weights import assert_same_bits
from tests.models.refusal import refusal

NAMES = ("griffin", "griffin, tied and biased")
# As the authors' module names them; E = 16, F = 24, X = 6.
PUBLISHED = {
    "embed_tokens.weight": (6, 16),
    "fc.fc.weight": (16, 32),
    "fc.fc.bias": (16,),
    "fc.post_attention_layernorm.weight": (16,),
    "fc.mlp.input_layernorm.weight": (16,),
    "fc.mlp.up_proj.weight": (24, 32),
    "fc.mlp.down_proj.weight": (16, 24),
    "layers.0.self_attn.q_proj.weight": (16, 16),
    "layers.0.self_attn.k_proj.weight": (16, 16),
    "layers.0.self_attn.v_proj.weight": (16, 16),
    "layers.0.self_attn.o_proj.weight": (16, 16),
    "layers.0.mlp.gate_proj.weight": (24, 16),
    "layers.0.mlp.up_proj.weight": (24, 16),
    "layers.0.mlp.down_proj.weight": (32, 24),
    "layers.0.post_attention_layernorm.weight": (16,),
}


def write(folder, name="griffin", dtype=np.float32):
    """A variety's draft folder."""
    pair = varieties.pair(name)
    hf_weights.save_draft(folder, pair.config.draft, pair.model.draft, dtype)
    return folder


def load(folder, name="griffin", rope_theta=None, dtype=jnp.float32):
    """The folder's draft; unused tensors are an error."""
    target = varieties.pair(name).model.target
    with warnings.catch_warnings(action="error"):
        return hf_weights.load_draft(
            folder, varieties.TARGET, target.embedding, dtype, rope_theta, head=target.head
        )


def rewrite(folder, change):
    """Changes the dict of tensors in place and writes it back."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    settings = hf_tensors.read_json(folder / "config.json")
    hf_tensors.write_folder(folder, settings, tensors)


def test_names_and_shapes_are_the_published_ones(tmp_path):
    tensors = load_file(write(tmp_path) / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == PUBLISHED


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(tmp_path, name):
    pair = varieties.pair(name)
    found = load(write(tmp_path, name), name)
    assert found.config == pair.config.draft and found.feature_layers == ()
    assert_same_bits(found.params, pair.model.draft)
    assert found.params.embedding is not None and any("Griffin" in one for one in found.remarks)


def test_an_equal_copy_of_the_embedding_is_not_kept_twice(tmp_path):
    target = varieties.pair("griffin").model.target
    found = hf_weights.load_draft(
        write(tmp_path), varieties.TARGET, target.embedding, jnp.float32, head=target.head
    )
    assert found.params.embedding is target.embedding and found.params.head is target.head
    rewrite(tmp_path, lambda tensors: tensors["embed_tokens.weight"].__setitem__((0, 0), 9.0))
    assert load(tmp_path).params.embedding[0, 0] == 9.0


def test_half_precision(tmp_path):
    found = load(write(tmp_path, dtype=ml_dtypes.bfloat16))
    narrow = lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32)
    rounded = jax.tree.map(
        lambda leaf: leaf if leaf.dtype == jnp.int32 else narrow(leaf),
        varieties.pair("griffin").model.draft,
    )
    expected = rounded.replace(head=varieties.pair("griffin").model.target.head)
    assert_same_bits(found.params, expected)


def test_rope_base(tmp_path):
    assert load(write(tmp_path)).config.rope_theta == 500.0
    assert load(tmp_path, rope_theta=7.0).config.rope_theta == 7.0
    edit(tmp_path, rope_theta=None)
    found = load(tmp_path)
    assert found.config.rope_theta == 10_000.0 and any("names none" in r for r in found.remarks)


def test_a_pair_of_folders_loads_with_the_last_state_as_feature(tmp_path):
    sizes = {
        "vocab_size": 24,
        "hidden_size": 12,
        "head_count": 2,
        "kv_head_count": 2,
        "head_dim": 6,
    }
    config = dataclasses.replace(varieties.GRIFFIN, **sizes)
    teacher = target_params()
    student = griffin.init(jax.random.key(0), config, teacher.embedding, teacher.head)
    hf_weights.save_target(tmp_path / "target", TARGET, teacher, np.float32)
    hf_weights.save_draft(tmp_path / "draft", config, student, np.float32)
    folders = (tmp_path / "target", tmp_path / "draft")
    found = pairs.load(*folders, cycle=varieties.CYCLE)
    assert found.config.target == dataclasses.replace(TARGET, feature_layers=())
    assert found.config.draft == config
    settings = inspect.read_pair_config(*folders, varieties.CYCLE, None, None)
    seen = settings.config
    assert seen == found.config and settings.remarks + settings.doubts == found.remarks
    own = sum(leaf.nbytes for leaf in jax.tree.leaves(student)) - sum(
        leaf.nbytes for leaf in (teacher.embedding, teacher.head)
    )
    assert inspect.estimate_memory(seen, jnp.dtype("float32")).draft == own
    message = refusal(lambda: pairs.load(*folders, cycle=varieties.CYCLE, feature_layers=(1, 2, 3)))
    assert "feature_layers" in message and "Griffin" in message


@pytest.mark.parametrize(
    ("fields", "words"),
    (
        ({"vocab_size": 32}, ("vocab_size", "32", "6")),
        ({"hidden_size": 12}, ("hidden_size", "12", "16")),
        ({"num_hidden_layers": 2}, ("2 layers",)),
    ),
)
def test_settings_that_are_refused(tmp_path, fields, words):
    path = edit(write(tmp_path), **fields)
    message = refusal(lambda: hf_config.draft_settings(tmp_path, varieties.TARGET, is_griffin=True))
    for word in (str(path), *words):
        assert word in message


@pytest.mark.parametrize(
    "name", ["fc.fc.bias", "fc.mlp.down_proj.weight", "layers.0.mlp.down_proj.weight"]
)
def test_a_missing_tensor_is_named(tmp_path, name):
    rewrite(write(tmp_path), lambda tensors: tensors.pop(name))
    assert name.replace("layers.0", "midlayer") in refusal(lambda: load(tmp_path))


def test_an_older_eagles_draft_is_refused_by_name(tmp_path):
    """EAGLE-1 and -2 have one `fc` over the last state and neither of the marks."""

    def older(tensors):
        for name in [name for name in tensors if name.startswith("fc.")]:
            tensors.pop(name)
        tensors["fc.weight"] = np.zeros((16, 32), np.float32)

    rewrite(write(tmp_path), older)
    message = refusal(lambda: load(tmp_path))
    assert "EAGLE-3" in message and "Griffin" in message and str(tmp_path) in message
