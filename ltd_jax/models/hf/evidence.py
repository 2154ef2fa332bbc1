"""What the tensors of a folder say of its model, where its config.json says otherwise or nothing.

One rule: shapes and presence of tensors decide what they can decide, the config decides the rest.
A tensor that is there is evidence. One that is missing is none, for then the checkpoint may be
incomplete: but where two forms are usual (a head that is tied or shared, a draft's layers of which
its config inherited another number, biases, which are zero where they are missing), what is there
decides. What the network would read is applied, or refused by name; so is every other tensor that
is not known to be left over (`LEFTOVERS`).
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from ltd_jax.config import TargetConfig
from ltd_jax.files import UserError
from ltd_jax.models.hf.config import Settings
from ltd_jax.models.hf.tensors import TensorFolder

BLOCK_BYTES = 16 * 2**20
HEAD = "lm_head.weight"
LAYER = "midlayer."  # of a draft's first layer, as EAGLE names it
EAGLE3_MARK = f"{LAYER}hidden_norm.weight"  # no other kind of draft has it
GRIFFIN_MARK = "fc.fc.weight"  # no other kind of draft has it
QUERY = f"{LAYER}self_attn.q_proj.weight"
LEFTOVERS = re.compile(  # tensors that no text depends on
    r".*rotary_emb\.(inv_freq|cos_cached|sin_cached)"  # are computed
    r"|.*\.masked_bias"  # of a mask
    r"|(model\.)?mtp\..*|v_head\..*"  # other heads: the next tokens' and a value's
    r"|.*\.([qkv]|prob|prob_output)_scale"  # of a quantised cache
    r"|verifier_norm\.weight|verifier_lm_head\.weight"  # copies of the target's
    r"|t2d"  # a mask that follows from d2t
)
SCALES = re.compile(  # tensors beside weights that are no plain numbers
    r".*(weight_scale(_inv|_2)?|input_scale(_inv)?|weight_zero_point|weight_packed|weight_shape"
    r"|weight_g_idx|qweight|qzeros|scales|g_idx|absmax|quant_map|quant_state\..*|SCB|scale_inv)"
)


def refuse_quantised(files: TensorFolder) -> None:
    """UserError that names a tensor of quantised weights, if there is any."""
    for name in files:
        if SCALES.fullmatch(name):
            raise UserError(
                f"{files.folder} holds quantised weights (it has {files.stored[name]}), which "
                "cannot be read; give the unquantised model."
            )


def refuse_unknown(files: TensorFolder, known: Iterable[str]) -> None:
    """UserError that names tensors which are neither read nor left over."""
    unknown = {*files} - {*known}
    names = [files.stored[name] for name in sorted(unknown) if not LEFTOVERS.fullmatch(name)]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UserError(
            f"{files.folder} holds {', '.join(names[:3])}{more}, which would change what the model "
            "says and are not known here; it cannot be read."
        )


def of_target(files: TensorFolder, settings: Settings) -> dict[str, Any]:
    """What a target's tensors overrule in its settings, and fields of `TargetConfig` they tell."""
    first = "model.layers.0."
    layers = _count(files, lambda index: f"model.layers.{index}.self_attn.q_proj.weight")
    stated = settings.fields.get("num_hidden_layers")
    if layers and isinstance(stated, int) and stated > layers:
        raise UserError(
            f"{settings.path} says num_hidden_layers {stated}, but model.layers.{layers} is not in "
            "the weights beside it; the checkpoint is incomplete."
        )
    if layers:
        settings.believe("num_hidden_layers", layers)
    _believe_shapes(files, settings, first)
    embedding = "model.embed_tokens.weight"
    _believe_vocabulary(files, settings, embedding)
    found = _attention_parts(files, first)
    if settings.architecture() == "Qwen3ForCausalLM":
        found["qk_norm"] = True  # it has them: without them it is incomplete
    _say_parts(settings, found)
    is_tied = settings.truth("tie_word_embeddings")
    if HEAD not in files:
        if "tie_word_embeddings" not in settings.fields:
            settings.doubts.append(f"{files.folder} has no {HEAD}: its embedding is its head, too.")
            is_tied = True
    elif is_tied and not files.are_equal(HEAD, embedding, BLOCK_BYTES):
        settings.doubts.append(
            f"{settings.path} says tie_word_embeddings, but {HEAD} beside it is another matrix and "
            "is read."
        )
        is_tied = False
    return found | {"tie_embeddings": is_tied}


def of_draft(
    files: TensorFolder, settings: Settings, target: TargetConfig, is_griffin: bool
) -> dict[str, Any]:
    """What a draft's tensors overrule in its settings, and fields of its config that they tell."""
    further = _count(files, lambda index: f"layers.{index + 1}.self_attn.q_proj.weight")
    settings.believe("num_hidden_layers", 1 if is_griffin else 1 + further)
    _believe_shapes(files, settings, LAYER)
    _believe_vocabulary(files, settings, "embed_tokens.weight")
    parts = _attention_parts(files, LAYER)
    if is_griffin:
        return {"attention_bias": parts["attention_bias"]}
    found = parts | {
        "fuse_bias": "fc.bias" in files,
        "own_head": HEAD in files,
        "feature_count": _features(files, settings, target),
        "draft_vocab_size": _vocabulary(files, settings, target),
    }
    for field, name in (("norm_before_fc", "input_norm"), ("norm_each_feature", "fc_norm.0")):
        if f"{name}.weight" in files:
            found[field] = True
    if HEAD not in files:
        whose = "its own embedding" if has_tied_head(files, settings) else "the target's"
        settings.remarks.append(f"The draft stores no head: {whose} is taken for it.")
    return found


