"""Tensors are believed where config.json differs; what would change a model is read or refused."""

import dataclasses
import json
import os
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import inspect
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.hf.tensors import INDEX, SINGLE
from tests import torch_writer
from tests.cycle import varieties
from tests.models.folders import DRAFT, TARGET, draft_params, edit, target_params
from tests.models.hf.test_weights import assert_same_bits, rewrite
from tests.models.refusal import refusal
from tests.torch_writer import Call, Global, instructions

TEACHER = target_params()
ALL_TOKENS = dataclasses.replace(DRAFT, draft_vocab_size=24)
CYCLE = dataclasses.replace(varieties.CYCLE, beam_width=3)


@pytest.fixture
def target_folder(tmp_path):
    hf_weights.save_target(tmp_path / "target", TARGET, TEACHER, np.float32)
    return tmp_path / "target"


@pytest.fixture
def draft_folder(tmp_path):
    return saved(tmp_path / "draft")


def saved(folder, config=DRAFT, **tokens):
    """A draft's folder."""
    hf_weights.save_draft(folder, config, draft_params(config, **tokens), np.float32)
    return folder


def load(folder, head=TEACHER.head):
    """The folder's draft."""
    return hf_weights.load_draft(folder, TARGET, TEACHER.embedding, jnp.float32, head=head)


def load_target(folder):
    return hf_weights.load_target(folder, jnp.float32)


def doubts(folder):
    """What is said of a folder, without its weights being read."""
    if folder.name == "target":
        return hf_weights.read_target_settings(folder).doubts
    return hf_weights.read_draft_settings(folder, TARGET).doubts


@pytest.mark.parametrize(
    ("name", "inherited", "right"),
    (
        ("num_hidden_layers", 28, 1),  # AngelSlim's Qwen2.5-7B
        ("num_hidden_layers", 40, 1),  # the paper's own Vicuna-13B
        ("num_key_value_heads", 2, 1),
        ("intermediate_size", 20, 16),
        ("head_dim", 4, 6),
        ("draft_vocab_size", 12, 8),
    ),
)
def test_a_draft_that_inherited_a_number(draft_folder, name, inherited, right):
    edit(draft_folder, **{name: inherited})
    found = load(draft_folder)
    assert found.config == DRAFT
    assert found.doubts == doubts(draft_folder)
    (doubt,) = found.doubts
    for word in (name, str(inherited), f"is {right}", "config.json"):
        assert word in doubt


@pytest.mark.parametrize("shape", ((0,), (0, 12), (3, 3), (2, 2, 2)))
@pytest.mark.parametrize(
    "name",
    (
        "d2t",
        "lm_head.weight",
        "fc.weight",
        "midlayer.self_attn.q_proj.weight",
        "embed_tokens.weight",
    ),
)
def test_shapes_that_no_model_has(draft_folder, name, shape):
    rewrite(draft_folder, lambda tensors: tensors.update({name: np.zeros(shape, np.float32)}))
    message = refusal(lambda: load(draft_folder))
    assert name.removeprefix("midlayer.") in message and str(draft_folder) in message


@pytest.mark.parametrize("rows", (7, 9))
def test_a_head_has_the_rows_of_d2t(draft_folder, rows):
    """Only a head for all tokens may be padded."""
    head = np.zeros((rows, 12), np.float32)
    rewrite(draft_folder, lambda tensors: tensors.update({"lm_head.weight": head}))
    message = refusal(lambda: load(draft_folder))
    assert "lm_head.weight" in message and f"[{rows}, 12]" in message and "[8, 12]" in message


@pytest.mark.parametrize("stated", (None, 8, 24))
def test_a_drafts_vocabulary_is_that_of_its_head(draft_folder, stated):
    edit(draft_folder, draft_vocab_size=stated)
    assert load(draft_folder).config == DRAFT
    assert len(doubts(draft_folder)) == (stated == 24)


