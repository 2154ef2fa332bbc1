"""Trained policies are those of before: one seed, one trace and one table give the same weights.

The golden weights are those that every algorithm trained when this test was written, on the machine
that made them; equal there bit for bit. Other processors round otherwise, so a tolerance is left.

    python -m tests.learning.test_golden_policies         says whether bits are equal here
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from ltd_jax import learning
from ltd_jax.config import LearningConfig
from ltd_jax.learning import Splits
from ltd_jax.replay import latency, simulate
from ltd_jax.replay import trace as traces
from tests.learning.small import ALTERNATE, CYCLE, EXACT, JOINT, POLICY

FOLDER = Path(__file__).parent / "golden" / "policies"
LEARNING = {
    "exact": EXACT,
    "exact-paper": dataclasses.replace(EXACT, reward="paper"),
    "joint": JOINT,
    "alternate": ALTERNATE,
}


def trained(config: LearningConfig) -> dict[str, np.ndarray]:
    """Weights by their path, and the validations."""
    table = latency.load(FOLDER / "latency.json")
    parts = [traces.load(FOLDER / f"{name}.npz") for name in ("train", "validation")]
    splits = Splits(*[simulate.build(part, table, CYCLE) for part in parts])
    result = learning.train(splits, POLICY, config)
    weights = {"depth": result.policy.depth, "size": result.policy.size}
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return arrays | {"validation": np.asarray([point.validation for point in result.curves])}


def golden(name: str) -> dict[str, np.ndarray]:
    """What `trained` gave, of one of LEARNING."""
    with np.load(FOLDER / "policies.npz") as file:
        return {key.split("/", 1)[1]: file[key] for key in file if key.split("/", 1)[0] == name}


@pytest.mark.parametrize("name", LEARNING)
def test_trained_policies_are_those_of_before(name: str) -> None:
    ours, theirs = trained(LEARNING[name]), golden(name)
    assert ours.keys() == theirs.keys() and len(ours) == 9
    for key, expected in theirs.items():
        np.testing.assert_allclose(ours[key], expected, rtol=1e-4, atol=1e-5, err_msg=key)


if __name__ == "__main__":
    for name in LEARNING:
        ours, theirs = trained(LEARNING[name]), golden(name)
        print(name, all(np.array_equal(ours[key], theirs[key]) for key in theirs))
