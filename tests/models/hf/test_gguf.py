"""GGUF files against the folder that they were made from; every refusal is one sentence."""

import dataclasses
import json
import sys
import warnings

import gguf as library
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from tokenizers import pre_tokenizers

import ltd_jax as ltd
from ltd_jax import text as texts
from ltd_jax.files import ASSETS, UserError
from ltd_jax.models.hf import gguf, hub, tensors, weights
from tests.models import folders

EMBEDDED = ASSETS / "target"
WIDE = dataclasses.replace(folders.TARGET, hidden_size=64, intermediate_size=96, head_dim=16)
FAMILIES = {
    "llama": {},
    "qwen2": {"attention_bias": True},
    "qwen3": {"qk_norm": True, "tie_embeddings": True},
}
SHORT = {long: short for short, long in (gguf.PARTS | gguf.NAMES).items()}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path, family="llama", config=folders.TARGET, kind=None, change=None, tokens=True):
    """A random target as a GGUF file, and its weights; `change` gets the writer."""
    config = dataclasses.replace(config, **FAMILIES[family])
    params = folders.target_params(config)
    writer = library.GGUFWriter(path, family)
    describe(writer, config)
    if tokens:
        add_tokenizer(writer)
    named = dict(weights._tensors(weights.target_table(config), params, jnp.float32))
    for name, values in named.items():
        *_, part, last = name.split(".")
        short = SHORT.get(name.removesuffix(f".{last}").split(".", 3)[-1])
        if name.startswith("model.layers."):
            short = f"blk.{name.split('.')[2]}.{short}"
        else:
            short = SHORT[name.removesuffix(f".{last}")]
        heads = {"q_proj": config.head_count, "k_proj": config.kv_head_count}.get(part)
        if heads and family == "llama":  # llama.cpp's order of rows
            rows = len(values) // heads // 2
            values = values.reshape(heads, 2, rows, -1).swapaxes(1, 2).reshape(values.shape)
        if kind is None or values.ndim == 1:
            writer.add_tensor(f"{short}.{last}", np.ascontiguousarray(values))
        else:
            quantised = library.quantize(np.ascontiguousarray(values), kind)
            writer.add_tensor(f"{short}.{last}", quantised, raw_dtype=kind)
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config, params


