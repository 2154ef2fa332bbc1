"""Conversations of a tiny target: their form by turns, their tokens by plain passes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.draft_training import talk
from ltd_jax.draft_training.talk import ANSWER, FORCED, USER, Opening, Script, TalkConfig
from ltd_jax.files import UserError
from ltd_jax.models import target
from tests.cycle import tiny

TARGET = tiny.CONFIG.target
TALK = TalkConfig(rows=6, slots=48, user_cap=5, answer_cap=14, again=0.7, again_room=16)
SCRIPT = Script(
    openings=(Opening((1, 2, 3), USER), Opening((1, 2), USER), Opening((9, 8, 7, 6), ANSWER)),
    to_answer=(50, 51),
    to_user=(60, 61, 62),
    ends=tuple(range(20, 30)),
)


def conversations(spoken):
    """Tokens, kinds, whether greedy, and whether it ended before the round did."""
    for token_N, kind_N, first_N, greedy_N in zip(*(part.T for part in spoken), strict=True):
        starts = np.flatnonzero(first_N)
        for start, end in zip(starts, [*starts[1:], len(token_N)], strict=True):
            part = slice(start, end)
            yield token_N[part].tolist(), kind_N[part].tolist(), greedy_N[start], end < len(token_N)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    params = tiny.pair(0).model.target
    rounds = list(talk.rounds(params, TARGET, TALK, SCRIPT, 2 * 6 * 96, folder, seed=3))
    assert len(rounds) == 2
    return folder, params, rounds


def turns_of(kinds):
    """Runs of one kind: (kind, length)."""
    edges = np.flatnonzero(np.diff(kinds)) + 1
    parts = np.split(np.asarray(kinds), edges)
    return [(int(part[0]), len(part)) for part in parts]


def test_conversations_have_the_form_of_the_script(spoken):
    seen = {"again": 0, "capped": 0, "asked": 0}
    for one in spoken[2]:
        for tokens, kinds, _, is_over in conversations(one):
            assert len(tokens) <= TALK.slots
            turns = turns_of(kinds)
            head = tuple(tokens[: turns[0][1]])
            openings = {opening.tokens: opening.speaker for opening in SCRIPT.openings}
            # A question may be empty: then what leads to the answer follows at once.
            silent = {(*one, *SCRIPT.to_answer) for one in openings if openings[one] == USER}
            openings |= dict.fromkeys(silent, ANSWER)
            if len(turns) > 1:
                assert turns[0][0] == FORCED and openings[head] == turns[1][0]
            place = 0
            for number, (kind, count) in enumerate(turns):
                words, rest = tokens[place : place + count], turns[number + 1 :]
                place += count
                if kind == USER:
                    assert count <= TALK.user_cap and not set(words) & set(SCRIPT.ends)
                    if rest:
                        assert rest[0][0] == FORCED and tokens[place] == SCRIPT.to_answer[0]
                        seen["asked"] += 1
                elif kind == ANSWER:
                    assert count <= TALK.answer_cap + 1
                    assert not set(words[:-1]) & set(SCRIPT.ends)
                    if rest:
                        assert words[-1] in SCRIPT.ends and rest[0][0] == FORCED
                        seen["again"] += 1
                    elif is_over and words[-1] not in SCRIPT.ends:
                        assert count == TALK.answer_cap or len(tokens) >= TALK.slots - 1
                        seen["capped"] += 1
                elif number and rest:
                    pieces = {SCRIPT.to_user: USER, SCRIPT.to_answer: ANSWER}
                    pieces[(*SCRIPT.to_user, *SCRIPT.to_answer)] = ANSWER
                    assert pieces[tuple(words)] == rest[0][0]
    assert min(seen.values()) > 0, seen


def test_what_is_chosen_is_what_the_target_says_there(spoken):
    _, params, rounds = spoken
    causal = jnp.tril(jnp.ones((TALK.slots, TALK.slots), bool))
    position = jnp.arange(TALK.slots)
    read = jax.jit(
        lambda token_T: target.forward(params, TARGET, token_T, position, causal, None)[0]
    )
    checked = {True: 0, False: 0}
    for tokens, kinds, is_greedy, _ in list(conversations(rounds[0]))[:12]:
        padded = np.zeros(TALK.slots, np.int32)
        padded[: len(tokens)] = tokens
        logits_TX = np.asarray(read(padded))
        for place in range(1, len(tokens)):
            said, row = tokens[place], logits_TX[place - 1]
            if kinds[place] == FORCED:
                continue
            if kinds[place] == ANSWER and is_greedy:
                assert said == row.argmax()
                checked[True] += 1
            else:
                heat = TALK.answer_temperature if kinds[place] == ANSWER else 1.0
                assert np.exp((row[said] - row.max()) / heat) >= TALK.least_share * 0.999
                checked[False] += 1
    assert min(checked.values()) > 20


def test_half_of_the_answers_are_greedy_and_rounds_differ(spoken):
    _, _, (one, two) = spoken
    share = np.mean([greedy for _, _, greedy, _ in [*conversations(one), *conversations(two)]])
    assert 0.25 < share < 0.75
    assert not (one.token == two.token).all()


def test_a_killed_round_is_the_same_when_it_is_done_again(spoken, tmp_path):
    folder, params, rounds = spoken
    last = folder / "round-0001.safetensors"
    content = last.read_bytes()
    last.unlink()
    again = list(talk.rounds(params, TARGET, TALK, SCRIPT, 2 * 6 * 96, folder, seed=3))
    for before, after in zip(rounds, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, before, after)
    last.write_bytes(content[:200])
    with pytest.raises(UserError, match="round-0001.safetensors is damaged"):
        list(talk.rounds(params, TARGET, TALK, SCRIPT, 2 * 6 * 96, folder, seed=3))
    last.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 4}, "another seed"),
        ({"script": SCRIPT._replace(to_answer=(52,))}, "another script"),
        ({"talk": dataclasses.replace(TALK, again=0.1)}, "another talk"),
    ],
)
def test_rounds_of_another_talk_are_not_gone_on_with(change, words, spoken):
    folder, params, _ = spoken
    asked = {"talk": TALK, "script": SCRIPT, "seed": 3} | change
    with pytest.raises(UserError, match=words):
        list(talk.rounds(params, TARGET, tokens=1, folder=folder, **asked))


def test_tokens_are_drawn_by_their_probability():
    random = np.random.default_rng(0)
    logits_X = random.normal(size=700) * 2  # more than two groups, the last one not full
    logits_X[[3, 300, 699]] = [6.0, 5.5, 5.0]
    heat, draws = 0.8, 40_000
    weight = np.exp((logits_X - logits_X.max()) / heat)
    weight[weight < 0.05] = 0
    logits = jnp.broadcast_to(jnp.asarray(logits_X, jnp.float32), (1000, 700))
    heats, sampled = jnp.full(1000, heat), jnp.zeros(1000, bool)

    @jax.jit
    def choose(logits_BX, key):
        return talk.choose(logits_BX, heats, sampled, 0.05, jax.random.uniform(key, (1000,)))

    drawn = np.concatenate([choose(logits, jax.random.key(seed)) for seed in range(draws // 1000)])
    share = np.bincount(drawn, minlength=700) / draws
    law = weight / weight.sum()
    assert set(np.flatnonzero(share)) <= set(np.flatnonzero(law))
    assert np.abs(share - law).max() < 4 * np.sqrt(0.25 / draws)
    greedy = talk.choose(logits[:2], jnp.ones(2), jnp.ones(2, bool), 0.05, jnp.full(2, 0.999))
    assert greedy.tolist() == [logits_X.argmax()] * 2


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"rows": 0}, "rows is 0"),
        ({"slots": 8}, "slots is 8"),
        ({"greedy": 1.5}, "greedy is 1.5 but must lie in 0..1"),
        ({"answer_temperature": 0.0}, "answer_temperature is 0.0, not above 0"),
    ],
)
def test_impossible_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TALK, **wrong)
