import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import classifiers
from ltd_jax.baselines.classifiers import Parts
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError

CYCLE = CycleConfig(beam_width=2, max_levels=3, sizes=(0, 1, 4), context=64)
WIDTHS = {"disco": 5, "specdec": 4, "c2t": 3}
HIDDEN = 6


@pytest.fixture(scope="module")
def parts():
    heads = {
        name: classifiers.head_network(name, width).init(
            jax.random.key(place), jnp.zeros(classifiers.feature_width(name, CYCLE, HIDDEN))
        )
        for place, (name, width) in enumerate(WIDTHS.items())
    }
    return Parts(heads, WIDTHS, np.asarray([1.0, 1.5, 2.0], np.float32))


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("heads")
    quality = {"disco": {"auc": 0.7}}
    classifiers.save_heads(path, parts, CYCLE, HIDDEN, {"fingerprint": "f", "quality": quality})
    return path


def test_what_was_saved_comes_back(folder, parts):
    found = classifiers.load_heads(folder)
    jax.tree.map(np.testing.assert_array_equal, found.parts.heads, parts.heads)
    assert not any(leaf.committed for leaf in jax.tree.leaves(found.parts.heads))
    assert found.parts.widths == WIDTHS
    np.testing.assert_array_equal(found.parts.power, parts.power)
    assert found.provenance["quality"]["disco"]["auc"] == 0.7
    assert classifiers.cycle_of(found) == CYCLE


def test_another_pair_or_tree_is_refused(folder):
    found = classifiers.load_heads(folder)
    classifiers.check_heads(found, "f", CYCLE)
    classifiers.check_heads(found, "f", dataclasses.replace(CYCLE, sizes=(0, 2)))
    with pytest.raises(UserError, match="trained for pair f, not g"):
        classifiers.check_heads(found, "g", CYCLE)
    with pytest.raises(UserError, match="beam width 2 and 3 levels, not 2 and 2"):
        classifiers.check_heads(found, "f", dataclasses.replace(CYCLE, max_levels=2))


def test_a_folder_without_classifiers_gets_one_sentence(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no classifiers in .*train_classifiers"):
            classifiers.load_heads(folder)
