"""How often what is compiled: once per pair, controller and function, whatever the input."""

import dataclasses

import jax
import numpy as np
import pytest

from ltd_jax.config import PolicyConfig
from ltd_jax.cycle import prefill, step
from ltd_jax.decoding import generate
from ltd_jax.policies import networks, saved
from ltd_jax.policies import policy as policy_module
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
    shallow = whole.params.target.replace(layers=whole.params.target.layers[:3])
    return dataclasses.replace(whole, config=config, params=whole.params.replace(target=shallow))


def tokens(bursts):
    """All tokens in order."""
    return [token for burst in bursts for token in burst.tokens]


def compilations(jitted, run):
    """How many programs of a jitted function a run added."""
    before = jitted._cache_size()
    run()
    return jitted._cache_size() - before


def test_plain_decoding_compiles_its_step_once(pair):
    run = lambda: [tokens(generate.generate_plain(pair, one, NEW_TOKENS)) for one in PROMPTS]
    assert compilations(step.run_plain, run) == 1
    assert compilations(step.run_plain, run) == 0


def test_prompts_of_all_lengths_and_controllers_share_one_prefill(pair):
    seen = dataclasses.replace(POLICY.observation, recent=True)
    policy = dataclasses.replace(POLICY, observation=seen)
    remembering = networks.learned(pair.config.cycle, policy)
    rules = (policy_module.constant(), remembering)
    run = lambda: [prefill.prefill(pair, rule, one) for rule in rules for one in PROMPTS]
    assert compilations(prefill.prefill_chunk, run) <= 1  # plain decoding may have left it
    assert compilations(prefill.prefill_chunk, run) == 0
    assert prefill.prefill(pair, remembering, PROMPTS[0]).memory.size


def test_all_constants_share_one_cycle_and_give_one_text(pair):
    cycle, found = pair.config.cycle, []

    def run():
        for levels in range(1, cycle.max_levels + 1):
            for size in cycle.sizes:
                params = policy_module.constant_params(levels, size, cycle)
                bursts = generate.generate(
                    pair, policy_module.constant(), params, PROMPTS[-1], NEW_TOKENS
                )
                found.append(tokens(bursts))

    assert compilations(step.run_cycles, run) == 1
    assert all(text == found[0] for text in found)


def test_what_is_timed_is_the_program_that_decodes(pair):
    cycle = pair.config.cycle
    params = policy_module.constant_params(2, cycle.sizes[-1], cycle)
    ends = dataclasses.replace(pair, stop_tokens=(7,))
    for stopping in (ends, dataclasses.replace(pair, stop_tokens=(8,))):
        list(generate.generate_plain(stopping, PROMPTS[0], NEW_TOKENS))
        list(generate.generate(stopping, policy_module.constant(), params, PROMPTS[0], NEW_TOKENS))
    clock = CycleTimer(ends, policy_module.constant(), 8, cycle.cycles_per_call)
    assert compilations(step.run_plain, clock.plain_seconds) == 0
    assert compilations(step.run_cycles, lambda: clock.cycle_seconds(params)) == 0


def test_all_weights_of_the_policies_share_one_cycle(pair, tmp_path):
    cycle, found = pair.config.cycle, []
    drawn = networks.init_learned(jax.random.key(0), cycle, POLICY)
    saved.save(tmp_path, drawn, cycle, POLICY, {})
    restored = saved.load(tmp_path).params
    most = networks.forced(drawn, "most", len(cycle.sizes) - 1)

    def run():
        for params in (drawn, most, networks.forced(drawn, "least", 0), restored):
            policies = networks.learned(cycle, dataclasses.replace(POLICY))
            found.append(tokens(generate.generate(pair, policies, params, PROMPTS[0], NEW_TOKENS)))

    assert compilations(step.run_cycles, run) == 1
    plain = tokens(generate.generate_plain(pair, PROMPTS[0], NEW_TOKENS))
    assert found == [plain] * 4