def has_tied_head(files: TensorFolder, settings: Settings) -> bool:
    """Whether a draft without a head of its own reads its own embedding for it."""
    return "embed_tokens.weight" in files and settings.truth("tie_word_embeddings")


def _features(files: TensorFolder, settings: Settings, target: TargetConfig) -> int:
    """How many layers of the target a draft's `fc` reads; 3 where it cannot be told."""
    width = settings.count("target_hidden_size", target.hidden_size)
    shape = files.shape("fc.weight") if "fc.weight" in files else ()
    fits = len(shape) == 2 and shape[1] >= width and shape[1] % width == 0
    return shape[1] // width if fits else 3


def _vocabulary(files: TensorFolder, settings: Settings, target: TargetConfig) -> int:
    """The tokens of an EAGLE-3 draft: those of d2t, else the rows of its head, else all.

    Of a head for all tokens, rows beyond the target's are padding.
    """
    name = "d2t" if "d2t" in files else HEAD
    if name not in files:
        return target.vocab_size
    rows = _rows(files, name)
    if not rows:
        raise UserError(f"{files.folder} has a {name} without rows; the checkpoint is damaged.")
    settings.believe("draft_vocab_size", rows)
    return rows if name == "d2t" else min(rows, target.vocab_size)


def _believe_vocabulary(files: TensorFolder, settings: Settings, embedding: str) -> None:
    """Overrules the number of tokens by the rows of an embedding, if it is one."""
    shape = files.shape(embedding) if embedding in files else ()
    if len(shape) == 2 and shape[1] == settings.fields.get("hidden_size"):
        settings.believe("vocab_size", shape[0])


def _believe_shapes(files: TensorFolder, settings: Settings, first: str) -> None:
    """Overrules heads, their channels and the feed-forward's width by the first layer's shapes."""
    shape = lambda name: files.shape(f"{first}{name}") if f"{first}{name}" in files else None
    query, key = shape("self_attn.q_proj.weight"), shape("self_attn.k_proj.weight")
    norm, gate = shape("self_attn.q_norm.weight"), shape("mlp.gate_proj.weight")
    heads = settings.count("num_attention_heads")
    if query is None or len(query) != 2:
        return
    channels, rest = divmod(query[0], heads)
    has_norm = norm is not None and len(norm) == 1 and norm[0] and norm != (query[0],)
    if norm is not None and has_norm and query[0] % norm[0] == 0:
        channels, rest = norm[0], 0
        heads = query[0] // channels
        settings.believe("num_attention_heads", heads)
    if not has_norm and "head_dim" in settings.fields and key:
        stated, groups = settings.count("head_dim"), settings.count("num_key_value_heads", heads)
        if key[0] == groups * stated and query[0] % stated == 0:
            channels, rest, heads = stated, 0, query[0] // stated  # keys agree with these channels
            settings.believe("num_attention_heads", heads)
    if rest or not channels:
        raise UserError(
            f"{files.folder}: {files.stored[f'{first}self_attn.q_proj.weight']} has {query[0]} "
            f"rows, which {heads} heads cannot share evenly."
        )
    settings.believe("head_dim", channels)
    if key is not None and len(key) == 2 and key[1] == query[1] and key[0] % channels == 0:
        groups = key[0] // channels
        if groups and heads % groups == 0:
            settings.believe("num_key_value_heads", groups)
    if gate is not None and len(gate) == 2 and gate[1] == settings.fields.get("hidden_size"):
        settings.believe("intermediate_size", gate[0])


def _attention_parts(files: TensorFolder, first: str) -> dict[str, bool]:
    """Which biases and norms attention has, by the fields of a config."""
    return {
        "attention_bias": any(f"{first}self_attn.{x}_proj.bias" in files for x in "qkv"),
        "output_bias": f"{first}self_attn.o_proj.bias" in files,
        "qk_norm": any(f"{first}self_attn.{x}_norm.weight" in files for x in "qk"),
    }


def _say_parts(settings: Settings, found: dict[str, bool]) -> None:
    """Doubts where a target's family has other biases or norms than its tensors."""
    architecture = settings.architecture() or ""
    biased = settings.truth("attention_bias")
    usual = {
        "attention_bias": biased or architecture == "Qwen2ForCausalLM",
        "output_bias": biased and architecture != "Qwen2ForCausalLM",
        "qk_norm": architecture == "Qwen3ForCausalLM",
    }
    words = {
        "attention_bias": "biases of queries, keys and values",
        "output_bias": "biases behind attention",
        "qk_norm": "norms of queries and keys",
    }
    for field, word in words.items():
        if found[field] != usual[field]:
            has, said = ("has", "none") if found[field] else ("has no", "some")
            settings.doubts.append(
                f"{settings.path.parent} {has} {word}, of which its config.json says {said}; the "
                "weights are believed."
            )


def _rows(files: TensorFolder, name: str) -> int:
    """The first axis of a tensor; 0 of one without axes, which its reader refuses."""
    return (files.shape(name) or (0,))[0]


def _count(files: TensorFolder, name_of: Callable[[int], str]) -> int:
    """How many names of a row, from index 0 on, are there."""
    index = 0
    while name_of(index) in files:
        index += 1
    return index
