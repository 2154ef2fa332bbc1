import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import CycleConfig
from ltd_jax.errors import UserError
from ltd_jax.policies import saved_heads
from ltd_jax.policies.settings import Parts

CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 4), context=64)
WIDTHS = {"disco": 5, "specdec": 4, "c2t": 3}
HIDDEN = 6


@pytest.fixture(scope="module")
def parts():
    heads = {
        name: saved_heads.network(name, width).init(
            jax.random.key(place), jnp.zeros(saved_heads.feature_width(name, CYCLE, HIDDEN))
        )
        for place, (name, width) in enumerate(WIDTHS.items())
    }
    return Parts(heads, WIDTHS, np.asarray([1.0, 1.5, 2.0], np.float32))


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("heads")
    quality = {"disco": {"auc": 0.7}}
    saved_heads.save(path, parts, CYCLE, HIDDEN, {"fingerprint": "f", "quality": quality})
    return path


def test_what_was_saved_comes_back(folder, parts):
    found = saved_heads.load(folder)
    jax.tree.map(np.testing.assert_array_equal, found.parts.heads, parts.heads)
    assert not any(leaf.committed for leaf in jax.tree.leaves(found.parts.heads))
    assert found.parts.widths == WIDTHS
    np.testing.assert_array_equal(found.parts.power, parts.power)
    assert found.provenance["quality"]["disco"]["auc"] == 0.7
    assert saved_heads.cycle_of(found) == CYCLE


def test_another_pair_or_tree_is_refused(folder):
    found = saved_heads.load(folder)
    saved_heads.check(found, "f", CYCLE)
    saved_heads.check(found, "f", dataclasses.replace(CYCLE, sizes=(0, 2)))
    with pytest.raises(UserError, match="trained for pair f, not g"):
        saved_heads.check(found, "g", CYCLE)
    with pytest.raises(UserError, match="beam width 2 and 3 levels, not 2 and 2"):
        saved_heads.check(found, "f", dataclasses.replace(CYCLE, max_levels=2))


def test_a_folder_without_classifiers_gets_one_sentence(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no classifiers in .*train_classifiers"):
            saved_heads.load(folder)