@pytest.mark.parametrize(
    ("name", "inherited", "right"),
    (
        ("num_hidden_layers", 5, 7),
        ("num_key_value_heads", 4, 2),
        ("intermediate_size", 24, 20),
        ("head_dim", 3, 4),
        ("head_dim", 6, 4),
        ("vocab_size", 32, 24),
    ),
)
def test_a_target_with_a_wrong_number(target_folder, name, inherited, right):
    edit(target_folder, **{name: inherited})
    config, params = load_target(target_folder)
    assert config == TARGET
    assert_same_bits(params, TEACHER)
    (doubt,) = doubts(target_folder)
    assert f"{name} is {right}" in doubt and str(inherited) in doubt


def test_a_target_of_fewer_layers_than_it_says_is_incomplete(target_folder):
    edit(target_folder, num_hidden_layers=8)
    message = refusal(lambda: load_target(target_folder))
    assert "model.layers.7 " in message and "incomplete" in message


def test_heads_are_those_of_the_norms(tmp_path):
    """With norms of queries, their length is head_dim, and the heads follow."""
    config = dataclasses.replace(DRAFT, qk_norm=True)
    folder = saved(tmp_path / "draft", config)
    edit(folder, num_attention_heads=4, num_key_value_heads=2, head_dim=3)
    assert load(folder).config == config and len(doubts(folder)) == 3


PARTS = {
    "attention_bias": {"q_proj.bias": 16, "k_proj.bias": 8, "v_proj.bias": 8},
    "output_bias": {"o_proj.bias": 12},
    "qk_norm": {"q_norm.weight": 4, "k_norm.weight": 4},
}


@pytest.mark.parametrize("part", PARTS)
def test_biases_and_norms_that_a_targets_config_does_not_name(target_folder, part):
    extra = {
        f"model.layers.{layer}.self_attn.{name}": np.full(size, layer + 2, np.float32)
        for layer in range(TARGET.layer_count)
        for name, size in PARTS[part].items()
    }
    rewrite(target_folder, lambda tensors: tensors.update(extra))
    config, params = load_target(target_folder)
    assert config == dataclasses.replace(TARGET, **{part: True})
    layer = params.layers[3]
    (found, *_) = jax.tree.leaves((layer.qkv_bias, layer.o_bias, layer.qk_norms))
    np.testing.assert_array_equal(found, np.full(found.shape, 5.0))
    (doubt,) = doubts(target_folder)
    assert "none" in doubt and "config.json" in doubt


def test_a_qwen2_without_biases_and_a_qwen3_without_norms(target_folder):
    edit(target_folder, architectures=["Qwen2ForCausalLM"])
    assert load_target(target_folder)[0] == TARGET  # as zeros, which transformers takes
    assert "biases" in doubts(target_folder)[0]
    edit(target_folder, architectures=["Qwen3ForCausalLM"])
    assert "q_norm" in refusal(lambda: load_target(target_folder))


@pytest.mark.parametrize(
    "name",
    (
        "mask_hidden",  # of P-EAGLE
        "additional_layers.0.mlp.up_proj.weight",  # SGLang's further layers, another network
        "midlayer.mlp.gate_proj.bias",
        "layers.2.self_attn.q_proj.weight",  # without a layer 1
        "parallel_draft_heads.0.medusa_layers.0.linear.weight",
        "lm_head.bias",
    ),
)
def test_a_drafts_tensor_that_is_not_known(draft_folder, name):
    rewrite(draft_folder, lambda tensors: tensors.update({name: np.zeros(3, np.float32)}))
    for read in (load, doubts):
        message = refusal(lambda read=read: read(draft_folder))
        assert name in message and str(draft_folder) in message


@pytest.mark.parametrize(
    "name", ("model.layers.0.mlp.down_proj.bias", "lm_head.bias", "model.embed_positions.weight")
)
def test_a_targets_tensor_that_is_not_known(target_folder, name):
    rewrite(target_folder, lambda tensors: tensors.update({name: np.zeros(3, np.float32)}))
    for read in (load_target, doubts):
        assert name in refusal(lambda read=read: read(target_folder))


