import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import PolicyConfig, SamplingConfig
from ltd_jax.cycle import step
from ltd_jax.cycle.step import CycleResult, Cycles
from ltd_jax.decoding import generate
from ltd_jax.decoding.generate import Step
from ltd_jax.files import UserError
from ltd_jax.policies import networks
from ltd_jax.policies.policy import Constant
from tests.cycle import menu, tiny

SEED = 3
TEXT, PROMPT = tiny.texts(SEED)[1], np.array(tiny.prompts(SEED)[1])
NEW = TEXT[len(PROMPT) :]
MOST = menu.policy(menu.FIXED, 5, 12)


def speculative(pair, new_tokens, prompt_T=PROMPT):
    """Bursts of the deepest, widest setting."""
    return list(generate.generate(pair, MOST, prompt_T, new_tokens))


def plain(pair, new_tokens, prompt_T=PROMPT):
    """Bursts of plain decoding."""
    return list(generate.generate_plain(pair, prompt_T, new_tokens))


def tokens(bursts):
    """All tokens in order."""
    return tuple(token for burst in bursts for token in burst.tokens)


@pytest.mark.parametrize("decode", [speculative, plain])
@pytest.mark.parametrize(
    "prompt_tokens, new_tokens, sentence",
    [(0, 4, "has no tokens; give at least one"), (95, 2, "has 95 tokens .* context holds 96")],
)
def test_what_does_not_fit_is_refused(decode, prompt_tokens, new_tokens, sentence):
    with pytest.raises(UserError, match=sentence):
        decode(tiny.pair(SEED), new_tokens, np.zeros(prompt_tokens, np.int32))


@pytest.mark.parametrize("decode", [speculative, plain])
@pytest.mark.parametrize("new_tokens", [0, 1, 2, 7, 16])
def test_just_as_many_tokens_come_as_were_asked_for(decode, new_tokens):
    assert tokens(decode(tiny.pair(SEED), new_tokens)) == NEW[:new_tokens]


@pytest.mark.parametrize("decode", [speculative, plain])
def test_a_text_may_fill_the_context(decode):
    context = tiny.CONFIG.cycle.context
    room = context - len(PROMPT)
    found = tokens(decode(tiny.pair(SEED), room))
    assert len(found) == room
    assert found[: len(NEW)] == NEW


@pytest.mark.parametrize("place", [0, 1, 5, 12])
def test_a_stop_token_ends_the_text(place):
    stop = NEW[place]
    expected = NEW[: NEW.index(stop) + 1]
    pair = tiny.pair(SEED, stop_tokens=(stop, 10**6))
    assert tokens(speculative(pair, len(NEW))) == tokens(plain(pair, len(NEW))) == expected


def test_the_first_burst_is_prefills_and_the_others_are_cycles():
    first, *others = speculative(tiny.pair(SEED), 30)
    assert first == Step((NEW[0],))
    for burst in others[:-1]:
        assert (burst.levels, burst.size) == (5, 12)
        assert len(burst.tokens) == burst.accepted + 1
    assert len(others[-1].tokens) <= others[-1].accepted + 1
    assert all(burst == Step(burst.tokens) for burst in plain(tiny.pair(SEED), 5))


def test_sequential_texts_are_reproducible():
    pair = tiny.pair(SEED).sampled(SamplingConfig(temperature=1.0, rule="sequential"), seed=1)
    text = tokens(speculative(pair, 30))
    assert tokens(speculative(pair, 30)) == text and len(text) == 30
    assert tokens(speculative(dataclasses.replace(pair, seed=2), 30)) != text


@pytest.mark.parametrize(
    "left, stops, expected",
    [
        (9, (), (7, 8, 9)),
        (2, (), (7, 8)),
        (9, (8,), (7, 8)),
        (9, (9, 7), (7,)),
        (1, (8,), (7,)),
        (9, (5,), (7, 8, 9)),  # what lies behind the committed tokens is no text
    ],
)
def test_steps_are_cut_at_the_length_and_after_the_first_stop(left, stops, expected):
    one = lambda value: np.asarray([value, 0])
    row = np.asarray([[7, 8, 9, 5, 5, 5], [0] * 6])  # the second cycle did not happen
    result = CycleResult(row, committed=one(3), accepted=one(2), levels=one(4), size_index=one(2))
    pair = tiny.pair(SEED, stop_tokens=stops)
    steps = list(generate.steps_of(Cycles(result, np.int32(1), np.int32(0)), pair, left))
    assert steps == [Step(expected, levels=4, size=12, accepted=2)]


