"""GGUF files as model folders: settings and tokenizer written beside a link, tensors as they are.

A GGUF file holds what a Hugging Face folder does under other names. `folder_of` writes its
config.json, tokenizer.json, tokenizer_config.json and generation_config.json into the user's cache,
with a link to the file itself, so that all else reads it like any folder; `GGUFFile` reads the
tensors and dequantises them one at a time. Needs `gguf` (the extra of this name).

Names and block formats: the GGUF specification of ggml. Rows of q and k stand in llama.cpp's order,
pairs side by side, in files of the llama architecture only.
"""

import functools
import hashlib
import importlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from ltd_jax import files
from ltd_jax.files import UserError

SUFFIX = ".gguf"
LINK = f"model{SUFFIX}"  # to the file, in its folder of the cache
SCHEMA = 1  # of what is written into the cache
CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}  # by architecture
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # of a layer
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
FREQUENCY_FACTORS = "rope_freqs.weight"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # types of tokens
DIGITS_ALONE = ("smollm", "refact", "starcoder", "command-r")
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    "llama-bpe": rf"{ENGLISH}|{LETTERS}|\p{{N}}{{1,3}}|{REST}",
    "qwen2": rf"{ENGLISH}|{LETTERS}|\p{{N}}|{REST}",
}  # what a text is cut into before merging, by the name of a pre-tokenizer


class Place(NamedTuple):
    """A tensor of the file."""

    stored: Any  # gguf's ReaderTensor
    shape: tuple[int, ...]
    heads: int  # whose rows stand in pairs; 0 = in the usual order

    @property
    def dtype(self) -> str:
        """The numbers' name in numpy, as they are read."""
        return "float32"


class GGUFFile:
    """The settings and tensors of one file.

    Raises:
      UserError: gguf is not installed, the file is missing, damaged, or of a model or of types that
        are not known here.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.gguf = path, _library(path)
        if not path.is_file():
            raise UserError(f"There is no file {path}; check the path.")
        files.refuse_pointer(path)
        try:
            self.reader = self.gguf.GGUFReader(path)
        except Exception as error:  # it lets through what numpy and its enums raise
            raise UserError(
                f"{path} cannot be read as GGUF ({error}); it is truncated, damaged, or has "
                "tensors of a type that the installed gguf does not know."
            ) from error
        self.architecture = self.field("general.architecture")
        if self.architecture not in CLASSES:
            raise UserError(
                f"{path} holds a model of the architecture {self.architecture}; known ones are "
                f"{', '.join(CLASSES)}."
            )
        if self.setting("expert_count", 0):
            raise UserError(f"{path} holds a mixture of experts, which is not known here.")
        self.factors: np.ndarray | None = None
        self.places: dict[str, Place] = {}
        for tensor in self.reader.tensors:
            shape = tuple(int(size) for size in reversed(tensor.shape))
            if tensor.name == FREQUENCY_FACTORS:
                self.factors = self._values(tensor)
                continue
            name, heads = self._canonical(tensor.name)
            self.places[name] = Place(tensor, shape, heads)

    def field(self, name: str, default: Any = None) -> Any:
        """A value of the metadata; the default where there is none."""
        found = self.reader.fields.get(name)
        return default if found is None else found.contents()

    def setting(self, name: str, default: Any = None) -> Any:
        """A value of the metadata of this architecture."""
        return self.field(f"{self.architecture}.{name}", default)

    def read(self, name: str) -> np.ndarray:
        """A tensor, dequantised to f32 where it is quantised, rows in the usual order."""
        tensor, shape, heads = self.places[name]
        values = self._values(tensor).reshape(shape)
        if not heads:
            return values
        pairs = values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(shape)

    def _values(self, tensor: Any) -> np.ndarray:
        try:
            return np.asarray(self.gguf.dequantize(tensor.data, tensor.tensor_type))
        except NotImplementedError as error:
            raise UserError(
                f"Tensor {tensor.name} in {self.path} is of type {tensor.tensor_type.name}, which "
                "the installed gguf cannot dequantise; give the file in another quantisation."
            ) from error

    def _canonical(self, name: str) -> tuple[str, int]:
        """The usual name of a tensor, and the heads whose rows stand in pairs in it."""
        stem, _, kind = name.rpartition(".")
        if stem in NAMES:
            return f"{NAMES[stem]}.{kind}", 0
        found = LAYER_TENSOR.fullmatch(name)
        if found is None or found[2] not in PARTS:
            return name, 0  # what no table asks for is reported by who reads the folder
        in_pairs = {}
        if self.architecture == "llama":
            heads = self.setting("attention.head_count")
            in_pairs = {"attn_q": heads, "attn_k": self.setting("attention.head_count_kv", heads)}
        layer, part, kind = found.groups()
        return f"model.layers.{layer}.{PARTS[part]}.{kind}", in_pairs.get(part, 0)


def _library(path: Path) -> Any:
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise UserError(
            f"Reading {path} needs the package gguf: install the extra ltd-jax[gguf]."
        ) from error


def folder_of(path: Path) -> Path:
    """The folder in the user's cache that stands for a GGUF file, written where it is missing.

    Raises:
      UserError: the file cannot be read, is of a model that is not known here, or the cache cannot
        be written.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the path.")
    path = path.resolve()
    state = path.stat()
    tokenizer = path.with_name("tokenizer.json")
    beside = tokenizer.stat().st_mtime_ns if tokenizer.exists() else None
    identity = f"{SCHEMA} {path} {state.st_size} {state.st_mtime_ns} {beside}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = files.user_cache() / "gguf" / digest / path.stem
    link = folder / LINK
    if link.exists():
        return folder
    try:
        contents = settings_of(GGUFFile(path))
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} has metadata that cannot be read ({error}); convert the model anew."
        ) from error
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with files.replacing(folder / name) as temporary:
                temporary.write_text(content, encoding="utf-8")
        link.unlink(missing_ok=True)
        os.symlink(path, link)
    return folder