@pytest.mark.parametrize(
    "name",
    (
        "model.layers.3.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.0.self_attn.masked_bias",
        "v_head.summary.weight",
        "model.layers.0.self_attn.k_proj.k_scale",
    ),
)
def test_what_is_known_to_be_left_over(target_folder, name):
    rewrite(target_folder, lambda tensors: tensors.update({name: np.zeros(3, np.float32)}))
    assert_same_bits(load_target(target_folder)[1], TEACHER)
    assert doubts(target_folder) == ()


@pytest.mark.parametrize("stored_size", (23, 25))
def test_a_drafts_vocabulary_is_padded_otherwise(tmp_path, stored_size):
    """Without d2t, with an embedding of its own: rows of zeros follow, or surplus is left out."""
    folder = saved(tmp_path / "draft", ALL_TOKENS, tokens=np.arange(24))
    params = draft_params(ALL_TOKENS, tokens=np.arange(24))
    rows = lambda matrix: np.resize(np.asarray(matrix), (25, 12))[:stored_size]

    def change(tensors):
        del tensors["d2t"], tensors["t2d"]
        tensors["lm_head.weight"] = rows(params.head.T)
        tensors["embed_tokens.weight"] = rows(params.embedding)

    rewrite(folder, change)
    edit(folder, vocab_size=stored_size, draft_vocab_size=None)
    found = load(folder)
    count = min(stored_size, 24)
    assert found.config == dataclasses.replace(ALL_TOKENS, draft_vocab_size=count)
    np.testing.assert_array_equal(found.params.head, params.head[:, :count])
    np.testing.assert_array_equal(found.params.embedding[:count], params.embedding[:count])
    assert found.params.embedding.shape == (24, 12) and not found.params.embedding[count:].any()
    assert found.params.target_token.tolist() == list(range(count))
    assert f"{stored_size} tokens" in found.doubts[0]


@pytest.mark.parametrize("stored_size", (23, 25))
def test_a_padded_mask_of_tokens(draft_folder, stored_size):
    rewrite(
        draft_folder,
        lambda tensors: tensors.update(t2d=np.resize(np.pad(tensors["t2d"], (0, 1)), stored_size)),
    )
    edit(draft_folder, vocab_size=stored_size)
    tokens = load(draft_folder).params.target_token if stored_size == 25 else None
    if tokens is None:  # its last token, 23, is then unknown to it
        assert "t2d" in refusal(lambda: load(draft_folder))
    else:
        np.testing.assert_array_equal(tokens, draft_params().target_token)


def test_a_vocabulary_of_another_model_is_refused(draft_folder):
    edit(draft_folder, vocab_size=32)
    message = refusal(lambda: load(draft_folder))
    assert "32" in message and "24" in message


def headless(folder, config=ALL_TOKENS, **fields):
    """A draft for all tokens without a head."""
    saved(folder, config, tokens=np.arange(24))
    rewrite(
        folder, lambda tensors: [tensors.pop(name) for name in ("lm_head.weight", "d2t", "t2d")]
    )
    edit(folder, **{"draft_vocab_size": None} | fields)
    return folder


@pytest.mark.parametrize("fields", ({}, {"draft_vocab_size": 24}, {"tie_word_embeddings": True}))
def test_a_draft_without_a_head_has_the_targets(tmp_path, fields):
    found = load(headless(tmp_path / "draft", **fields))
    assert found.config == dataclasses.replace(ALL_TOKENS, own_head=False)
    assert found.params.head is TEACHER.head
    assert any("the target's is taken" in remark for remark in found.remarks)
    assert load(tmp_path / "draft", head=None).params.head is None  # the target's, too, is tied


def test_a_head_that_is_an_embedding(tmp_path):
    """The draft's own, where it says so; else the target's, of which it must be a copy."""
    folder = headless(tmp_path / "draft", tie_word_embeddings=True)
    own = np.random.default_rng(1).normal(size=(24, 12)).astype(np.float32)
    rewrite(folder, lambda tensors: tensors.update({"embed_tokens.weight": own}))
    found = load(folder)
    assert found.params.head is None
    assert any("its own embedding is taken" in remark for remark in found.remarks)
    np.testing.assert_array_equal(found.params.embedding, own)
    edit(folder, tie_word_embeddings=False)
    np.testing.assert_array_equal(load(folder, head=None).params.head, TEACHER.embedding.T)


