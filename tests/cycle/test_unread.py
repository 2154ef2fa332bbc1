"""What a policy does not read is not computed in its compiled cycle."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from ltd_jax.cycle import prefill, step
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


@pytest.mark.parametrize(
    ("kind", "reads"),
    [(Constant, 0), (WhileFlat, 1), (WhileRootIsSure, 2)],
    ids=["constant", "draft", "root"],
)
def test_entropies_are_computed_for_who_reads_them(kind, reads):
    model = jax.eval_shape(lambda: tiny.pair(0).model.replace(config=CONFIG))
    state = jax.eval_shape(lambda: prefill.empty_state(CONFIG, jnp.float32))
    left, stops = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((), (1,)))
    lowered = step.run_cycles.lower(model, kind(3, 3).traced(), stops, state, left)
    own = {"xla_backend_optimization_level": 1}  # a program of its own in the cache of the run
    text = lowered.compile(compiler_options=own).as_text()
    lines = [line for line in text.split("\n") if "/entropy/" in line]
    of_target = [line for line in lines if "branch" in line or "cond" in line]
    assert bool(lines) == (reads > 0)
    assert bool(of_target) == (reads == 2)
