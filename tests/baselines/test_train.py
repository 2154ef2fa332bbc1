"""Classifiers, their quality and the draft's calibration, from examples and from traces."""

import dataclasses

import jax
import numpy as np
import pytest

from ltd_jax import workflow
from ltd_jax.baselines import classifiers, train
from ltd_jax.baselines.classifiers import Perceptron, Residual
from ltd_jax.baselines.train import Examples, HeadConfig
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from tests.cycle import varieties
from tests.replay import synthetic

QUICK = HeadConfig(width=16, epochs=25, learning_rate=1e-2, batch=64)


def separable(count, seed):
    """A rule with a margin, on features of very different scales."""
    random = np.random.default_rng(seed)
    feature = random.normal(size=(count, 3)) * (1.0, 30.0, 0.02) + (5.0, -100.0, 0.0)
    score = (feature[:, 0] - 5) + (feature[:, 1] + 100) / 30
    keep = np.abs(score) > 0.3
    return Examples(feature[keep].astype(np.float32), score[keep] > 0)


@pytest.mark.parametrize("network", [Perceptron(16), Residual(16)], ids=["disco", "specdec"])
def test_a_separable_rule_is_learned(network):
    variables = train.fit_classifier(network, separable(600, 0), QUICK, seed=0)
    judged = train.classifier_quality(network, variables, separable(400, 1))
    assert judged.balanced_accuracy > 0.97
    assert judged.auc > 0.99
    assert judged.positives == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("label", [False, True])
def test_one_label_alone_tells_nothing(label):
    one = separable(600, 0)
    variables = train.fit_classifier(Perceptron(16), one, QUICK, seed=0)
    alike = Examples(one.feature[:9], np.full(9, label))
    judged = train.classifier_quality(Perceptron(16), variables, alike)
    assert judged == train.Quality(None, None, 9, float(label))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_features_that_are_no_numbers_teach_nothing(number):
    one = separable(600, 0)
    one.feature[5, 1] = number
    with pytest.raises(UserError, match="classifier has gone wrong .*Dense_0.* is nan"):
        train.fit_classifier(Perceptron(16), one, QUICK, seed=0)


def test_labels_that_mean_nothing_give_chance():
    one = separable(600, 0)
    random = np.random.default_rng(3)
    noise = Examples(one.feature, random.random(len(one.label)) < 0.5)
    variables = train.fit_classifier(Perceptron(16), noise, QUICK, seed=0)
    other = separable(400, 1)
    labels = random.random(len(other.label)) < 0.5
    judged = train.classifier_quality(Perceptron(16), variables, Examples(other.feature, labels))
    assert abs(judged.auc - 0.5) < 0.12


def test_the_folded_network_is_the_same_function():
    random = np.random.default_rng(0)
    feature = random.normal(size=(7, 4)).astype(np.float32)
    mean, scale = random.normal(size=4), random.uniform(0.5, 3, 4)
    for network in (Perceptron(5), Residual(5), Residual(4)):
        variables = network.init(jax.random.key(0), feature)
        folded = train.folded(variables, mean, scale)
        np.testing.assert_allclose(
            network.apply(folded, feature),
            network.apply(variables, (feature - mean) / scale),
            rtol=2e-4,
            atol=1e-5,
        )


def test_auc_counts_ties_half():
    score = np.asarray([0.1, 0.4, 0.4, 0.8])
    label = np.asarray([False, True, False, True])
    pairs = [
        1.0 if one > two else 0.5 if one == two else 0.0
        for one in score[label]
        for two in score[~label]
    ]
    assert train.auc(score, label) == pytest.approx(np.mean(pairs))


CONFIG = CycleConfig(beam_width=3, max_levels=3, sizes=(0, 1, 4), context=64)


def shifted(seed):
    """A trace whose draft says far too much or too little, as the draws of the text have it."""
    return synthetic.trace(CONFIG, seed=seed, text_tokens=(60,) * 8, agreement=0.6)


def test_calibration_lowers_the_error_on_other_texts():
    power_D = train.fit_calibration(shifted(0))
    assert power_D.shape == (3,) and np.any(power_D != 1)
    before = train.calibration_error(shifted(1), np.ones(3))
    assert train.calibration_error(shifted(1), power_D) < before


def test_the_best_power_is_the_one_that_made_the_labels():
    random = np.random.default_rng(0)
    score = -random.exponential(1.0, 20_000)
    label = random.random(20_000) < np.exp(1.7 * score)
    assert train.best_power(score, label) == pytest.approx(1.7, rel=0.06)


def test_the_error_of_a_draft_that_is_right_is_small():
    one = shifted(2)
    known, label = train.node_labels(one)
    assert label[known].mean() > 0
    assert train.calibration_error(one, np.full(3, 1e3)) == pytest.approx(
        label[known].mean(), abs=0.02
    )


WIDTH = 6  # of the draft's output
SMALL = HeadConfig(width=4, epochs=1, learning_rate=1e-3)


def with_outputs(seed):
    trace = dataclasses.replace(shifted(seed), provenance={"fingerprint": "f", "new_tokens": 60})
    hidden = np.random.default_rng(seed).normal(size=(*trace.parent.shape, WIDTH))
    return dataclasses.replace(trace, hidden=hidden.astype(np.float16))


def test_what_was_trained_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "head_config", lambda name, inputs: SMALL)
    shares = []
    trained = train.train_classifiers(
        with_outputs(0), with_outputs(1), CONFIG, progress=shares.append
    )
    assert list(trained.networks) == ["disco", "specdec", "c2t"]
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    widths = {leaf.shape[0] for leaf in jax.tree.leaves(trained.networks["specdec"])}
    assert WIDTH in widths
    record = trained.provenance
    assert record["fingerprint"] == "f" and record["recorded"]["new_tokens"] == 60
    assert {"auc", "balanced_accuracy", "examples", "positives"} == set(record["quality"]["c2t"])
    assert record["calibration_error"]["after"] <= record["calibration_error"]["before"]
    classifiers.save(trained, tmp_path / "classifiers.safetensors")
    loaded = classifiers.load(tmp_path / "classifiers.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded.networks, trained.networks)
    assert loaded.provenance == record


def test_a_griffin_drafts_wider_output_is_read(tmp_path, monkeypatch):
    pair = varieties.pair("griffin")
    width = 2 * pair.config.draft.hidden_size
    trace = synthetic.trace(pair.config.cycle, text_tokens=(30, 30))
    hidden = np.random.default_rng(0).normal(size=(*trace.parent.shape, width))
    trace = dataclasses.replace(trace, hidden=hidden.astype(np.float16))
    monkeypatch.setattr(workflow, "load_or_record", lambda *_, **__: trace)
    monkeypatch.setattr(train, "head_config", lambda name, inputs: SMALL)
    path = tmp_path / "classifiers.safetensors"
    trained = workflow.train_classifiers(pair, None, path)
    assert set(trained.networks) == {"disco", "specdec", "c2t"} and trained.path == path
    widths = {leaf.shape[0] for leaf in jax.tree.leaves(trained.networks["specdec"])}
    assert width in widths
