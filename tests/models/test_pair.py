"""Pairs as `load` gives them: a target alone decodes plainly, and slow weights are warned of."""

import warnings

import jax
import jax.numpy as jnp
import pytest

import ltd_jax as ltd
from ltd_jax import presets
from ltd_jax.files import ASSETS
from ltd_jax.models import pair as pairs
from ltd_jax.replay import record
from tests.models.refusal import refusal
from tests.system import tiny_pair

PROMPT = [72, 105, 33]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pair.write(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def alone(folder):
    return ltd.load(folder / "target", cycle=tiny_pair.CYCLE)


def test_a_target_alone_says_what_it_says_in_a_pair(folder, alone):
    both = ltd.load(folder / "target", folder / "draft", cycle=tiny_pair.CYCLE)
    text = list(ltd.generate_plain(alone, PROMPT, 20))
    assert text == list(ltd.generate_plain(both, PROMPT, 20)) and len(text) > 1
    assert alone.names == ("target", "no draft") and alone.fingerprint != both.fingerprint
    assert ltd.warm_up(alone, None) > 0
    assert ltd.load(**alone.loaded_with, cycle=tiny_pair.CYCLE).fingerprint == alone.fingerprint


def test_everything_else_needs_a_draft(alone):
    for action in (
        lambda: ltd.generate(alone, ltd.Constant(1, 2), PROMPT, 4),
        lambda: ltd.warm_up(alone, ltd.Constant(1, 2)),
        lambda: ltd.profile(alone),
        lambda: record.record(alone, [PROMPT], 4),
    ):
        assert "`draft`" in refusal(action)


def test_what_has_the_shape_of_the_shipped_target_takes_its_draft(folder):
    assert pairs.usual_draft(ASSETS / "target") == ASSETS / "draft"
    assert pairs.usual_draft(folder / "target") is None


def test_the_preset_of_a_folder_is_that_of_its_settings(folder):
    backend = jax.default_backend()
    assert pairs.preset_of(ASSETS / "target").cycle == presets.EMBEDDED_CYCLE
    assert pairs.preset_of(ASSETS / "target").most_context == 2048
    expected = presets.of(backend, tiny_pair.TARGET).cycle
    assert pairs.preset_of(folder / "target").cycle == expected


def test_a_longer_context_leaves_the_rest(alone):
    longer = alone.with_context(96)
    assert longer.config.cycle.context == 96 and longer.model.target is alone.model.target
    assert list(ltd.generate_plain(longer, PROMPT, 20)) == list(
        ltd.generate_plain(alone, PROMPT, 20)
    )


@pytest.mark.parametrize(
    ("backend", "dtype", "is_slow"),
    [("cpu", jnp.bfloat16, False), ("cpu", jnp.float16, True), ("cpu", jnp.float32, False)]
    + [("gpu", jnp.bfloat16, False)],
)
def test_slow_weights_are_warned_of(monkeypatch, backend, dtype, is_slow):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pairs.warn_if_slow(jnp.dtype(dtype))
    assert len(caught) == is_slow
    assert not caught or "give `dtype` float32" in str(caught[0].message)
