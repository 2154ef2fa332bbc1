"""Export: what is loaded again is the same bit for bit, under the names that others ask for."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from ltd_jax.config import Llama3Scaling, PairConfig
from ltd_jax.files import UserError
from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import config as hf_config
from ltd_jax.models.hf import export
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.models.pair import Model, Pair
from ltd_jax.presets import EMBEDDED_CYCLE
from tests.cycle import varieties
from tests.models.folders import DRAFT, TARGET, draft_params, target_params
from tests.models.hf.test_weights import assert_same_bits
from tests.models.refusal import refusal

SCALING = Llama3Scaling(8.0, 1.0, 4.0, 32)
FAMILIES = {
    "llama": {},
    "llama3.1, tied": {"rope_scaling": SCALING, "tie_embeddings": True},
    "qwen2": {"attention_bias": True},
    "qwen3": {"qk_norm": True, "head_dim": 6},
    "llama, biased": {"attention_bias": True, "output_bias": True},
    "qwen3, biased and sliding": {
        **{"qk_norm": True, "attention_bias": True, "output_bias": True},
        **{"sliding_window": 9, "sliding_layers": (1, 4)},
    },
    "qwen2, sliding": {"attention_bias": True, "sliding_window": 9, "sliding_layers": (6,)},
}
CYCLE = dataclasses.replace(varieties.CYCLE, beam_width=3)


def pair_of(dtype=jnp.float32, layers=TARGET.feature_layers, **fields) -> Pair:
    """A random pair of one family."""
    config = dataclasses.replace(TARGET, feature_layers=layers, **fields)
    target, draft = target_params(config, dtype), draft_params(dtype=dtype)
    draft = draft.replace(embedding=target.embedding)
    return Pair(Model(target, draft, PairConfig(config, DRAFT, CYCLE)), jnp.dtype(dtype))


@pytest.fixture
def sources(tmp_path) -> tuple[Path, Path]:
    """Folders with what is passed on: special tokens and tokenizer files."""
    for name in ("source/target", "source/draft"):
        (tmp_path / name).mkdir(parents=True)
        fields = {"bos_token_id": 7, "eos_token_id": [3, 4], "max_position_embeddings": 4096}
        (tmp_path / name / "config.json").write_text(json.dumps(fields | {"unknown": 1}))
    (tmp_path / "source/target/tokenizer.json").write_text("{}")
    (tmp_path / "source/target/generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    return tmp_path / "source/target", tmp_path / "source/draft"


def export_both(pair, sources, out, dialect="eagle", shard_bytes=10**9):
    export.export_target(out / "target", pair, sources[0], shard_bytes)
    return export.export_draft(out / "draft", pair, sources[1], dialect)


def load(root: Path) -> Pair:
    """The pair in two folders."""
    return pairs.load(root / "target", root / "draft", cycle=CYCLE, packed=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_export_then_load_is_the_same_pair(tmp_path, sources, family, dtype):
    pair = pair_of(dtype, **FAMILIES[family])
    assert export_both(pair, sources, tmp_path, shard_bytes=4000) == ()
    folders = tmp_path / "target", tmp_path / "draft"
    found = pairs.load(*folders, cycle=CYCLE, dtype=dtype, packed=False)
    assert found.config == pair.config
    assert_same_bits(found.model, pair.model)
    assert found.stop_tokens == (3, 4)


def test_names_files_and_fields_are_those_that_others_ask_for(tmp_path, sources):
    export_both(pair_of(), sources, tmp_path)
    index = json.loads((tmp_path / "target" / hf_tensors.INDEX).read_text())["weight_map"]
    assert index["model.embed_tokens.weight"] == "model-00001-of-00001.safetensors"
    target = hf_tensors.read_json(tmp_path / "target" / "config.json")
    assert (target["bos_token_id"], target["eos_token_id"]) == (7, [3, 4])
    assert target["max_position_embeddings"] == 4096 and "unknown" not in target
    assert (tmp_path / "target" / "tokenizer.json").exists()
    tensors = load_file(tmp_path / "draft" / "model.safetensors")
    layer = {name for name in tensors if name.startswith("midlayer.")}
    assert set(tensors) - layer == {"fc.weight", "norm.weight", "lm_head.weight", "d2t", "t2d"}
    assert len(layer) == 10 and tensors["d2t"].dtype == np.int64
    draft = hf_tensors.read_json(tmp_path / "draft" / "config.json")
    assert draft["architectures"] == ["LlamaForCausalLMEagle3"]
    assert (draft["draft_vocab_size"], draft["rope_scaling"]) == (8, None)


def test_the_other_dialect(tmp_path, sources):
    pair = pair_of()
    export_both(pair, sources, tmp_path, "layers.0")
    assert "layers.0.hidden_norm.weight" in load_file(tmp_path / "draft" / "model.safetensors")
    found = load(tmp_path)
    assert_same_bits(found.model, pair.model)


def test_a_drafts_own_embedding(tmp_path, sources):
    base = pair_of()
    draft = base.model.draft.replace(embedding=2 * base.model.target.embedding)
    pair = dataclasses.replace(base, model=base.model.replace(draft=draft))
    export_both(pair, sources, tmp_path)
    found = load(tmp_path)
    assert_same_bits(found.model, pair.model)


def test_a_window_that_no_family_has(tmp_path, sources):
    pair = pair_of(sliding_window=4, sliding_layers=(0,))
    assert "sliding" in refusal(lambda: export_both(pair, sources, tmp_path))


@pytest.mark.parametrize("name", ["deep and narrow", "the target's head"])
def test_what_eagles_own_code_has_not_is_written_and_said(tmp_path, sources, name):
    pair = varieties.pair(name)
    said = export.export_draft(tmp_path, pair, sources[1], dialect="layers.0")
    words = ("3 layers", "4 features", "norms", "biases", "sliding")
    for word in ("without a head",) if name == "the target's head" else words:
        assert any(word in doubt for doubt in said)
    target = pair.model.target
    found = hf_weights.load_draft(
        tmp_path, pair.config.target, target.embedding, jnp.float32, head=target.head
    )
    assert found.config == pair.config.draft
    assert_same_bits(found.params, pair.model.draft)


def test_a_griffin_pair(tmp_path, sources):
    found = export.export_draft(tmp_path, varieties.pair("griffin"), sources[1], dialect="eagle")
    assert found == ()
    assert "fc.mlp.up_proj.weight" in load_file(tmp_path / "model.safetensors")


def test_chosen_feature_layers_are_written(tmp_path, sources):
    pair = pair_of(layers=(0, 3, 5))
    (doubt,) = export_both(pair, sources, tmp_path)
    assert hf_config.LAYER_IDS in doubt
    found = load(tmp_path)
    assert found.config.target.feature_layers == (0, 3, 5)
    assert "cannot be written" in refusal(
        lambda: export_both(pair_of(layers=(1, 3, 5)), sources, tmp_path)
    )


def test_what_eagles_own_code_does_not_know_is_said(tmp_path, sources):
    config = dataclasses.replace(DRAFT, norm_before_fc=True, head_dim=8)
    base = pair_of()
    pair = dataclasses.replace(
        base,
        model=base.model.replace(
            draft=draft_params(config), config=dataclasses.replace(base.config, draft=config)
        ),
    )
    first, second = export_both(pair, sources, tmp_path)
    assert "norm_before_fc" in first and "head_dim" in second
    scaled = dataclasses.replace(DRAFT, rope_scaling=SCALING)
    save = lambda dialect: hf_weights.save_draft(
        tmp_path / dialect, scaled, draft_params(), np.float32, dialect
    )
    assert "layers.0" in refusal(lambda: save("eagle"))
    save("layers.0")
    found = hf_weights.load_draft(
        tmp_path / "layers.0", TARGET, draft_params().embedding, jnp.float32
    )
    assert found.config == scaled


def test_folders_of_the_pair_itself_are_not_overwritten(tmp_path):
    message = refusal(
        lambda: export.refuse_own_sources([tmp_path / "x" / ".." / "a"], [tmp_path / "a"])
    )
    assert str(tmp_path / "a") in message


def test_the_command_writes_the_embedded_pair(tmp_path):
    """The embedded pair is such a folder: written again, it has the same tensors."""
    done = subprocess.run(
        [sys.executable, "-m", "ltd_jax.cli", "export", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    how = {"cycle": EMBEDDED_CYCLE, "dtype": jnp.bfloat16, "packed": False}
    found = pairs.load(tmp_path / "target", tmp_path / "draft", **how)
    own = pairs.load(**how)
    assert found.config == own.config and found.stop_tokens == own.stop_tokens
    assert_same_bits(found.model, own.model)


@pytest.mark.parametrize(("dtype", "number"), [(np.float16, 7e4), (np.float32, np.nan)])
def test_weights_that_are_not_finite_in_the_dtype_are_not_written(tmp_path, dtype, number):
    params = target_params()
    broken = params.replace(norm=params.norm.at[1].set(number))
    name = np.dtype(dtype).name
    with pytest.raises(UserError, match=rf"in {name}: model.norm.weight\[1\] is .*`dtype`"):
        hf_weights.save_target(tmp_path, TARGET, broken, dtype)