def file_of(folder: Path) -> Path | None:
    """The GGUF file that a folder of the cache stands for; None for any other folder."""
    link = folder / LINK
    return Path(os.readlink(link)) if link.is_symlink() else None


def settings_of(file: GGUFFile) -> dict[str, str]:
    """The small files of the folder that a GGUF file stands for, by their names.

    A tokenizer.json beside the file wins over the tokenizer of its metadata.
    """
    beside = file.path.with_name("tokenizer.json")
    tokens = file.field("tokenizer.ggml.tokens") or []
    named = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token = file.field(f"tokenizer.ggml.{key}_token_id")
        if token is not None and token < len(tokens):
            named[name] = int(token)
    ids = {f"{name}_token_id": token for name, token in named.items() if name != "unk"}
    about_tokens = {f"{name}_token": tokens[token] for name, token in named.items()}
    template = file.field("tokenizer.chat_template")
    if template is not None:
        about_tokens["chat_template"] = template
    contents = {
        "config.json": config_of(file) | ids,
        "generation_config.json": ids,
        "tokenizer_config.json": about_tokens,
    }
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}
    if beside.exists():
        return texts | {beside.name: files.read_text(beside)}
    return texts | {beside.name: tokenizer_of(file, tokens, named.get("bos")).to_str()}


