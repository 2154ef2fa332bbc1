"""The paper's pairs at full size, by shape alone: nothing is allocated."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest

from ltd_jax import presets
from ltd_jax.config import AnyDraftConfig, PairConfig
from ltd_jax.cycle import prefill, step
from ltd_jax.models import draft, target
from ltd_jax.models.pair import PairParams
from ltd_jax.policies import policy as policy_module

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
PAIRS = [*(name for name in presets.TARGETS if name not in SAME_SHAPES), GRIFFIN]
CYCLE = dataclasses.replace(presets.PAPER_CYCLE, sizes=(0, 60, 240))  # every size is traced alike


def pair_shapes(name: str) -> tuple[PairConfig, PairParams]:
    """Config and abstract bf16 weights of a pair."""
    if name == GRIFFIN:
        config = dataclasses.replace(presets.LLAMA_3_8B, feature_layers=())
        draft_config: AnyDraftConfig = presets.GRIFFIN_LLAMA_3_8B
    else:
        config = presets.TARGETS[name]
        draft_config = presets.eagle3_draft(config)

    def init() -> PairParams:
        key = jax.random.key(0)
        weights = target.init(key, config, jnp.bfloat16)
        tokens = jnp.arange(draft_config.draft_vocab_size)
        student = draft.init(key, draft_config, weights.embedding, tokens, weights.head)
        return PairParams(weights, student)

    return PairConfig(config, draft_config, CYCLE), jax.eval_shape(init)


@pytest.mark.parametrize("name", presets.TARGETS)
def test_parameters_and_feature_layers_are_the_published_ones(name):
    config, params = pair_shapes(name)
    found = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params.target))
    assert found == PARAMETERS[name]
    assert config.target.feature_layers == FEATURE_LAYERS[config.target.layer_count]


def test_the_griffin_drafts_own_parameters():
    """Fusion 2EE + E + 3EF, attention 4EE, feed-forward 4EF, norms 3E; E = 4096, F = 11008."""
    params = pair_shapes(GRIFFIN)[1].draft.replace(embedding=None, head=None, target_token=None)
    E, F = 4096, 11008
    found = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert found == 6 * E * E + 7 * E * F + 4 * E


@pytest.mark.parametrize("name", PAIRS)
def test_a_prompt_and_a_call_trace_at_full_size(name):
    config, params = pair_shapes(name)
    constant, cycle = policy_module.constant(), config.cycle
    number = jax.ShapeDtypeStruct((), jnp.int32)
    state = jax.eval_shape(lambda: prefill.empty_state(config, constant, jnp.bfloat16))
    chunk = jax.ShapeDtypeStruct((cycle.prefill_chunk,), jnp.int32)
    last = jax.ShapeDtypeStruct((), jnp.bool_)
    filled = jax.eval_shape(
        functools.partial(prefill.prefill_chunk, pair=config),
        params,
        state=state,
        token_T=chunk,
        next_token=number,
        count=number,
        is_last=last,
    )
    assert filled == state
    setting = jax.eval_shape(lambda: policy_module.constant_params(8, 60, cycle))
    run = lambda params, setting, state, left: step.run_cycles(
        params, config, constant, jnp.array([2]), setting, state, left
    )
    after, done = jax.eval_shape(run, params, setting, filled, number)
    assert after == state
    assert done.result.token.shape == (cycle.cycles_per_call, cycle.path_length)
