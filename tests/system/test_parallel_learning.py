"""Learning spread over eight devices gives what one device gives, up to the order of sums."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from ltd_jax.learning import environment as lessons, exact, joint, loop as both
from tests.learning import small

assert len(jax.devices()) == 8
mesh = jax.make_mesh((8,), (both.AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
lesson = lessons.observe_all(small.replay(0), small.CYCLE, small.POLICY)
for way, settings in ((exact, small.EXACT), (joint, small.JOINT)):
    found = []
    for where in (None, mesh):
        method = way.method(small.CYCLE, small.POLICY, settings, where)
        state = both.init(method, jax.random.key(0), jnp.float32(300), lesson, lesson)
        spread = state.starts.position.sharding.device_set
        assert len(spread) == (1 if where is None else 8), spread
        found.append(both.advance(method, state, lesson, lesson))
    (alone, one), (together, many) = found
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    jax.tree.map(compare, alone.params, together.params)
    jax.tree.map(compare, one, many)
    assert int(together.update) == 3
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, together.params)
    assert max(jax.tree.leaves(moved)) > 1e-2
print("same")
"""


def test_eight_devices_learn_what_one_learns() -> None:
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "same"