def describe(writer, config):
    """The metadata of a model."""
    writer.add_block_count(config.layer_count)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.head_count)
    writer.add_head_count_kv(config.kv_head_count)
    writer.add_key_length(config.head_dim)
    writer.add_context_length(128)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def add_tokenizer(writer, model="gpt2", pre="gpt-2", count=24):
    """A byte-level vocabulary of so many tokens; the first is a control token."""
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    words = ["<|end|>", *"abcdefghijklmnopqrst", "ab", "cd", "abcd"][:count]
    writer.add_token_list(words)
    writer.add_token_types([gguf.CONTROL] + [gguf.NORMAL] * (len(words) - 1))
    writer.add_token_merges(["a b", "c d", "ab cd"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_loads_as_the_folder_that_it_was_made_from(family, tmp_path):
    config, params = write(tmp_path / "m.gguf", family)
    folder = hub.folder_of(tmp_path / "m.gguf", "target")
    loaded_config, loaded = weights.load_target(folder, jnp.float32)
    assert dataclasses.replace(loaded_config, feature_layers=config.feature_layers) == config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert texts.stop_tokens(folder) == (0,)
    assert texts.open_chat(folder).encode([texts.Message("user", "abcde")]).tolist() == [23, 5]
    assert hub.name_of(folder) == "m" and hub.given_as(folder) == str(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_1])
def test_quantised_tensors_are_what_the_library_dequantises(kind, tmp_path):
    _, params = write(tmp_path / "m.gguf", "qwen2", WIDE, kind)
    folder = hub.folder_of(tmp_path / "m.gguf", "target")
    _, loaded = weights.load_target(folder, jnp.float32)
    given, read = (np.asarray(one.layers[3].down) for one in (params, loaded))
    library_says = library.dequantize(library.quantize(given.T, kind), kind).T
    np.testing.assert_array_equal(read, library_says)
    assert 0 < np.abs(read - given).max() < 0.1 * np.abs(given).max()


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q6_K])
def test_k_quants_are_read(kind, tmp_path):
    """The library writes none: random bytes, whose scales are numbers, stand for one."""
    block, size = library.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(0).integers(0, 60, (24, 256 // block * size), np.uint8)
    path = tmp_path / "m.gguf"
    add = lambda writer: writer.add_tensor("blk.9.ffn_up.weight", raw, raw_dtype=kind)
    write(path, change=add)
    read = gguf.GGUFFile(path).read("model.layers.9.mlp.up_proj.weight")
    assert read.shape == (24, 256) and read.dtype == np.float32
    np.testing.assert_array_equal(read, library.dequantize(raw, kind))


def test_a_pair_decodes_from_a_file(tmp_path):
    write(tmp_path / "m.gguf")
    weights.save_draft(tmp_path / "draft", folders.DRAFT, folders.draft_params(), jnp.float32)
    cycle = ltd.CycleConfig(beam_width=2, max_levels=2, sizes=(0, 2), context=64)
    pair = ltd.load(tmp_path / "m.gguf", tmp_path / "draft", cycle=cycle)
    fast, plain = (
        [token for step in steps for token in step.tokens]
        for steps in (
            ltd.generate(pair, ltd.Constant(2, 2), "abcd", 12),
            ltd.generate_plain(pair, "abcd", 12),
        )
    )
    assert fast == plain and pair.names[0] == "m"


def test_the_settings_are_written_once_for_a_file_as_it_is(tmp_path):
    path = tmp_path / "m.gguf"
    write(path)
    folder = gguf.folder_of(path)
    written = (folder / "config.json").stat().st_mtime_ns
    assert gguf.folder_of(path) == folder
    assert (folder / "config.json").stat().st_mtime_ns == written
    before = tensors.fingerprint(folder)
    write(path, "qwen2")
    other = gguf.folder_of(path)
    assert other != folder and tensors.fingerprint(other) != before
    (tmp_path / "tokenizer.json").write_bytes((EMBEDDED / "tokenizer.json").read_bytes())
    beside = gguf.folder_of(path)
    assert (beside / "tokenizer.json").read_text() == (EMBEDDED / "tokenizer.json").read_text()


@pytest.mark.parametrize(
    "pre, pieces",
    {
        "smollm": ["in", "Ġ", "2", "0", "2", "6", "Ġit", "'s"],
        "llama-bpe": ["in", "Ġ", "202", "6", "Ġit", "'s"],
        "qwen2": ["in", "Ġ", "2", "0", "2", "6", "Ġit", "'s"],
        "gpt-2": ["in", "Ġ2026", "Ġit", "'s"],
    }.items(),
)
def test_texts_are_split_as_llama_cpp_calls_it(pre, pieces, tmp_path):
    change = lambda writer: writer.add_tokenizer_pre(pre)
    write(tmp_path / "m.gguf", change=change, tokens=False)
    file = gguf.GGUFFile(tmp_path / "m.gguf")
    file.field = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": [],
    }.get
    splitter = gguf.tokenizer_of(file, ["a"], None).pre_tokenizer
    assert [piece for piece, _ in splitter.pre_tokenize_str("in 2026 it's")] == pieces


def test_the_embedded_tokenizer_comes_back_from_its_metadata(tmp_path):
    source = json.loads((EMBEDDED / "tokenizer.json").read_text())["model"]

    def change(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(list(source["vocab"]))
        writer.add_token_types([gguf.NORMAL] * len(source["vocab"]))
        merges = source["merges"]
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])

    write(tmp_path / "m.gguf", change=change, tokens=False)
    folder = gguf.folder_of(tmp_path / "m.gguf")
    ours, theirs = texts.load_tokenizer(folder), texts.load_tokenizer(EMBEDDED)
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # gpt-2's, not its own
    text = "def read_lines(path):\n    return [line.strip() for line in open(path)]\n# äöü 12"
    encode = lambda one: one.encode(text, add_special_tokens=False).ids
    assert encode(ours) == encode(theirs) and ours.decode(encode(ours)) == text