@pytest.mark.parametrize(
    "change",
    (
        lambda folder: edit(folder, draft_vocab_size=8),
        lambda folder: rewrite(folder, lambda t: t.update(d2t=np.arange(8))),
        lambda folder: rewrite(folder, lambda t: t.update(d2t=np.arange(24)[::-1] - np.arange(24))),
    ),
)
def test_a_head_that_is_missing(tmp_path, change):
    folder = headless(tmp_path / "draft")
    change(folder)
    assert "lm_head.weight" in refusal(lambda: load(folder))


def test_a_narrower_draft_cannot_have_the_targets_head(tmp_path):
    narrow = dataclasses.replace(ALL_TOKENS, hidden_size=10)
    folder = headless(tmp_path / "draft", narrow)
    assert "lm_head.weight" in refusal(lambda: load(folder))
    edit(folder, tie_word_embeddings=True)
    found = load(folder)
    assert found.config == dataclasses.replace(narrow, own_head=False)
    assert found.params.head is None and found.params.embedding.shape == (24, 10)


def test_four_features_that_the_draft_does_not_name(tmp_path, target_folder):
    config = dataclasses.replace(DRAFT, feature_count=4)
    folder = saved(tmp_path / "draft", config)
    assert any("4 layers" in r and "`feature_layers`" in r for r in load(folder).remarks)
    read = lambda layers: pairs.load(target_folder, folder, cycle=CYCLE, feature_layers=layers)
    assert "`feature_layers`" in refusal(lambda: read(None))
    assert read((1, 2, 3, 5)).config.draft == config
    edit(folder, eagle_aux_hidden_state_layer_ids=[2, 4, 5])
    assert "3 layers" in refusal(lambda: load(folder))


@pytest.mark.parametrize("own", (False, True))
def test_a_tied_target_with_a_head_in_its_file(target_folder, own):
    """transformers 5 reads it where it is another matrix."""
    head = np.array(TEACHER.embedding)
    head[5, 3] += own
    rewrite(target_folder, lambda tensors: tensors.update({"lm_head.weight": head}))
    edit(target_folder, tie_word_embeddings=True)
    config, params = load_target(target_folder)
    assert config.tie_embeddings != own and len(doubts(target_folder)) == own
    if own:
        np.testing.assert_array_equal(params.head, head.T)
    else:
        assert params.head is None


def test_a_target_without_a_head(target_folder):
    rewrite(target_folder, lambda tensors: tensors.pop("lm_head.weight"))
    assert "lm_head.weight" in refusal(lambda: load_target(target_folder))  # false is stated
    edit(target_folder, tie_word_embeddings=None)
    assert load_target(target_folder)[0].tie_embeddings
    assert "its head" in doubts(target_folder)[0]


def whole_beside_shards(folder, shards_age=None):
    """A whole file beside an older model's index, and its shards at an age in seconds."""
    older = jax.tree.map(lambda leaf: leaf + 1, TEACHER)
    hf_weights.save_target(folder, TARGET, older, np.float32, shard_bytes=9000)
    left = {path.name: path.read_bytes() for path in folder.glob("model*")}
    hf_weights.save_target(folder, TARGET, TEACHER, np.float32)
    os.utime(folder / SINGLE, (1000, 1000))
    for name, content in left.items():
        if name == INDEX or shards_age is not None:
            (folder / name).write_bytes(content)
            os.utime(folder / name, (1000 - (shards_age or 0),) * 2)
    return older


@pytest.mark.parametrize("age", (None, 10, -10, 0))
def test_a_whole_file_beside_shards(target_folder, age):
    older = whole_beside_shards(target_folder, age)
    config, params = load_target(target_folder)
    assert_same_bits(params, older if age == -10 else TEACHER)
    (doubt,) = doubts(target_folder)
    assert SINGLE in doubt and "delete" in doubt
    read = hf_tensors.fingerprint(target_folder)
    for path in target_folder.glob("model*"):
        if (path.name == SINGLE) == (age == -10):
            path.unlink()
    assert hf_tensors.fingerprint(target_folder) == read, "of the files that are read"