def test_what_the_cycle_lacks_is_refused_before_anything_runs():
    with pytest.raises(UserError, match="size 5 is not one of the compiled sizes"):
        generate.generate(tiny.pair(SEED), Constant(2, 5), PROMPT, 4)


def test_a_warm_up_runs_every_size_and_every_catch_up_pass(monkeypatch):
    pair, seen, shares = tiny.pair(SEED), [], []
    cycle = pair.config.cycle

    def run_cycles(model, policy, stops, state, left):
        assert bool(policy.holds) and int(policy.constant.levels) == cycle.max_levels
        seen.append((int(policy.constant.size), int(state.pending.count), stops.tolist()))
        return state, left

    monkeypatch.setattr(step, "run_cycles", run_cycles)
    policy = networks.init(jax.random.key(0), cycle, PolicyConfig((4,), (4,), (4,), (4,)))
    assert generate.warm_up(pair, policy, shares.append) > 0
    sizes, rows, stops = zip(*seen, strict=True)
    assert set(sizes) == set(cycle.sizes) and set(rows) == set(cycle.catch_up_rows)
    assert all(token == -1 for each in stops for token in each)
    assert shares == sorted(shares) and shares[-1] == 1


def test_after_a_warm_up_nothing_is_compiled_and_a_choosing_policy_chooses():
    pair = tiny.pair(SEED)
    drawn = networks.init(
        jax.random.key(0), pair.config.cycle, PolicyConfig((4,), (4,), (4,), (4,))
    )
    for policy, program in ((drawn, step.run_cycles), (None, step.run_plain)):
        generate.warm_up(pair, policy)
        before = program._cache_size()
        steps = (
            generate.generate_plain(pair, PROMPT, 16)
            if policy is None
            else generate.generate(pair, policy, PROMPT, 16)
        )
        assert tokens(steps) == NEW[:16] and program._cache_size() == before


def overflowing(params):
    """The layers but two maps of the first, whose products are more than f32 can hold."""
    first, *rest = params.layers
    gate, up = first.gate_up
    return (first.replace(gate_up=(gate, up * 1e30), down=first.down * 1e30), *rest)


def broken(part, **changes):
    """The tiny pair with other weights of its target or draft."""
    pair = tiny.pair(SEED)
    params = getattr(pair.model, part).replace(**changes)
    return dataclasses.replace(pair, model=pair.model.replace(**{part: params}))


HOT = SamplingConfig(temperature=1.0)
SEQUENTIAL = SamplingConfig(temperature=1.0, rule="sequential")
NO_NUMBERS = {
    "nan": lambda params: {"norm": params.norm * jnp.nan},
    "infinite": lambda params: {"norm": params.norm.at[0].set(jnp.inf)},
    "overflow": lambda params: {"layers": overflowing(params)},
}


@pytest.mark.parametrize("decode", [speculative, plain])
@pytest.mark.parametrize("sampling", [None, HOT, SEQUENTIAL], ids=["greedy", "hot", "sequential"])
@pytest.mark.parametrize("how", NO_NUMBERS)
def test_a_target_that_gives_no_numbers_is_refused(decode, sampling, how):
    pair = broken("target", **NO_NUMBERS[how](tiny.pair(SEED).model.target))
    pair = pair if sampling is None else pair.sampled(sampling)
    with pytest.raises(UserError, match="The logits of random target are NaN or infinite in f"):
        decode(pair, 8)


@pytest.mark.parametrize("decode", [generate.generate_plain, generate.generate])
@pytest.mark.parametrize("place", [2, 7])
def test_a_text_ends_with_a_sentence_where_the_numbers_end(decode, place):
    """All is well until a token is read whose embedding is no number."""
    token = NEW[place]
    whole = tiny.pair(SEED).model.target.embedding
    pair = broken("target", embedding=whole.at[token].set(jnp.nan))
    asked = (PROMPT, 30) if decode is generate.generate_plain else (MOST, PROMPT, 30)
    found: list[int] = []
    with pytest.raises(UserError, match="The logits of random target"):
        for burst in decode(pair, *asked):
            found += burst.tokens
    assert tuple(found) == NEW[: len(found)] and len(found) <= NEW.index(token) + 1
    if decode is generate.generate_plain:
        assert len(found) == NEW.index(token) + 1


def test_a_draft_that_gives_no_numbers_is_refused_but_not_by_plain_decoding():
    norm = tiny.pair(SEED).model.draft.norm
    for pair in (broken("draft", norm=norm * jnp.nan), broken("draft", norm=norm + jnp.inf)):
        assert tokens(plain(pair, 8)) == NEW[:8]
        with pytest.raises(UserError, match="The logits of random draft are NaN or infinite in f"):
            speculative(pair, 8)
