"""Presets by device and target, and the paper's pairs at full size: nothing is allocated."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from experiments.studies.model_latency import LLAMA_3_1_8B, eagle3_draft
from ltd_jax import presets
from ltd_jax.config import AnyDraftConfig, CycleConfig, GriffinConfig, PairConfig, TargetConfig
from ltd_jax.cycle import prefill, step
from ltd_jax.models import draft, target
from ltd_jax.models.pair import Model
from ltd_jax.policies.policy import (
    EMBEDDED_EAGLE3,
    PAPER_EAGLE3,
    Constant,
    eagle3_default,
)

# The paper's targets, as their config.json files have them (Sec. 5 and Table 11).
LLAMA_3_8B = dataclasses.replace(LLAMA_3_1_8B, rope_scaling=None)
VICUNA_13B = TargetConfig(
    vocab_size=32000,
    hidden_size=5120,
    intermediate_size=13824,
    layer_count=40,
    head_count=40,
    kv_head_count=40,
    head_dim=128,
    rms_norm_eps=1e-6,
)
QWEN3_14B = TargetConfig(
    vocab_size=151936,
    hidden_size=5120,
    intermediate_size=17408,
    layer_count=40,
    head_count=40,
    kv_head_count=8,
    head_dim=128,
    rms_norm_eps=1e-6,
    rope_theta=1_000_000.0,
    qk_norm=True,
)
QWEN3_32B = dataclasses.replace(
    QWEN3_14B,
    intermediate_size=25600,
    layer_count=64,
    head_count=64,
    feature_layers=(0, 0, 0),  # the default for 64 layers, not the other model's
)
TARGETS = {
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_3_1_8B,
    "meta-llama/Meta-Llama-3-8B-Instruct": LLAMA_3_8B,
    "lmsys/vicuna-13b-v1.3": VICUNA_13B,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": LLAMA_3_1_8B,
    "Qwen/Qwen3-14B": QWEN3_14B,
    "Qwen/Qwen3-32B": QWEN3_32B,
}
# The Griffin draft of Table 11, as its authors' training config has it.
GRIFFIN_LLAMA_3_8B = GriffinConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=11008,
    head_count=32,
    kv_head_count=32,
    head_dim=128,
    rope_theta=500_000.0,
)
# As the model cards' safetensors metadata count them.
PARAMETERS = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "lmsys/vicuna-13b-v1.3": 13_015_864_320,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
}
FEATURE_LAYERS = {32: (2, 16, 29), 40: (2, 20, 37), 64: (2, 32, 61)}


GRIFFIN = "Meta-Llama-3-8B-Instruct with Griffin"
SAME_SHAPES = ("meta-llama/Meta-Llama-3-8B-Instruct", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B")
PAIRS = [*(name for name in TARGETS if name not in SAME_SHAPES), GRIFFIN]
CYCLE = dataclasses.replace(presets.PAPER_CYCLE, sizes=(0, 240))  # every size is traced alike


def model_shapes(name: str) -> Model:
    """Abstract bf16 weights of a pair, with its config."""
    if name == GRIFFIN:
        config = dataclasses.replace(LLAMA_3_8B, feature_layers=())
        draft_config: AnyDraftConfig = GRIFFIN_LLAMA_3_8B
    else:
        config = TARGETS[name]
        draft_config = eagle3_draft(config)

    def init() -> Model:
        key = jax.random.key(0)
        weights = target.init(key, config, jnp.bfloat16)
        tokens = jnp.arange(draft_config.draft_vocab_size)
        student = draft.init(key, draft_config, weights.embedding, tokens, weights.head)
        return Model(weights, student, PairConfig(config, draft_config, CYCLE))

    return jax.eval_shape(init)


@pytest.mark.parametrize("name", TARGETS)
def test_parameters_and_feature_layers_are_the_published_ones(name):
    model = model_shapes(name)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(model.target))
    assert count == PARAMETERS[name]
    config = model.config.target
    assert config.feature_layers == FEATURE_LAYERS[config.layer_count]


def test_the_griffin_drafts_own_parameters():
    """Fusion 2EE + E + 3EF, attention 4EE, feed-forward 4EF, norms 3E; E = 4096, F = 11008."""
    own = model_shapes(GRIFFIN).draft.replace(embedding=None, head=None, target_token=None)
    E, F = 4096, 11008
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(own))
    assert count == 6 * E * E + 7 * E * F + 4 * E


@pytest.mark.parametrize("name", PAIRS)
def test_a_prompt_and_a_call_trace_at_full_size(name):
    model = model_shapes(name)
    cycle = model.config.cycle
    number = jax.ShapeDtypeStruct((), jnp.int32)
    state = jax.eval_shape(lambda: prefill.empty_state(model.config, jnp.bfloat16))
    chunk = jax.ShapeDtypeStruct((cycle.prefill_chunk,), jnp.int32)
    last = jax.ShapeDtypeStruct((), jnp.bool_)
    filled = jax.eval_shape(prefill.prefill_chunk, model, state, chunk, *[number] * 3, last)
    assert filled == state
    policy = jax.eval_shape(lambda: Constant(levels=8, size=240).traced())
    stops = jax.ShapeDtypeStruct((1,), jnp.int32)
    after, done = jax.eval_shape(step.run_cycles, model, policy, stops, filled, number)
    assert after == state
    assert done.result.token.shape == (cycle.cycles_per_call, cycle.path_length)


@pytest.mark.parametrize(
    ("levels", "sizes", "expected"),
    [
        (12, (0, 4, 8, 16, 24, 40, 60, 80, 240), (8, 60)),
        (8, (0, 4, 8, 16, 24, 40, 60, 80), (8, 60)),
        (8, (0, 4, 8, 16, 24, 40), (8, 40)),
        (9, (0, 40, 80), (8, 40)),  # of two that are equally near the smaller
        (7, (0, 16, 60), (5, 16)),
        (6, (0, 4, 8, 16, 24), (5, 16)),
        (3, (0, 4, 8), (3, 8)),
    ],
)
def test_eagle3s_default_as_far_as_a_cycle_has_it(levels, sizes, expected):
    cycle = CycleConfig(beam_width=10, max_levels=levels, sizes=sizes, context=512)
    assert eagle3_default(cycle) == Constant(*expected)


def test_eagle3s_default_of_the_presets():
    assert eagle3_default(presets.PAPER_CYCLE) == PAPER_EAGLE3
    assert eagle3_default(presets.EMBEDDED_CYCLE) == EMBEDDED_EAGLE3


SMOLLM2 = TargetConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    layer_count=30,
    head_count=9,
    kv_head_count=3,
    head_dim=64,
    tie_embeddings=True,
    longest_text=8192,
)
LLAMA = dataclasses.replace(LLAMA_3_1_8B, longest_text=131072)
GIB = 2**30


@pytest.mark.parametrize("name", TARGETS)
def test_weights_are_counted_to_a_thousandth(name):
    assert presets.weight_count(TARGETS[name]) == pytest.approx(PARAMETERS[name], rel=1e-3)


@pytest.mark.parametrize(
    ("device", "target", "cycle", "policy", "context", "most"),
    [
        ("cpu", SMOLLM2, presets.CPU_CYCLE, presets.EMBEDDED_POLICY, 512, 8192),
        ("cpu", LLAMA, presets.CPU_CYCLE, presets.EMBEDDED_POLICY, 512, 131072),
        ("gpu", LLAMA, presets.PAPER_CYCLE, presets.PAPER_POLICY, 2048, 131072),
        ("tpu", SMOLLM2, presets.PAPER_CYCLE, presets.EMBEDDED_POLICY, 2048, 8192),
        ("gpu", VICUNA_13B, presets.PAPER_CYCLE, presets.PAPER_POLICY, 2048, 2048),
        ("cpu", dataclasses.replace(SMOLLM2, longest_text=256), None, None, 256, 256),
        ("gpu", dataclasses.replace(SMOLLM2, longest_text=1024), None, None, 1024, 1024),
        ("cpu", dataclasses.replace(SMOLLM2, longest_text=3), None, None, 64, 64),
        ("cpu", presets.EMBEDDED_TARGET, presets.EMBEDDED_CYCLE, None, 384, 384),
        ("gpu", presets.EMBEDDED_TARGET, presets.EMBEDDED_CYCLE, None, 384, 384),
        ("cpu", None, presets.CPU_CYCLE, presets.EMBEDDED_POLICY, 512, 512),
        ("gpu", None, presets.PAPER_CYCLE, presets.PAPER_POLICY, 2048, 2048),
    ],
)
def test_presets_follow_device_and_target(device, target, cycle, policy, context, most):
    preset = presets.of(device, target)
    assert (preset.cycle.context, preset.most_context) == (context, most)
    if cycle is not None:
        assert preset.cycle == dataclasses.replace(cycle, context=context)
    if policy is not None:
        assert preset.policy == policy


def test_memory_bounds_the_context():
    """A token of Llama-3.1-8B has 2 * 32 * 8 * 128 numbers in the caches, 2 bytes each: 128 KiB."""
    assert presets.of("gpu", LLAMA, 80 * GIB).most_context == 131072
    assert presets.of("gpu", LLAMA, 24 * GIB).most_context == 6 * GIB // 2**17
    assert presets.of("cpu", LLAMA, 24 * GIB).most_context == 6 * GIB // 2**18  # in float32
    assert presets.of("gpu", LLAMA, GIB // 2).cycle.context == 1024


@pytest.mark.parametrize(
    ("tokens", "context"),
    [(1, 512), (512, 512), (513, 1024), (1024, 1024), (3000, 4096), (5000, 8192), (9000, 8192)],
)
def test_the_context_grows_in_powers_of_two(tokens, context):
    assert presets.of("cpu", SMOLLM2).context_for(tokens) == context


def test_a_context_that_is_no_power_of_two_does_not_shrink():
    embedded = presets.of("cpu", dataclasses.replace(presets.EMBEDDED_TARGET, longest_text=2048))
    assert [embedded.context_for(tokens) for tokens in (10, 384, 385, 600)] == [384, 384, 512, 1024]


def test_small_trees_hold_the_constants_that_decode_fastest_there():
    cycle = presets.of("cpu", SMOLLM2).cycle
    for levels, size in ((2, 2), (3, 4), (4, 4), (4, 9)):
        Constant(levels, size).check(cycle)
