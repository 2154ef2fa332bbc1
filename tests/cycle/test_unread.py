"""What a policy does not read is not computed in its compiled cycle."""

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from ltd_jax.cycle import prefill, step
from ltd_jax.models import layers
from ltd_jax.policies.policy import Constant
from tests.cycle import tiny

CYCLE = dataclasses.replace(tiny.CONFIG.cycle, sizes=(0, 3))  # few: each is compiled
CONFIG = dataclasses.replace(tiny.CONFIG, cycle=CYCLE)


@struct.dataclass
class WhileFlat(Constant):
    """Drafts on where the draft was unsure."""

    def keep_drafting(self, history, view, config):
        return view.entropy[0] > 1.0


@struct.dataclass
class WhileRootIsSure(Constant):
    """Drafts all levels where the target was sure."""

    @property
    def needs_root_entropy(self):
        return True

    def keep_drafting(self, history, view, config):
        return view.root_entropy < 1.0


def exponentials(policy):
    """The shapes of what the compiled cycle of a policy takes the exponential of, with counts.

    An entropy is one exponential more. The names of operations would say it plainer, but XLA does
    not always keep them.
    """
    model = jax.eval_shape(lambda: tiny.pair(0).model.replace(config=CONFIG))
    state = jax.eval_shape(lambda: prefill.empty_state(CONFIG, jnp.float32))
    left, stops = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((), (1,)))
    text = step.run_cycles.lower(model, policy.traced(), stops, state, left).compile().as_text()
    return collections.Counter(re.findall(r"= f32(\S*?)\{\S* exponential\(", text))


def over_the_target(shape):
    """Whether a row of the shape holds the target's whole vocabulary."""
    assert CONFIG.target.vocab_size != CONFIG.draft.draft_vocab_size
    return shape.endswith(f"{CONFIG.target.vocab_size}]")


@pytest.fixture(scope="module")
def unread():
    """The exponentials of a cycle whose policy reads no entropy."""
    return exponentials(Constant(3, 3))


def test_entropies_that_nobody_reads_are_not_computed(unread, monkeypatch):
    monkeypatch.setattr(layers, "entropy", lambda log_prob_X: jnp.zeros(log_prob_X.shape[:-1]))
    jax.clear_caches()  # the cycle is traced once more
    assert exponentials(Constant(3, 3)) == unread
    jax.clear_caches()


def test_entropies_of_the_draft_are_computed_for_who_reads_them(unread):
    more = exponentials(WhileFlat(3, 3)) - unread
    assert more and not any(over_the_target(shape) for shape in more)


def test_the_roots_entropy_is_computed_for_who_reads_it(unread):
    more = exponentials(WhileRootIsSure(3, 3)) - unread
    assert more and all(over_the_target(shape) for shape in more)
