"""Learning spread over eight devices gives what one device gives, up to the order of sums.

A training over a mesh that was killed goes on over the mesh, bit for bit.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import pathlib, tempfile
import jax, jax.numpy as jnp, numpy as np
from ltd_jax.config import PPOConfig
from ltd_jax.learning import alternate, environment, loop
from ltd_jax.learning.environment import EnvData, SizeEnvironment
from ltd_jax.learning.exact import Exact
from ltd_jax.learning.joint import Joint
from ltd_jax.policies.policy import Constant
from tests.learning import small

assert len(jax.devices()) == 8
mesh = jax.make_mesh((8,), ("environments",), axis_types=(jax.sharding.AxisType.Auto,))
simulator, widths = small.simulator(0), small.POLICY
observations = environment.observe_all(simulator, widths.observation)
constant = Constant(2, 2).traced()

def phase(widths, learning, mesh):
    return alternate.PhasePPO(
        policy="size",
        widths=widths,
        environment=SizeEnvironment(small.CYCLE, "average", widths.observation),
        settings=learning.joint,
        validate_every=3,
        mesh=mesh,
    )

def stage_of(make, learning, where):
    alone = make is phase
    data = EnvData(simulator, None) if alone else observations
    validation = EnvData(simulator, constant) if alone else observations
    algorithm = make(widths, learning, where)
    return loop.Stage("one", algorithm, jax.random.key(0), jnp.float32(300), data, validation)

ways = ((Exact.of, small.EXACT), (Joint.of, small.JOINT), (phase, small.JOINT))
for make, learning in ways:
    results = []
    for where in (None, mesh):
        stage = stage_of(make, learning, where)
        state = stage.init()
        devices = jax.tree.leaves(state.environments)[0].sharding.device_set
        assert len(devices) == (1 if where is None else 8), devices
        results.append(loop.advance(stage.algorithm, state, stage.data, stage.validation))
    (alone, one), (together, many) = results
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    jax.tree.map(compare, alone.params, together.params)
    jax.tree.map(compare, one, many)
    assert int(together.update) == 3
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, together.params)
    assert max(jax.tree.leaves(moved)) > 1e-2

class Killed(Exception):
    pass

def kill(point):
    if point.update == 3:
        raise Killed

stage = stage_of(Exact.of, small.EXACT, mesh)
whole, points = loop.run_stage(stage)
with tempfile.TemporaryDirectory() as folder:
    try:
        loop.run_stage(stage, folder=pathlib.Path(folder), report=kill)
    except Killed:
        pass
    resumed, again = loop.run_stage(stage, folder=pathlib.Path(folder))
jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
assert [point.validation for point in again] == [point.validation for point in points]
print("same")
"""


def test_eight_devices_learn_what_one_learns() -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "same"
