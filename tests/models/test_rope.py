"""Rotary positions: the tables of every kind are transformers' (golden/make_rope.py)."""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.config import DynamicScaling, LinearScaling, Llama3Scaling, LongScaling, YarnScaling
from ltd_jax.models import rope
from ltd_jax.models.hf import rope as hf_rope
from tests.models.folders import DRAFT, TARGET
from tests.models.golden import rope as golden
from tests.oracle import layer as oracle

GOLDEN = np.load(golden.GOLDEN)
TABLES = jax.jit(rope.tables, static_argnums=0)
EIGHT = dataclasses.replace(TARGET, head_dim=8, rope_theta=100.0)
LLAMA3 = Llama3Scaling(8.0, 1.0, 4.0, 8192)
RANDOM = np.random.default_rng(0)


def config_of(fields, base=TARGET):
    """A model with the rotary settings of a config.json."""
    given = {name: value for name, value in fields.items() if value is not None}
    found = hf_rope.read(Path("config.json"), given, given["head_dim"]).as_config
    return dataclasses.replace(base, head_dim=given["head_dim"], **found)


def tolerance(config):
    """Lengths that are known only on the device have powers that are a bit or two off there.

    That is less than a unit in the last place of an angle of 255 radians, 1.5e-5.
    """
    return 5e-6 if isinstance(config.rope_scaling, DynamicScaling) else 1e-6