def config_of(file: GGUFFile) -> dict[str, Any]:
    """The fields of config.json that a file's metadata says.

    Raises:
      UserError: a field is missing, or asks for what is not known here.
    """

    def needed(name: str) -> Any:
        value = file.setting(name)
        if value is None:
            raise UserError(
                f"{file.path} has no {file.architecture}.{name}; the model cannot be built without "
                "it."
            )
        return value

    heads, hidden = needed("attention.head_count"), needed("embedding_length")
    per_layer = {
        "attention.head_count": heads,
        "attention.head_count_kv": file.setting("attention.head_count_kv"),
        "feed_forward_length": needed("feed_forward_length"),
    }
    for name, value in per_layer.items():
        if isinstance(value, list):
            raise UserError(f"{file.path} has another {name} in every layer, which is not known.")
    head_dim = file.setting("attention.key_length", hidden // heads)
    embedding = file.places.get("model.embed_tokens.weight")
    if embedding is None:
        raise UserError(f"{file.path} has no tensor token_embd.weight; it is no language model.")
    return {
        "architectures": [CLASSES[file.architecture]],
        "model_type": file.architecture,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": needed("feed_forward_length"),
        "num_hidden_layers": needed("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.setting("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": _shortest(needed("attention.layer_norm_rms_epsilon")),
        "max_position_embeddings": file.setting("context_length"),
        "rope_theta": _shortest(file.setting("rope.freq_base", 10_000.0)),
        "rope_scaling": rope_scaling_of(file, head_dim),
        "attention_bias": "model.layers.0.self_attn.o_proj.bias" in file.places,
        "tie_word_embeddings": "lm_head.weight" not in file.places,
    }


def _shortest(number: float) -> float:
    """The shortest decimal of an f32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def rope_scaling_of(file: GGUFFile, head_dim: int) -> dict[str, Any] | None:
    """The scaling of rotary positions as config.json has it; None = none.

    Factors by frequency, as files of Llama 3.1 have them, are what longrope has for both lengths.

    Raises:
      UserError: the scaling is of a kind that is not known here, or turns some channels only.
    """
    turned = file.setting("rope.dimension_count", head_dim)
    if turned != head_dim:
        raise UserError(f"{file.path} turns {turned} of {head_dim} channels, which is not known.")
    context = file.setting("rope.scaling.original_context_length", file.setting("context_length"))
    if file.factors is not None:
        factors = [float(factor) for factor in file.factors]
        return {
            "rope_type": "longrope",
            "short_factor": factors,
            "long_factor": factors,
            "attention_factor": 1.0,
            "original_max_position_embeddings": context,
        }
    factor = file.setting("rope.scaling.factor", file.setting("rope.scale_linear"))
    kind = file.setting("rope.scaling.type", "linear")  # llama.cpp's, where there is a factor
    if kind == "none" or not factor or factor == 1:
        return None
    if kind not in ("linear", "yarn"):
        raise UserError(
            f"{file.path} asks for rope.scaling.type {kind!r}, which is not known here."
        )
    scaling = {"rope_type": kind, "factor": _shortest(factor)}
    return scaling | ({"original_max_position_embeddings": context} if kind == "yarn" else {})


def tokenizer_of(file: GGUFFile, tokens: list[str], bos: int | None) -> Tokenizer:
    """The byte-level BPE tokenizer of a file's metadata.

    Raises:
      UserError: there is none, or it is of another kind.
    """
    helps = "put the tokenizer.json of the model that the file was made from beside it"
    kind = file.field("tokenizer.ggml.model")
    if kind is None or not tokens:
        raise UserError(f"{file.path} has no tokenizer; {helps}.")
    if kind != "gpt2":
        raise UserError(
            f"{file.path} has a tokenizer of the kind {kind!r}, of which only byte-level BPE "
            f"('gpt2') is read; {helps}."
        )
    merges = [tuple(merge.split(" ", 1)) for merge in file.field("tokenizer.ggml.merges", [])]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    splits = file.field("tokenizer.ggml.pre", "default")  # which llama.cpp guesses at
    is_llama = splits == "llama-bpe"  # whole words of the vocabulary win over merges
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=is_llama))
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{file.path} has a damaged tokenizer ({error}); {helps}.") from error
    _split_as(tokenizer, splits, file.path, helps)
    tokenizer.decoder = decoders.ByteLevel()
    types = file.field("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    for token, type_of in zip(tokens, types, strict=False):
        if type_of in (UNKNOWN, CONTROL, USER_DEFINED):
            is_special = type_of != USER_DEFINED
            tokenizer.add_tokens([AddedToken(token, special=is_special, normalized=False)])
    if file.field("tokenizer.ggml.add_bos_token", is_llama) and bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A",
            pair=f"{tokens[bos]} $A {tokens[bos]} $B",
            special_tokens=[(tokens[bos], bos)],
        )
    return tokenizer


def _split_as(tokenizer: Tokenizer, name: str, path: Path, helps: str) -> None:
    """Gives a tokenizer the pre-tokenizer of this name, as llama.cpp calls them."""
    by_bytes = functools.partial(pre_tokenizers.ByteLevel, add_prefix_space=False)
    if name in SPLITS:
        split = pre_tokenizers.Split(Regex(SPLITS[name]), behavior="isolated", invert=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, by_bytes(use_regex=False)])
    elif name in DIGITS_ALONE:
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, by_bytes()])
    elif name == "gpt-2":
        tokenizer.pre_tokenizer = by_bytes()
    else:
        raise UserError(f"{path} splits texts as {name!r}, which is not known; {helps}.")
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
