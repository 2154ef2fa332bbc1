"""A call of several cycles is these cycles one by one, and ends with the text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.cycle import prefill, step
from ltd_jax.cycle.step import PlainState
from tests.cycle import menu, tiny

SEED, CALLS = 3, 3
PROMPT, TEXT = tiny.prompts(SEED)[1], tiny.texts(SEED)[1]
NEW = TEXT[len(PROMPT) + 1 :]  # behind the root
MOST = menu.policy(menu.FIXED, 5, 12)
PLENTY = 1000
cycle = jax.jit(step.cycle)


@pytest.fixture(scope="module")
def pair():
    """The tiny pair with three cycles per call."""
    pair = tiny.pair(SEED)
    cycle = dataclasses.replace(pair.config.cycle, cycles_per_call=3)
    config = dataclasses.replace(pair.config, cycle=cycle)
    return dataclasses.replace(pair, model=pair.model.replace(config=config))


def start(pair):
    return prefill.with_history(pair, MOST, prefill.prefill(pair, np.array(PROMPT)))


def array(stops):
    """Two stop tokens in every call, so that all calls share one program."""
    return jnp.asarray((*stops, 10**6, 10**6)[:2], jnp.int32)


def call(pair, state, left, stops=()):
    state, done = step.run_cycles(pair.model, MOST, array(stops), state, jnp.int32(left))
    return state, jax.device_get(done)


def call_plain(pair, state, left, stops=()):
    state, done = step.run_plain(pair.model, array(stops), state, jnp.int32(left))
    return state, jax.device_get(done)


def test_calls_are_cycles_in_a_row(pair):
    N, single, state = pair.config.cycle.cycles_per_call, start(pair), start(pair)
    left = PLENTY
    for _ in range(CALLS):
        state, done = call(pair, state, left)
        assert done.count == N
        for row in range(N):
            single, result = cycle(pair.model, MOST, single)
            jax.tree.map(
                np.testing.assert_array_equal,
                jax.tree.map(lambda rows, row=row: rows[row], done.result),
                jax.device_get(result),
            )
            left -= int(result.committed)
        assert done.left == left
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, single)


def test_plain_calls_are_steps_in_a_row(pair):
    first, found, left = start(pair), [], len(NEW)
    state = PlainState(first.target_cache, first.root)
    while left:
        state, done = call_plain(pair, state, left)
        assert done.count == min(pair.config.cycle.cycles_per_call, left)
        found += done.token[: done.count].tolist()
        left -= int(done.count)
        assert done.left == left
    assert tuple(found) == NEW


@pytest.mark.parametrize("wanted", [1, 2, 5])
def test_no_cycle_runs_behind_the_wanted_tokens(pair, wanted):
    state, left, committed = start(pair), wanted, []
    while left:
        state, done = call(pair, state, left)
        committed += done.result.committed[: done.count].tolist()
        left = int(done.left)
    assert sum(committed[:-1]) < wanted <= sum(committed)
    _, done = call(pair, state, 0)
    assert (done.count, done.left) == (0, 0)


@pytest.mark.parametrize("place", [0, 3, 9])
def test_a_stop_token_ends_the_text(pair, place):
    stop = NEW[place]
    length = NEW.index(stop) + 1
    first = start(pair)
    state, left, found = first, PLENTY, []
    while left:
        state, done = call(pair, state, left, (stop,))
        for row in range(done.count):
            found += done.result.token[row, : done.result.committed[row]].tolist()
        left = int(done.left)
    assert tuple(found[:length]) == NEW[:length]
    assert len(found) < length + pair.config.cycle.path_length
    first, left, found = start(pair), PLENTY, []
    plain_state = PlainState(first.target_cache, first.root)
    while left:
        plain_state, done = call_plain(pair, plain_state, left, (stop,))
        found += done.token[: done.count].tolist()
        left = int(done.left)
    assert tuple(found) == NEW[:length]
