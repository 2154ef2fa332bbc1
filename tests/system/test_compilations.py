"""How often what is compiled: once per pair, kind of policy and function, whatever the input."""

import dataclasses

import jax
import numpy as np
import pytest

from ltd_jax.config import PolicyConfig
from ltd_jax.cycle import prefill, step
from ltd_jax.decoding import generate
from ltd_jax.policies import networks, saved
from ltd_jax.policies.policy import Constant
from ltd_jax.replay.profile import CycleTimer
from tests.cycle import tiny

SEED = 3
PROMPTS = [np.array(tiny.texts(SEED)[2][:count]) for count in (1, 7, 8, 9, 30)]
NEW_TOKENS = 12
POLICY = PolicyConfig((8,), (8,), (8,), (8,))


@pytest.fixture(scope="module")
def pair():
    """Few layers, and shapes that no other test has: every compilation is this file's own."""
    whole = tiny.pair(SEED)
    config = dataclasses.replace(
        whole.config,
        target=dataclasses.replace(whole.config.target, layer_count=3, feature_layers=(0, 1, 2)),
        cycle=dataclasses.replace(
            whole.config.cycle, beam_width=3, max_levels=3, sizes=(0, 4), context=80
        ),
    )
    shallow = whole.model.target.replace(layers=whole.model.target.layers[:3])
    return dataclasses.replace(whole, model=whole.model.replace(target=shallow, config=config))


def tokens(steps):
    """All tokens in order."""
    return [token for step in steps for token in step.tokens]


def compilations(jitted, run):
    """How many programs of a jitted function a run added."""
    before = jitted._cache_size()
    run()
    return jitted._cache_size() - before


def always(learned, size_index):
    """The same policies, but for a size policy that always chooses one size."""
    (last,) = networks.layers_of(learned.size)[-1:]
    bias = jax.numpy.zeros_like(learned.size["params"][last]["bias"]).at[size_index].set(1e6)
    layers = learned.size["params"] | {last: learned.size["params"][last] | {"bias": bias}}
    return learned.replace(size={"params": layers})


def test_plain_decoding_compiles_its_step_once(pair):
    run = lambda: [tokens(generate.generate_plain(pair, one, NEW_TOKENS)) for one in PROMPTS]
    assert compilations(step.run_plain, run) == 1
    assert compilations(step.run_plain, run) == 0


def test_prompts_of_all_lengths_share_one_prefill(pair):
    run = lambda: [prefill.prefill(pair, one) for one in PROMPTS]
    assert compilations(prefill.prefill_chunk, run) <= 1  # plain decoding may have left it
    assert compilations(prefill.prefill_chunk, run) == 0


def test_all_constants_share_one_cycle_and_give_one_text(pair):
    cycle, texts = pair.config.cycle, []

    def run():
        for levels in range(1, cycle.max_levels + 1):
            for size in cycle.sizes:
                policy = Constant(levels, size)
                texts.append(tokens(generate.generate(pair, policy, PROMPTS[-1], NEW_TOKENS)))

    assert compilations(step.run_cycles, run) == 1
    assert all(text == texts[0] for text in texts)


def test_what_is_timed_is_the_program_that_decodes(pair):
    cycle = pair.config.cycle
    policy = Constant(2, cycle.sizes[-1])
    ends = dataclasses.replace(pair, stop_tokens=(7,))
    for stopping in (ends, dataclasses.replace(pair, stop_tokens=(8,))):
        list(generate.generate_plain(stopping, PROMPTS[0], NEW_TOKENS))
        list(generate.generate(stopping, policy, PROMPTS[0], NEW_TOKENS))
    timer = CycleTimer(ends, 8, cycle.cycles_per_call)
    assert compilations(step.run_plain, timer.plain_seconds) == 0
    assert compilations(step.run_cycles, lambda: timer.cycle_seconds(policy)) == 0


def test_all_weights_of_the_policies_share_one_cycle(pair, tmp_path):
    cycle, texts = pair.config.cycle, []
    drawn = networks.init(jax.random.key(0), cycle, POLICY)
    path = tmp_path / "policy.safetensors"
    saved.save(drawn, path, cycle, {})
    policies = (drawn, always(drawn, 0), always(drawn, len(cycle.sizes) - 1))

    def run():
        for policy in (*policies, saved.load(path).policy):
            texts.append(tokens(generate.generate(pair, policy, PROMPTS[0], NEW_TOKENS)))

    assert compilations(step.run_cycles, run) == 1
    plain = tokens(generate.generate_plain(pair, PROMPTS[0], NEW_TOKENS))
    assert texts == [plain] * 4
