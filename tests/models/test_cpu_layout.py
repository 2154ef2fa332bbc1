"""Packed weights are the same maps: joined, in panels, with the same outputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax import files
from ltd_jax.models import cpu_layout, draft, kv_cache, layers, target
from ltd_jax.models import pair as pairs
from ltd_jax.models.hf import weights as hf_weights
from ltd_jax.presets import EMBEDDED_CYCLE
from tests.cycle import tiny

CONFIG = tiny.CONFIG
PANEL = cpu_layout.panel_width()


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_a_panel_holds_its_columns_in_order():
    weight_EF = normal(0, 5, 3 * PANEL)
    panel_BEF = cpu_layout.pack(weight_EF)
    assert panel_BEF.shape == (3, 5, PANEL)
    for panel, columns_EF in zip(panel_BEF, np.split(weight_EF, 3, axis=1), strict=True):
        np.testing.assert_array_equal(panel, columns_EF)


def test_maps_of_one_input_stand_side_by_side():
    first, second = normal(0, 5, PANEL), normal(1, 5, 2 * PANEL)
    joined = cpu_layout.pack(first, second)
    np.testing.assert_array_equal(joined, cpu_layout.pack(jnp.concatenate([first, second], 1)))


def test_a_width_without_whole_panels_stays():
    assert cpu_layout.pack(normal(0, 5, PANEL + 8)).shape == (5, PANEL + 8)


@pytest.mark.parametrize(("flags", "width"), [("sse2 avx2 avx512f", 64), ("avx2", 16), ("", 16)])
def test_panels_are_as_wide_as_the_processors_sums(monkeypatch, flags, width):
    monkeypatch.setattr(files, "_cpuinfo", lambda: {"flags": flags})
    assert cpu_layout.pack(normal(0, 5, 128)).shape == (128 // width, 5, width)


@pytest.mark.parametrize("rows", [1, 7, 33, 257])
@pytest.mark.parametrize("columns", [64, 5 * 64, 64 + 8])
@pytest.mark.parametrize("width", [16, layers.WIDE_PANEL])
def test_the_product_is_the_same(rows, columns, width):
    x_TE, weight_EF = normal(0, rows, 12), normal(1, 12, columns)
    found = jax.jit(layers.linear)(x_TE, cpu_layout.in_panels((weight_EF,), width))
    np.testing.assert_allclose(found, np.asarray(x_TE) @ np.asarray(weight_EF), atol=1e-5)


@pytest.mark.parametrize(
    ("columns", "itemsize", "pieces"),
    [(576, 4, 6), (1536, 4, 12), (128, 4, 1), (131, 4, 1), (2 * 131, 4, 1), (24, 4, 1)],
)
def test_a_piece_fits_the_first_cache(columns, itemsize, pieces):
    weight = jax.ShapeDtypeStruct((3, columns, layers.WIDE_PANEL), jnp.dtype(f"f{itemsize}"))
    assert layers.piece_count(weight) == pieces


@pytest.mark.parametrize("rows", [1, 4, 6, 40])
@pytest.mark.parametrize("columns", [256, 576])  # in pieces
def test_a_product_of_pieces_is_the_same(rows, columns):
    x_TE, weight_EF = normal(0, rows, columns), normal(1, columns, 128)
    panels = cpu_layout.in_panels((weight_EF,), layers.WIDE_PANEL)
    assert layers.piece_count(panels) > 1
    found = jax.jit(layers.linear)(x_TE, panels)
    np.testing.assert_allclose(found, np.asarray(x_TE) @ np.asarray(weight_EF), atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_products_side_by_side_are_the_same(axes):
    x_TE, weight_EF = normal(0, 3, 256), normal(1, 256, 128)
    batch = lambda one: jnp.stack([one, 2 * one, -one])
    pack = lambda one: cpu_layout.in_panels((one,), layers.WIDE_PANEL)
    x = x_TE if axes[0] is None else batch(x_TE)
    weight = pack(weight_EF) if axes[1] is None else jnp.stack([*map(pack, batch(weight_EF))])
    found = jax.jit(jax.vmap(layers.linear, axes))(x, weight)
    each = np.asarray(x_TE) @ np.asarray(weight_EF)
    factors = np.asarray([1, 2, -1]) ** (2 - axes.count(None))
    np.testing.assert_allclose(found, factors[:, None, None] * each, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("width", [0, layers.WIDE_PANEL])
def test_products_of_16_bits_are_summed_in_32(rows, width):
    x_TE, weight_EF = (x.astype(jnp.bfloat16) for x in (normal(0, rows, 512), normal(1, 512, 128)))
    weight = cpu_layout.in_panels((weight_EF,), width) if width else weight_EF
    exact = np.asarray(x_TE, np.float32) @ np.asarray(weight_EF, np.float32)
    found = jax.jit(layers.linear, static_argnames="dtype")(x_TE, weight, dtype=jnp.float32)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    rounded = jax.jit(layers.linear)(x_TE, weight)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded, found.astype(jnp.bfloat16))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_a_head_in_panels_is_f32_and_says_the_same(dtype, tied):
    config = dataclasses.replace(CONFIG.target, tie_embeddings=tied)
    params = target.init(jax.random.key(0), config, dtype)
    head_EX = params.embedding.T if tied else params.head
    panels = cpu_layout.pack_head(params)
    assert panels.dtype == jnp.float32 and panels.shape[2] == PANEL
    x_TE = normal(0, 3, config.hidden_size).astype(dtype)
    expected = layers.linear(x_TE.astype(jnp.float32), head_EX.astype(jnp.float32))
    np.testing.assert_allclose(layers.linear(x_TE, panels, jnp.float32), expected, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_a_packed_target_says_the_same(rows):
    params = tiny.pair(0).model.target
    tokens_T = jnp.arange(rows) % CONFIG.target.vocab_size
    run = jax.jit(
        lambda params: target.forward(
            params, CONFIG.target, tokens_T, jnp.arange(rows), jnp.tri(rows, dtype=bool), None
        )
    )
    plain, packed = run(params), run(cpu_layout.pack_target(params))
    for left, right in zip(jax.tree.leaves(plain), jax.tree.leaves(packed), strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5, rtol=1e-4)


def test_a_packed_draft_says_the_same():
    params, config = tiny.pair(0).model.draft, CONFIG.draft
    T = 4
    tokens_T, feature_TE = jnp.arange(T), normal(0, T, 3 * config.target_hidden_size)

    def run(params):
        fused_TE = draft.fuse(params, config, feature_TE)
        hidden_TE, _ = draft.forward(
            params,
            config,
            tokens_T,
            fused_TE,
            jnp.arange(T),
            kv_cache.empty(config, 8, jnp.float32),
            draft.empty_block(config, T, jnp.float32),
            0,
            jnp.tri(T, dtype=bool),
        )
        return draft.log_probs(params, config, hidden_TE)

    packed = cpu_layout.pack_draft(params)
    np.testing.assert_allclose(jax.jit(run)(params), jax.jit(run)(packed), atol=2e-5)


def test_a_loaded_pair_is_packed_on_one_processor():
    pair = pairs.load(cycle=EMBEDDED_CYCLE)
    layer, whole = pair.model.target.layers[0], EMBEDDED_WIDTH
    (qkv,), (gate_up,) = layer.qkv, layer.gate_up
    assert qkv.shape == (whole // PANEL, pair.config.target.hidden_size, PANEL)
    assert gate_up.shape[0] * PANEL == 2 * pair.config.target.intermediate_size
    _, loaded = hf_weights.load_target(pair.folder, jnp.float32)
    np.testing.assert_array_equal(cpu_layout.pack(loaded.layers[0].o), layer.o)


EMBEDDED_WIDTH = 256 + 2 * 64  # q, k and v
