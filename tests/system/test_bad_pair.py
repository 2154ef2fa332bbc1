"""Every broken folder: one clear sentence that names file and field, exit code 2."""

import dataclasses
import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ltd_jax.models.hf import weights as hf_weights
from tests.models import folders
from tests.system import tiny_pair
from tests.system.refusing import refusal

FIRST, SECOND = (f"model-0000{number}-of-00004.safetensors" for number in (1, 2))
INDEX = "model.safetensors.index.json"
FLAGS = ("--prompt", "hi", "--policy", "autoregressive", "--new-tokens", "8")


def change(path, **fields):
    """Changes fields of a JSON file; None takes one away."""
    found = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


def tensor(name, edit, folder="draft", file="model.safetensors"):
    """A damage that changes one tensor."""

    def damage(root):
        tensors = load_file(root / folder / file)
        found = edit(tensors.pop(name))
        save_file(tensors if found is None else tensors | {name: found}, root / folder / file)

    return damage


def extra(name):
    """A damage that adds a tensor to the draft."""

    def damage(root):
        path = root / "draft" / "model.safetensors"
        save_file(load_file(path) | {name: np.zeros(2, np.float32)}, path)

    return damage


def few_layers(root):
    """Not a damage: a target too small to have EAGLE-3's default layers."""
    config = dataclasses.replace(tiny_pair.TARGET, layer_count=3, feature_layers=())
    hf_weights.save_target(root / "target", config, folders.target_params(config), "float32")


def cut(path, count):
    path.write_bytes(path.read_bytes()[:count])


def field(folder, **fields):
    """A damage of config.json."""
    return lambda root: change(root / folder / "config.json", **fields)


def text(name, content, folder="target"):
    """A damage that writes another content into a file."""
    return lambda root: (root / folder / name).write_text(content)


def template(source):
    """A damage that puts another chat template."""
    return lambda root: change(root / "target" / "tokenizer_config.json", chat_template=source)


def set_value(index, value):
    def edit(array):
        array = array.copy()
        array.reshape(-1)[index] = value
        return array

    return edit