@pytest.mark.parametrize("base", [TARGET, DRAFT], ids=["target", "draft"])
@pytest.mark.parametrize("name", golden.CASES)
def test_tables_are_those_of_transformers(name, base):
    config = config_of(golden.CASES[name], base)
    assert rope.fault(config) is None
    places = [(at, length) for length in golden.LENGTHS for at in (length // 4, length - 1)]
    if base is TARGET:  # a draft knows no prompt
        at_once = [np.stack(TABLES(config, jnp.array([at]), length)) for at, length in places]
        expected = GOLDEN[f"{name}/at once"]
        np.testing.assert_allclose(np.concatenate(at_once, 1), expected, atol=tolerance(config))
    by_one = np.stack(TABLES(config, jnp.array(golden.AFTER), 32 if base is TARGET else 0))
    np.testing.assert_allclose(by_one, GOLDEN[f"{name}/by one"], atol=tolerance(config))


@pytest.mark.parametrize("name", golden.REAL)
def test_tables_of_real_models(name):
    found = np.stack(TABLES(config_of(golden.REAL[name]), jnp.array(golden.REAL_POSITIONS)))
    # torch's power of one of Qwen's frequencies is a bit off: 2e-6 radians after 131,071 tokens
    np.testing.assert_allclose(found, GOLDEN[name], atol=3e-6 if "yarn" in name else 1e-6)


def test_the_golden_kinds_are_different():
    tables = {name: GOLDEN[f"{name}/by one"] for name in golden.CASES if "both" not in name}
    equal = (
        {"default", "saved by v4 again"},
        {"default, newer", "mrope"},
        {"llama3", "llama3, newer"},
    )
    for one, first in tables.items():
        for other, second in tables.items():
            if one < other and first.shape == second.shape:
                is_equal = np.array_equal(first, second)
                assert is_equal == any({one, other} <= names for names in equal), (one, other)


def test_a_drafted_token_turns_as_the_token_that_it_may_become():
    """Whatever is in its pass, as far as a text may grow; a prompt's tokens turn by its length."""
    long = LongScaling((1.0,) * 4, (2.0, 3.0, 4.0, 5.0), 64, 1.1)
    for scaling in (DynamicScaling(2.0, 64), long):
        config = dataclasses.replace(EIGHT, rope_scaling=scaling)
        alone = np.concatenate([TABLES(config, jnp.array([at]), 40) for at in (63, 64, 90)], 1)
        tree = np.stack(TABLES(config, jnp.array([63, 64, 90])))
        np.testing.assert_array_equal(tree, alone)
        prompt = np.stack(TABLES(config, jnp.array([5, 63, 90]), 91))
        assert np.abs(prompt[:, :2] - np.stack(TABLES(config, jnp.array([5, 63])))).max() > 0.01
        np.testing.assert_array_equal(prompt[:, 2], tree[:, 2])


@pytest.mark.parametrize(
    ("wavelength", "share"),
    (
        (1024, 1.0),  # 8192 / 1024 = 8 turns in the original context, more than 4: as it was
        (2048, 1.0),  # 4 turns
        (4096, 5 / 12),  # 2 turns, a third of the way from 1 to 4: 1/3 + 2/3 / 8
        (8192, 1 / 8),  # 1 turn
        (65536, 1 / 8),  # less than 1 turn: slowed down by the whole factor
    ),
)
def test_llama3_scaling_by_hand(wavelength, share):
    frequency = 2 * math.pi / wavelength
    theta = frequency**-2  # the second of two frequencies is theta ** -0.5
    plain = dataclasses.replace(TARGET, head_dim=4, rope_theta=theta)
    lengths = np.array([1])
    assert rope.frequencies(plain, lengths) == pytest.approx([1.0, frequency], rel=1e-6)
    found = rope.frequencies(dataclasses.replace(plain, rope_scaling=LLAMA3), lengths)
    assert found == pytest.approx([1.0, share * frequency], rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rotary_dim": 0}, "0 of the 8 channels"),
        ({"rotary_dim": 10}, "10 of the 8 channels"),
        ({"rotary_dim": 2, "rope_scaling": DynamicScaling(2.0, 64)}, "cannot be computed"),
        ({"rope_theta": 1.0, "rope_scaling": YarnScaling(2.0, 64, 1.0)}, "cannot be computed"),
        ({"rope_scaling": LongScaling((1.0,) * 4, (1.0,) * 3, 64, 1.0)}, "3 factors for 4"),
        ({"rope_scaling": LinearScaling(0.0)}, "not finite"),
        ({"rope_scaling": Llama3Scaling(8.0, 0.0, 4.0, 64)}, "cannot be computed"),
    ],
)
def test_faults(fields, words):
    assert words in rope.fault(dataclasses.replace(EIGHT, **fields))
    assert rope.fault(EIGHT) is None


def turn(x, positions, config=EIGHT):
    tables = rope.tables(config, jnp.asarray(positions))
    return np.asarray(rope.rotate(jnp.asarray(x, jnp.float32), *tables))


def test_position_0_is_not_turned():
    x = RANDOM.normal(size=(1, 2, 8)).astype(np.float32)
    np.testing.assert_array_equal(turn(x, [0]), x)


@pytest.mark.parametrize("channels", (8, 4, 2))
def test_rotation_of_halves_and_of_the_first_channels_alone(channels):
    x, positions = RANDOM.normal(size=(3, 2, 8)), np.array([0, 7, 1000])
    turned = turn(x, positions, dataclasses.replace(EIGHT, rotary_dim=channels))
    for head in range(2):
        expected = oracle.rotate(x[:, head, :channels], positions, 100.0)
        np.testing.assert_allclose(turned[:, head, :channels], expected, atol=1e-3)
    np.testing.assert_array_equal(turned[..., channels:], x[..., channels:].astype(np.float32))


def test_products_depend_on_the_distance_alone():
    query, key = RANDOM.normal(size=(2, 1, 1, 8))

    def product(query_position, key_position):
        return float(np.vdot(turn(query, [query_position]), turn(key, [key_position])))

    assert product(9, 4) == pytest.approx(product(25, 20), abs=1e-4)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-2)


def test_the_attention_factor_is_in_cosines_and_sines():
    factor = 1.25
    yarn = dataclasses.replace(EIGHT, rope_scaling=YarnScaling(4.0, 64, factor))
    at = jnp.arange(3)
    squares = functools.reduce(np.add, (np.square(part) for part in rope.tables(yarn, at)))
    np.testing.assert_allclose(squares, factor**2, rtol=1e-6)
