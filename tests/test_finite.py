"""What is not finite is found, and named by its place."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import struct

from ltd_jax import files, finite
from ltd_jax.files import UserError


@struct.dataclass
class Weights:
    kernel: jax.Array
    bias: jax.Array


GOOD = Weights(jnp.ones((2, 3)), jnp.zeros(3))
FAULTS = {
    "kernel[1, 2] is nan": GOOD.replace(kernel=GOOD.kernel.at[1, 2].set(jnp.nan)),
    "bias[0] is infinite": GOOD.replace(bias=GOOD.bias.at[0].set(-jnp.inf)),
    "rows[1].rate is nan": {"rows": [{"rate": 1.0}, {"rate": float("nan"), "name": "a"}]},
    "a.b[1] is infinite": {"a": {"b": np.array([1, np.inf], np.float16)}},
    "[0][1] is nan": [np.array([0, np.nan], ml_dtypes.bfloat16)],
    "it is nan": jnp.float32(jnp.nan),
}
FINE = [
    *(GOOD, {}, None, {"text": "nan", "count": 3, "none": None, "yes": True}),
    *(np.arange(3), np.float32(3e38), jax.random.key(0), np.zeros((0, 2))),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault):
    assert finite.first_fault(FAULTS[fault]) == fault
    with pytest.raises(UserError, match="^Cannot write x: .*, no finite number; go away.$"):
        files.require_finite("Cannot write x", FAULTS[fault], remedy="go away")


@pytest.mark.parametrize("tree", FINE, ids=str)
def test_what_is_finite_passes(tree):
    assert finite.first_fault(tree) is None
    files.require_finite("Cannot write x", tree, remedy="go away")


def test_compiled_programs_see_the_same():
    check = jax.jit(finite.all_finite)
    assert check(GOOD) and check((GOOD, jnp.arange(3), jax.random.key(0))) and check(())
    assert check(jnp.full(9, 3e38)) and check(jnp.full(9, 6e4, jnp.float16))  # but for their sum
    for tree in FAULTS.values():
        if isinstance(tree, Weights | jax.Array):
            assert not check(tree)