def as_torch_file(root, content):
    """The draft's weights as a torch file with a pickle of any content."""
    (root / "draft" / "model.safetensors").unlink()
    with zipfile.ZipFile(root / "draft" / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", content)


class Runs:
    """A pickle that would make a folder when it is loaded."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return (type(self.made).mkdir, (self.made,))


def move_tensor(root):
    index = json.loads((root / "target" / INDEX).read_text())
    index["weight_map"]["model.embed_tokens.weight"] = SECOND
    (root / "target" / INDEX).write_text(json.dumps(index))


def name_a_missing_file(root):
    (root / "target" / SECOND).unlink()


def no_index_entry(root):
    index = json.loads((root / "target" / INDEX).read_text())
    file = index["weight_map"].pop("model.norm.weight")
    (root / "target" / INDEX).write_text(json.dumps(index))
    tensor("model.norm.weight", lambda a: None, "target", file)(root)


Q = "midlayer.self_attn.q_proj.weight"
K = "midlayer.self_attn.k_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
BROKEN = {
    "truncated shard": (lambda r: cut(r / "target" / SECOND, 9000), [SECOND, "truncated"]),
    "empty shard": (lambda r: cut(r / "target" / FIRST, 0), [FIRST, "truncated"]),
    "shard of noise": (text(SECOND, "x" * 2000), [SECOND, "damaged"]),
    "index names a missing file": (name_a_missing_file, [INDEX, SECOND, "missing"]),
    "index names another shard": (move_tensor, [EMBEDDING, SECOND]),
    "index without a tensor": (no_index_entry, ["model.norm.weight", "target"]),
    "index without a map": (text(INDEX, "{}"), [INDEX, "weight_map"]),
    "index that is no JSON": (text(INDEX, "{"), [INDEX, "JSON"]),
    "index that leaves the folder": (
        text(INDEX, '{"weight_map": {"lm_head.weight": "../draft/model.safetensors"}}'),
        [INDEX, "../draft/model.safetensors"],
    ),
    "index that names an odd file": (
        text(INDEX, '{"weight_map": {"lm_head.weight": "config.json"}}'),
        [INDEX, "config.json"],
    ),
    "no weights": (lambda r: (r / "draft" / "model.safetensors").unlink(), ["draft", "weights"]),
    "no draft folder": (lambda r: (r / "draft").rename(r / "gone"), ["draft", "--draft"]),
    "folder is a file": (
        lambda r: ((r / "draft").rename(r / "gone"), (r / "draft").write_text("")),
        ["draft", "--draft"],
    ),
    "swapped shape": (tensor(K, lambda a: a.T.copy()), [K, "[6, 24]", "config.json"]),
    "one row less": (tensor(Q, lambda a: a[:-1]), [Q, "11 rows"]),
    "norm of another size": (tensor("norm.weight", lambda a: a[:-1]), ["norm.weight", "[11]"]),
    "NaN": (tensor(K, set_value(3, np.nan)), [K, "NaN"]),
    "infinity": (
        tensor(EMBEDDING, set_value(3, np.inf), "target", FIRST),
        [EMBEDDING, "infinity"],
    ),
    "whole numbers as weights": (tensor(K, lambda a: a.astype(np.int32)), [K, "int32"]),
    "truth values as weights": (tensor("norm.weight", lambda a: a > 0), ["norm.weight", "bool"]),
    "tensor missing": (tensor("fc.weight", lambda a: None), ["fc.weight", "draft"]),
    "d2t too large": (tensor("d2t", set_value(3, 900)), ["d2t", "903"]),
    "d2t negative": (tensor("d2t", set_value(0, -1)), ["d2t", "-1"]),
    "d2t twice": (tensor("d2t", set_value(1, 39)), ["d2t", "40"]),
    "d2t of fractions": (tensor("d2t", lambda a: a + 0.5), ["d2t", "float"]),
    "d2t and t2d disagree": (tensor("t2d", set_value(0, True)), ["d2t", "t2d"]),
    "t2d of another length": (tensor("t2d", lambda a: a[:-1]), ["t2d", "[259]"]),
    "no config": (lambda r: (r / "target" / "config.json").unlink(), ["config.json", "missing"]),
    "config is no JSON": (text("config.json", '{"vocab_size": 3,', "draft"), ["config.json"]),
    "config is a list": (text("config.json", "[]"), ["config.json", "object"]),
    "field missing": (field("target", hidden_size=None), ["config.json", "hidden_size"]),
    "field is a text": (field("target", num_hidden_layers="7"), ["num_hidden_layers"]),
    "field is negative": (field("draft", num_attention_heads=-2), ["num_attention_heads"]),
    "eps is a text": (field("target", rms_norm_eps="small"), ["config.json", "rms_norm_eps"]),
    "RoPE base is negative": (field("target", rope_theta=-1.0), ["config.json", "rope_theta"]),
    "another width": (field("target", hidden_size=16), [FIRST, "embed_tokens", "[260, 16]"]),
    "layers that are not there": (
        field("target", num_hidden_layers=9),
        ["target", "model.layers.7", "incomplete"],
    ),
    "few layers": (few_layers, ["target", "3 layers", "--feature-layers"]),
    "a tensor that is not known": (extra("norm.gain"), ["draft", "norm.gain", "not known"]),
    "another activation": (field("target", hidden_act="gelu"), ["config.json", "gelu"]),
    "unknown scaling": (
        field("target", rope_scaling={"rope_type": "xpos", "factor": 2}),
        ["config.json", "xpos"],
    ),
    "unknown architecture": (
        field("target", architectures=["MixtralForCausalLM"]),
        ["MixtralForCausalLM", "LlamaForCausalLM"],
    ),
    "no architecture": (field("target", architectures=None), ["config.json", "architecture None"]),
    "biases": (field("target", mlp_bias=True), ["config.json", "mlp_bias"]),
    "quantised weights": (
        field("target", quantization_config={"quant_method": "awq"}),
        ["config.json", "awq"],
    ),
    "latent attention": (
        field("draft", architectures=["Eagle3DeepseekV2ForCausalLM"], kv_lora_rank=4),
        ["Eagle3DeepseekV2ForCausalLM", "kv_lora_rank"],
    ),
    "four features, unnamed": (
        tensor("fc.weight", lambda a: np.concatenate([a, a[:, :12]], axis=1)),
        ["4 layers", "--feature-layers"],
    ),
    "draft of another vocabulary": (field("draft", vocab_size=300), ["vocab_size", "300", "260"]),
    "feature layers": (
        field("draft", eagle_aux_hidden_state_layer_ids=[5, 2, 9]),
        ["feature_layers", "(5, 2, 9)"],
    ),
    "no tokenizer": (lambda r: (r / "target" / "tokenizer.json").unlink(), ["tokenizer.json"]),
    "broken tokenizer": (text("tokenizer.json", '{"version": "1.0"'), ["tokenizer.json"]),
    "more tokens than the target": (
        lambda r: tiny_pair.tokenizer("ab", "cd", "ef", "hi").save(
            str(r / "target" / "tokenizer.json")
        ),
        ["tokenizer", "260"],
    ),
    "tokenizer settings": (text("tokenizer_config.json", "{"), ["tokenizer_config.json"]),
    "template raises": (
        template("{{ raise_exception('say please') }}"),
        ["tokenizer_config.json", "say please"],
    ),
    "template is no jinja": (template("{% for %}"), ["tokenizer_config.json", "rendered"]),
    "template divides by zero": (template("{{ 1 / 0 }}"), ["tokenizer_config.json", "zero"]),
    "template without end": (
        template("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"),
        ["tokenizer_config.json", "recursion"],
    ),
    "template reaches out": (
        template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        ["tokenizer_config.json", "unsafe"],
    ),
    "template is a number": (template(7), ["tokenizer_config.json", "chat_template"]),
    "template says nothing": (template("{# #}"), ["no tokens"]),
    "stop tokens": (text("generation_config.json", '{"eos_token_id": "</s>"}'), ["eos_token_id"]),
    "pickle without tensors": (
        lambda r: as_torch_file(r, pickle.dumps([1, 2], 2)),
        ["pytorch_model.bin", "list"],
    ),
    "pickle of a function": (
        lambda r: as_torch_file(r, pickle.dumps({"w": Runs(r / "made")}, 2)),
        ["pytorch_model.bin", "not run"],
    ),
    "pickle of noise": (lambda r: as_torch_file(r, b"\xff\xfe"), ["pytorch_model.bin"]),
    "torch file that is no zip": (
        lambda r: (
            (r / "draft" / "model.safetensors").unlink(),
            (r / "draft" / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00."),
        ),
        ["pytorch_model.bin"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pair(whole, tmp_path, monkeypatch, capsys, name):
    damage, words = BROKEN[name]
    root = tmp_path / "pair"
    shutil.copytree(whole, root)
    damage(root)
    where = ("--target", root / "target", "--draft", root / "draft")
    sentence = refusal("generate", monkeypatch, capsys, *where, *FLAGS)
    assert all(word in sentence for word in words), sentence
    assert not (root / "made").exists()
