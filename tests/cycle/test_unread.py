"""What a controller does not read is not computed in its compiled cycle."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from ltd_jax.baselines import rules
from ltd_jax.cycle import prefill, step
from ltd_jax.policies import policy as policy_module
from tests.cycle import tiny

CYCLE = dataclasses.replace(tiny.CONFIG.cycle, sizes=(0, 3))  # few: each is compiled
CONFIG = dataclasses.replace(tiny.CONFIG, cycle=CYCLE)
SVIP = rules.EntropyParams(*map(jnp.float32, (0.3, 0.15)), *map(jnp.int32, (3, 1)))


def by_root():
    """Drafts all levels where the target was sure."""
    return policy_module.constant()._replace(
        keep_drafting=lambda params, state, view: view.root_entropy < 1.0
    )


@pytest.mark.parametrize(
    ("rule", "params", "reads"),
    [
        (policy_module.constant(), policy_module.constant_params(3, 3, CYCLE), 0),
        (rules.entropy_rule(), SVIP, 1),
        (by_root(), policy_module.constant_params(3, 3, CYCLE), 2),
    ],
    ids=["constant", "svip", "by root"],
)
def test_entropies_are_computed_for_who_reads_them(rule, params, reads):
    weights = jax.eval_shape(lambda: tiny.pair(0).params)
    state = jax.eval_shape(lambda: prefill.empty_state(CONFIG, rule, jnp.float32))
    left, stops = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((), (1,)))
    lowered = step.run_cycles.lower(weights, CONFIG, rule, stops, params, state, left)
    text = lowered.compile().as_text()
    lines = [line for line in text.split("\n") if "/entropy/" in line]
    of_target = [line for line in lines if "branch" in line or "cond" in line]
    assert bool(lines) == (reads > 0)
    assert bool(of_target) == (reads == 2)