def test_an_index_of_the_whole_file_itself(target_folder):
    names = dict.fromkeys(load_file(target_folder / SINGLE), SINGLE)
    (target_folder / INDEX).write_text(json.dumps({"weight_map": names}))
    assert load_target(target_folder)[0] == TARGET and doubts(target_folder) == ()


def test_leftovers_of_copies_are_no_weights(target_folder, draft_folder):
    before = hf_tensors.fingerprint(target_folder, draft_folder)
    for folder in (target_folder, draft_folder):
        (folder / f"._{SINGLE}").write_bytes(b"\0\5\26\7")
        (folder / "._config.json").write_bytes(b"\0\5\26\7")
        (folder / ".git" / "lfs").mkdir(parents=True)
        (folder / "training_args.bin").write_bytes(b"PK")
    assert load_target(target_folder)[0] == TARGET and load(draft_folder).config == DRAFT
    assert hf_tensors.fingerprint(target_folder, draft_folder) == before
    (draft_folder / SINGLE).unlink()
    assert not hf_tensors.has_weights(draft_folder)


@pytest.mark.parametrize(
    ("names", "words"),
    (
        (["adapter_model.safetensors", "adapter_config.json"], ["adapter", "merge"]),
        (["adapter_model.bin"], ["adapter", "merge"]),
        (["zero_to_fp32.py", "global_step500/x"], ["DeepSpeed", "zero_to_fp32.py"]),
        (["global_step500/mp_rank_00_model_states.pt"], ["DeepSpeed", "zero_to_fp32.py"]),
        (["consolidated.00.pth", "params.json"], ["consolidated", "Hugging Face"]),
        (["consolidated.safetensors"], ["consolidated"]),
        (["pytorch_model_fsdp_0/__0_0.distcp"], ["FSDP", "merge-weights"]),
        (["model-00001-of-00002.safetensors"], ["shards", INDEX]),
        (["pytorch_model-00001-of-00002.bin"], ["shards", "pytorch_model.bin.index.json"]),
        (["flax_model.msgpack"], [".msgpack", "safetensors"]),
        (["checkpoint-400/config.json", "checkpoint-500/config.json"], ["checkpoint-500"]),
        (["model.gguf"], ["GGUF"]),
    ),
)
def test_folders_of_another_form(tmp_path, names, words):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    reads = [lambda: hf_tensors.TensorFolder(tmp_path), lambda: load_target(tmp_path)]
    for read in reads:
        message = refusal(read)
        assert str(tmp_path) in message and all(word in message for word in words)


def test_an_adapter_beside_weights_is_doubted(target_folder):
    (target_folder / "adapter_config.json").write_text("{}")
    assert load_target(target_folder)[0] == TARGET
    assert "adapter" in doubts(target_folder)[0]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5368709120\n"


@pytest.mark.parametrize("name", (SINGLE, "config.json", INDEX, "pytorch_model.bin"))
def test_git_lfs_pointers(target_folder, name):
    if name != "config.json":
        (target_folder / SINGLE).unlink()
    (target_folder / name).write_text(POINTER)
    message = refusal(lambda: load_target(target_folder))
    assert str(target_folder / name) in message and "git lfs pull" in message


def write_raw(path, name, dtype, item_bytes):
    """Writes one tensor of a file again as numbers that numpy has not."""
    tensors = load_file(path)
    shape = tensors.pop(name).shape
    save_file(tensors, path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    size = int(np.prod(shape) * item_bytes)
    offsets = [len(data), len(data) + size]
    header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data + bytes(size))


@pytest.mark.parametrize(
    ("dtype", "item_bytes"),
    (("F8_E4M3", 1), ("F8_E5M2", 1), ("I8", 1), ("U8", 1), ("I32", 4), ("C64", 8), ("F4", 0.5)),
)
@pytest.mark.parametrize("kind", ("target", "draft"))
def test_numbers_that_are_no_floats(target_folder, draft_folder, kind, dtype, item_bytes):
    """Of a plain cast, about which config.json is silent."""
    folder = target_folder if kind == "target" else draft_folder
    name = (
        "model.layers.2.mlp.up_proj.weight" if kind == "target" else "midlayer.mlp.up_proj.weight"
    )
    write_raw(folder / SINGLE, name, dtype, item_bytes)
    for read in (load_target if kind == "target" else load, doubts):
        message = refusal(lambda read=read: read(folder))
        assert str(folder / SINGLE) in message and "quantised" in message


