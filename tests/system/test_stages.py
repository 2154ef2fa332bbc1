"""Compiled stages: none multiplies by an array of one number, and they agree with their operations.

XLA's CPU backend computes garbage for the maximum of a product with a constant array
(experiments/proofs/check_stages.py). Whether it does depends on shapes and on what memory holds, so
it is the programs that are looked at here: a factor whose entries are known to be equal is seen in
every one of them, however small.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.interpreters import partial_eval

from experiments.proofs import check_stages
from experiments.proofs.check_stages import Stage
from ltd_jax.draft_training import pack, talk
from ltd_jax.draft_training.loss import DraftLoss, Frozen
from ltd_jax.learning import environment, loop
from ltd_jax.learning.exact import Exact
from ltd_jax.learning.joint import Joint
from ltd_jax.models import draft, kv_cache, layers
from tests.cycle import tiny
from tests.draft_training.test_talk import SCRIPT, TALK
from tests.learning import small

CYCLE = dataclasses.replace(tiny.CONFIG.cycle, max_levels=3, sizes=(0, 6), short_catch_ups=())
CONFIG = dataclasses.replace(tiny.CONFIG, cycle=CYCLE)
LARGE = 24_891 / 5  # SmolLM2's largest feature of a first token over a tiny pair's
# Operations that make equal entries of equal entries.
KEEP = frozenset(
    "add broadcast_in_dim convert_element_type copy exp max min mul neg optimization_barrier "
    "reshape rev select_n slice squeeze sub transpose".split()
)


@pytest.fixture(scope="module")
def pair():
    """A tiny pair whose target has large features at a first token, as real ones do."""
    pair = tiny.pair(0)
    first = check_stages.tokens_of(pair, CYCLE.context)[0]
    target = pair.model.target
    target = target.replace(embedding=target.embedding.at[first].multiply(LARGE))
    return dataclasses.replace(pair, model=pair.model.replace(target=target, config=CONFIG))


@pytest.fixture(scope="module")
def stages(pair) -> dict[str, Stage]:
    return {stage.name: stage for stage in check_stages.stages(pair)}


def constant_factors(jaxpr: core.Jaxpr, uniform: frozenset[int] = frozenset()) -> Iterator[str]:
    """The products of a program, and of those in it, with a factor whose entries are all equal.

    Args:
      uniform: the places of arguments that are such arrays.
    """
    equal = {jaxpr.invars[place] for place in uniform}

    def is_equal(atom) -> bool:
        return isinstance(atom, core.Literal) or not atom.aval.shape or atom in equal

    for eqn in jaxpr.eqns:
        name, is_equal_argument = eqn.primitive.name, [is_equal(atom) for atom in eqn.invars]
        sizes = [atom.aval.size for atom in eqn.invars]
        if name == "dot_general":
            if any(same and size > 1 for same, size in zip(is_equal_argument, sizes, strict=True)):
                yield str(eqn)
        if name in KEEP and all(is_equal_argument):
            equal |= set(eqn.outvars)
        for program in core.jaxprs_in_params(eqn.params):
            skipped = len(eqn.invars) - len(program.invars)  # of a branch: its index
            places = {place - skipped for place in np.flatnonzero(is_equal_argument)}
            if name == "scan":  # what is carried or read in turns may change
                places &= set(range(eqn.params["num_consts"]))
            elif name == "while":
                places = set()
            inner = frozenset(place for place in places if place >= 0)
            yield from constant_factors(program, inner)


def of(function, *args) -> list[str]:
    program = jax.make_jaxpr(function)(*args).jaxpr
    used, _ = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
    return list(constant_factors(used))


def test_no_stage_multiplies_by_an_array_of_one_number(stages):
    found = {name: of(stage.program, *stage.args()) for name, stage in stages.items()}
    assert len(found) >= 12
    assert not {name: eqns for name, eqns in found.items() if eqns}


@pytest.mark.parametrize("way", [Exact, Joint])
def test_no_learning_does(way):
    settings = {Exact: small.EXACT, Joint: small.JOINT}[way]
    algorithm = way.of(small.POLICY, settings)
    data, validation = (
        environment.observe_all(each, small.POLICY.observation) for each in small.splits()
    )
    run = lambda key: loop.program(algorithm, key, jnp.float32(1), data, validation)
    assert not of(run, jax.random.key(0))


def test_draft_training_does_not(pair):
    config = dataclasses.replace(CONFIG.draft, hidden_size=CONFIG.target.hidden_size)
    target = pair.model.target
    start = draft.init(jax.random.key(0), config, target.embedding, jnp.arange(32))
    gradient = jax.grad(DraftLoss(config, CONFIG.target))
    scale = jnp.full((CONFIG.target.feature_size,), 2.0)
    frozen = Frozen(target, jnp.arange(32), scale)
    learned = start.replace(embedding=None, target_token=None)
    windows = jax.tree.map(jnp.asarray, pack.one_text_each(np.zeros((1, 24), np.int32)))
    assert not of(gradient, learned, frozen, windows)


def test_a_target_that_talks_does_not(pair):
    words = talk._words(SCRIPT)
    speak = lambda params, key: talk._speak(params, CONFIG.target, TALK, None, words, key)
    assert not of(speak, pair.model.target, jax.random.key(0))


def test_one_that_does_is_seen():
    x, zeros = jnp.ones((4, 6)), lambda: jnp.zeros((6, 5))
    scaled = lambda x: x @ (2 * zeros().T.reshape(6, 5) + 1)
    inner = lambda x: jax.jit(lambda x, w: x @ w)(x, zeros())
    row = lambda w: lambda carry, x_E: (carry, x_E @ w)
    scanned = lambda x: jax.lax.scan(row(zeros()), 0, x)
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x, w: x @ w, lambda x, w: w[:4], x, zeros())
    for wrong in (lambda x: x @ zeros(), scaled, inner, scanned, branch):
        assert len(of(wrong, x)) == 1
    for right in (lambda x: x @ x.T, lambda x: x @ zeros().at[0].set(1.0), lambda x: x @ x[0]):
        assert not of(right, x)
    query, key = jnp.ones((3, 4, 6)), jnp.ones((2, 3, 6))
    cache = lambda: kv_cache.empty(dataclasses.replace(tiny.CONFIG.draft, head_dim=6), 8, "float32")
    seen = jnp.tril(jnp.ones((3, 3), bool))
    attend = lambda past: lambda q: layers.attention(q, key, key, seen, past and past())
    assert len(of(attend(lambda: cache().layer(0)), query)) == 2 and not of(attend(None), query)


def test_a_stage_is_its_operations_one_by_one(pair, stages):
    row = check_stages.compare(pair, stages["record, one pass"])
    assert row.is_right and row.error < 1e-4
    assert row.numbers > 0 and row.integers_differing == 0


@pytest.mark.parametrize("number", [np.nan, np.inf, 0.5])
def test_a_stage_that_is_wrong_is_told(pair, number):
    def program(x):
        return x if jax.config.jax_disable_jit else x.at[3].set(number)

    row = check_stages.compare(pair, Stage("wrong", program, lambda: (jnp.ones(9),)))
    assert not row.is_right and row.not_finite == (number != 0.5)
    with_same = check_stages.compare(pair, Stage("right", jnp.sin, lambda: (jnp.ones(9),)))
    assert with_same.is_right and with_same.numbers == 9
