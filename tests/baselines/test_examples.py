"""Labels of the classifiers against a plain walk along the text."""

import dataclasses

import numpy as np
import pytest

from ltd_jax.baselines import train
from ltd_jax.baselines.train import Examples
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from tests.replay import synthetic

CONFIG = CycleConfig(beam_width=3, max_levels=4, sizes=(0, 1, 4), context=64)
W, D = 3, 4
TRACE = synthetic.trace(CONFIG, seed=2, text_tokens=(20, 9), agreement=0.9)


def path_by_hand(position):
    """(row, child) of the agreeing node of every level, as far as there is one."""
    found = []
    for level in range(D):
        wanted = TRACE.continuation[position, level]
        rows = range(W) if level else (0,)
        matches = [
            (row, child)
            for row in rows
            for child in range(W)
            if wanted >= 0
            and TRACE.token[position, level, row, child] == wanted
            and TRACE.log_prob[position, level, row, child] > -np.inf
            and (not level or divmod(int(TRACE.parent[position, level, row]), W) == found[-1])
        ]
        if not matches:
            break
        found.append(matches[0])
    return found


def known(position, level):
    return TRACE.continuation[position, level] >= 0


def test_disco_asks_whether_one_more_level_helps():
    found = train.disco_examples(TRACE)
    expected, features = [], []
    for position in range(len(TRACE.length)):
        depth = len(path_by_hand(position))
        for levels in range(1, D):
            if known(position, levels):
                expected.append(depth > levels)
                log_prob_WW = TRACE.log_prob[position, levels - 1]
                best = np.sort(np.exp(log_prob_WW[log_prob_WW > -np.inf]))[::-1][:W]
                row = np.argmax(log_prob_WW) // W
                entropy = TRACE.entropy[position, levels - 1, row]
                features.append([*best, entropy, levels / 10])
    assert found.label.tolist() == expected
    assert 0 < found.label.mean() < 1
    np.testing.assert_allclose(found.feature, features, rtol=1e-5)


def test_specdec_asks_of_nodes_whose_parent_was_accepted():
    hidden = np.random.default_rng(0).normal(size=(*TRACE.parent.shape, 2)).astype(np.float16)
    found = train.specdec_examples(dataclasses.replace(TRACE, hidden=hidden))
    expected, features = [], []
    for position in range(len(TRACE.length)):
        path = path_by_hand(position)
        for level in range(1, D):
            for row in range(W):
                slot, child = divmod(int(TRACE.parent[position, level, row]), W)
                above = path[level - 2] if 1 < level <= len(path) + 1 else None
                its_parent = divmod(int(TRACE.parent[position, level - 1, slot]), W)
                alive = slot == 0 if level == 1 else its_parent == above
                if alive and known(position, level - 1):
                    expected.append(level <= len(path) and path[level - 1] == (slot, child))
                    features.append(hidden[position, level, row])
    assert found.label.tolist() == expected
    assert 0 < found.label.mean() < 1
    np.testing.assert_array_equal(found.feature, np.asarray(features, np.float32))


def test_specdec_needs_the_drafts_outputs():
    with pytest.raises(UserError, match="no outputs of the draft"):
        train.specdec_examples(TRACE)


def test_c2t_asks_of_every_node():
    found = train.c2t_examples(TRACE)
    labels = []
    for position in range(len(TRACE.length)):
        path = path_by_hand(position)
        for level in range(D):
            for row in range(W):
                for child in range(W):
                    if (
                        known(position, level)
                        and TRACE.log_prob[position, level, row, child] > -np.inf
                    ):
                        labels.append(level < len(path) and path[level] == (row, child))
    assert found.label.tolist() == labels
    first = TRACE.log_prob[0, 0, 0, 0]
    np.testing.assert_allclose(
        found.feature[0], [np.exp(first), TRACE.entropy[0, 0, 0], 0.1], rtol=1e-5
    )


def test_balanced_draws_as_many_yes_as_no():
    label = np.arange(100) % 5 == 0
    one = train.balanced(Examples(np.arange(100.0)[:, None], label), 30, seed=1)
    assert one.label.sum() == 15 and len(one.label) == 30
    assert np.all((one.feature[:, 0] % 5 == 0) == one.label)
    assert len(np.unique(one.feature)) == 30
    with pytest.raises(UserError, match="same label"):
        train.balanced(Examples(np.zeros((3, 1)), np.zeros(3, bool)), 30, seed=1)