@pytest.mark.parametrize(
    "scale",
    (
        "q_proj.weight_scale",
        "q_proj.weight_scale_inv",
        "q_proj.input_scale",
        "q_proj.qweight",
        "q_proj.scales",
        "q_proj.SCB",
        "q_proj.weight.absmax",
        "q_proj.weight.quant_state.bitsandbytes__nf4",
        "q_proj.weight_packed",
    ),
)
def test_scales_beside_weights(target_folder, draft_folder, scale):
    for folder, layer in ((target_folder, "model.layers.1"), (draft_folder, "layers.0")):
        name = f"{layer}.self_attn.{scale}"
        rewrite(folder, lambda t, name=name: t.update({name: np.ones(1, np.float32)}))
        message = refusal(lambda folder=folder: doubts(folder))
        assert name in message and "quantised" in message


def test_modelopts_file_beside_a_config_that_is_silent(target_folder, draft_folder):
    record = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    for folder in (target_folder, draft_folder):
        (folder / "hf_quant_config.json").write_text(json.dumps(record))
    message = refusal(lambda: load_target(target_folder))
    assert "hf_quant_config.json" in message and "FP8" in message
    assert load(draft_folder).config == DRAFT  # a copy of its target's: its weights are plain
    assert "hf_quant_config.json" in doubts(draft_folder)[0]
    record["quantization"]["quant_algo"] = None  # of the cache alone
    (target_folder / "hf_quant_config.json").write_text(json.dumps(record))
    assert load_target(target_folder)[0] == TARGET


@pytest.mark.parametrize(
    "called",
    (
        Global("torch._utils", "_rebuild_tensor_v3"),
        Global("torch._utils", "_rebuild_qtensor"),
        Global("torch._tensor", "_rebuild_from_type_v2"),
        Global("torch", "QInt8Storage"),
        Global("torch", "ComplexFloatStorage"),
    ),
)
def test_a_torch_file_of_other_numbers(draft_folder, called):
    (draft_folder / SINGLE).unlink()
    program = instructions({"fc.weight": Call(called, ())})
    path = draft_folder / "pytorch_model.bin"
    path.write_bytes(torch_writer.archive({"archive/data.pkl": program}))
    message = refusal(lambda: load(draft_folder))
    assert str(path) in message and called.name in message and "quantised" in message


def test_a_draft_with_its_targets_quantization_config(draft_folder):
    edit(draft_folder, quantization_config={"quant_method": "fp8"})
    assert load(draft_folder).config == DRAFT and "fp8" in doubts(draft_folder)[0]


def test_inspection_says_all_of_it_without_weights(target_folder, draft_folder):
    edit(draft_folder, num_hidden_layers=28, eagle_config={"layer_ids": [1, 2, 4]})
    whole_beside_shards(target_folder)
    found = inspect.read_pair_config(target_folder, draft_folder, CYCLE, None, None)
    words = ("index", "num_hidden_layers", "`feature_layers`")
    assert all(any(word in doubt for doubt in found.doubts) for word in words)
    pair = pairs.load(target_folder, draft_folder, cycle=CYCLE)
    assert pair.config == found.config and set(found.doubts) <= set(pair.remarks)


def test_inherited_heads_do_not_overrule_channels_that_the_keys_agree_with(target_folder):
    """A config with another model's number of heads, and its own head_dim."""
    right = hf_weights.read_target_settings(target_folder).config
    edit(target_folder, num_attention_heads=2 * right.head_count, head_dim=right.head_dim)
    found = hf_weights.read_target_settings(target_folder)
    assert found.config == right and any("num_attention_heads" in doubt for doubt in found.doubts)