def test_factors_by_frequency_become_those_of_longrope(tmp_path):
    factors = np.asarray([1.0, 8.0], np.float32)
    write(
        tmp_path / "m.gguf", change=lambda writer: writer.add_tensor("rope_freqs.weight", factors)
    )
    file = gguf.GGUFFile(tmp_path / "m.gguf")
    scaling = gguf.config_of(file)["rope_scaling"]
    assert scaling["rope_type"] == "longrope" and scaling["attention_factor"] == 1
    assert scaling["long_factor"] == scaling["short_factor"] == [1.0, 8.0]


def truncated(path):
    path.write_bytes(path.read_bytes()[:-4000])


def cut_header(path):
    path.write_bytes(path.read_bytes()[:700])


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")


def unknown_type(path):
    content = path.read_bytes()
    name = b"output_norm.weight"
    at = content.index(name) + len(name)
    dimensions = int.from_bytes(content[at : at + 4], "little")
    kind = at + 4 + 8 * dimensions
    path.write_bytes(content[:kind] + (99).to_bytes(4, "little") + content[kind + 4 :])


@pytest.mark.parametrize(
    "damage, words",
    [
        (truncated, ["cannot be read as GGUF", "truncated"]),
        (cut_header, ["cannot be read as GGUF", "truncated"]),
        (pointer, ["git-lfs"]),
        (unknown_type, ["cannot be read as GGUF", "99"]),
        (lambda path: path.write_bytes(b"no such thing"), ["cannot be read as GGUF"]),
        (lambda path: path.unlink(), ["There is no file"]),
    ],
)
def test_a_broken_file_is_one_sentence(damage, words, tmp_path):
    path = tmp_path / "m.gguf"
    write(path)
    damage(path)
    with pytest.raises(UserError) as raised:
        gguf.folder_of(path)
    assert all(word in str(raised.value) for word in [*words, "m.gguf"])
    assert not (tmp_path / "cache").exists() or not list(tmp_path.glob("cache/**/model.gguf"))


@pytest.mark.parametrize(
    "change, tokens, words",
    [
        (lambda w: w.add_architecture(), True, []),
        (lambda w: None, False, ["no tokenizer", "tokenizer.json"]),
        (lambda w: add_tokenizer(w, model="llama"), False, ["'llama'", "byte-level BPE"]),
        (lambda w: add_tokenizer(w, pre="tekken"), False, ["'tekken'", "tokenizer.json"]),
        (lambda w: w.add_expert_count(8), True, ["mixture of experts"]),
        (lambda w: w.add_rope_dimension_count(2), True, ["turns 2 of 4 channels"]),
        (lambda w: w.add_rope_scaling_factor(4.0) or w.add_string("llama.rope.scaling.type", "x"),
         True, ["rope.scaling.type 'x'"]),
    ],
)  # fmt: skip
def test_what_is_not_known_is_one_sentence(change, tokens, words, tmp_path):
    path = tmp_path / "m.gguf"
    if not words:
        writer = library.GGUFWriter(path, "gemma")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        words = ["architecture gemma", "llama, qwen2, qwen3"]
    else:
        write(path, change=change, tokens=tokens)
    with pytest.raises(UserError) as raised:
        gguf.folder_of(path)
    assert all(word in str(raised.value) for word in [*words, "m.gguf"])


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.add_array("llama.attention.head_count_kv", [2, 2, 1]),
        lambda w: w.add_uint32("llama.attention.head_count", 0),
        lambda w: w.add_string("llama.embedding_length", "wide"),
        lambda w: w.add_string("llama.rope.freq_base", "high"),
        lambda w: w.add_string("tokenizer.ggml.eos_token_id", "end"),
        lambda w: w.add_array("tokenizer.ggml.merges", [1, 2]),
    ],
)
def test_metadata_of_another_kind_is_one_sentence(change, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(tmp_path / "m.gguf", change=lambda w: w.kv_data[0].clear() or again(w, change))
    with pytest.raises(UserError, match=r"m\.gguf"):
        gguf.folder_of(tmp_path / "m.gguf")


def again(writer, change):
    """The usual metadata, some of it of another kind; a writer refuses to replace any."""
    change(writer)
    changed = dict(writer.kv_data[0])
    writer.kv_data[0].clear()
    writer.add_architecture()
    describe(writer, folders.TARGET)
    add_tokenizer(writer)
    writer.kv_data[0].update(changed)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"ltd-jax\[gguf\]"):
        gguf.folder_of(tmp_path / "m.gguf")
