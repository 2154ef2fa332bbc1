"""The published policies decide as their code does: what they see, when they are asked, sizes."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import published
from ltd_jax.baselines.published import Layer
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.policy import LevelView, TreeView
from ltd_jax.replay import simulate
from tests.oracle import sb3 as oracle
from tests.replay import synthetic

GOLDEN = Path(__file__).parent / "golden"
BOTH = published.PublishedSetting(depth="relu", size="tanh")
CYCLE = CycleConfig(beam_width=10, max_levels=13, sizes=(0, *published.SIZES), context=64)


def tree(levels: int, seed: int = 0) -> np.ndarray:
    """Scores [13, 10, 10] of a tree of some levels."""
    score = -np.random.default_rng(seed).exponential(3, (13, 10, 10)).astype(np.float32)
    score[0, 1:] = score[levels:] = -np.inf
    return score


def level_view(levels: int, length: int = 500) -> LevelView:
    return view_of(LevelView, jnp.asarray(tree(levels)[levels - 1]), levels, length)


def tree_view(levels: int, length: int = 500) -> TreeView:
    return view_of(TreeView, jnp.asarray(tree(levels)), levels, length)


def view_of(kind, score, levels, length):
    """A view; what these policies do not look at is left out."""
    seen = {"score": score, "levels": jnp.int32(levels), "length": jnp.int32(length)}
    return kind(**dict.fromkeys(kind.__dataclass_fields__) | seen)


def always(width: int, actions: int, action: int) -> tuple[Layer, ...]:
    bias = np.zeros(actions, np.float32)
    bias[action] = 1
    return (Layer(np.zeros((width, actions), np.float32), bias),)


@pytest.mark.parametrize("levels", [1, 4, 13])
def test_the_size_policy_sees_the_whole_tree(levels):
    score = tree(levels)
    blocks = [score[0, :1].tolist(), *(score[level].tolist() for level in range(1, levels))]
    seen = published.size_observation(jnp.asarray(score), jnp.int32(levels), jnp.int32(137))
    np.testing.assert_allclose(seen, oracle.size_row(blocks, 137), rtol=1e-6)


def test_deeper_levels_that_were_not_drafted_are_not_seen():
    score = jnp.asarray(tree(13))  # as a replay holds it
    seen = published.size_observation(score, jnp.int32(4), jnp.int32(1))
    drafted = published.size_observation(
        jnp.where(jnp.arange(13)[:, None, None] < 4, score, -jnp.inf), 4, 1
    )
    np.testing.assert_array_equal(seen, drafted)


def test_a_tree_of_fewer_levels_is_padded():
    seen = published.size_observation(jnp.asarray(tree(4)[:12]), jnp.int32(4), jnp.int32(9))
    np.testing.assert_array_equal(seen, published.size_observation(jnp.asarray(tree(4)), 4, 9))


@pytest.mark.parametrize(("constant", "shown"), [(True, 10), (False, 700)])
def test_the_depth_policy_sees_the_newest_level(constant, shown):
    for levels in (4, 7, 10):
        score = tree(levels)[levels - 1]
        seen = published.depth_observation(
            jnp.asarray(score), jnp.int32(levels), jnp.int32(700), constant
        )
        expected = oracle.depth_row(score.tolist(), shown, levels - 1)
        np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_it_is_asked_after_three_six_and_nine_rounds_only():
    controller = published.controller(CYCLE, BOTH)
    for action, going in ((0, {1, 2, 3, 5, 6, 8, 9, 11, 12}), (1, set(range(1, 13)))):
        params = published.PublishedParams(depth=always(128, 2, action), size=None)
        keep = {n for n in range(1, 14) if controller.keep_drafting(params, (), level_view(n))}
        assert keep == going
    assert [published.levels_of(rounds) for rounds in (0, 3, 12)] == [1, 4, 13]


def test_sizes_are_tens_without_the_root():
    controller = published.controller(CYCLE, BOTH)
    for action in (0, 5, 23):
        params = published.PublishedParams(depth=None, size=always(1268, 24, action))
        index = controller.choose_size(params, (), tree_view(4))
        assert CYCLE.sizes[int(index)] == 10 * (action + 1) and index.dtype == jnp.int32


def test_one_policy_alone_takes_the_published_constants_for_the_other():
    size_only = published.controller(CYCLE, published.PublishedSetting(size="tanh"))
    none = published.PublishedParams(depth=None, size=None)
    keep = [bool(size_only.keep_drafting(none, (), level_view(n))) for n in (8, 9)]
    assert keep == [True, False]  # 8 rounds
    config = dataclasses.replace(CYCLE, sizes=(0, 59))
    depth_only = published.controller(config, published.PublishedSetting(depth="relu"))
    assert config.sizes[int(depth_only.choose_size(none, (), tree_view(4)))] == 59


def test_files_become_a_controller_that_the_replay_runs():
    setting, params = published.load(GOLDEN / "depth.zip", GOLDEN / "size.zip")
    assert setting == BOTH
    controller = published.controller(CYCLE, setting)
    assert controller is published.controller(CYCLE, published.PublishedSetting("relu", "tanh"))
    trace = synthetic.trace(CYCLE, text_tokens=(20, 30))
    replay = simulate.build(trace, synthetic.table(CYCLE), CYCLE)
    totals = simulate.run(replay, CYCLE, controller, params, learned=True)
    assert totals.committed.tolist() == [20, 30]
    mean_levels = np.asarray(totals.levels / totals.cycles)
    assert ((mean_levels >= 4) & (mean_levels <= 13)).all()


def test_choices_follow_the_networks_of_the_files():
    setting, params = published.load(
        GOLDEN / "depth.zip", GOLDEN / "size.zip", constant_length=False
    )
    controller = published.controller(CYCLE, setting)
    answers = np.load(GOLDEN / "sb3.npz")
    seen = answers["depth/observation"]
    asked = jax.vmap(lambda row: published.logits(params.depth, "relu", row))(seen).argmax(1)
    np.testing.assert_array_equal(asked, answers["depth/logits"].argmax(1))
    view = level_view(7)
    row = oracle.depth_row(np.asarray(view.score).tolist(), 500, 6)
    expected = published.logits(params.depth, "relu", jnp.asarray(row, jnp.float32)).argmax() == 1
    assert bool(controller.keep_drafting(params, (), view)) == bool(expected)


@pytest.mark.parametrize(
    "change", [{"beam_width": 8}, {"max_levels": 11}, {"sizes": tuple(range(0, 241, 20))}]
)
def test_other_cycles_are_refused(change):
    with pytest.raises(
        UserError, match=r"beam width 10, at least 12 levels and sizes 10, 20 \.\.\. 240"
    ):
        published.controller(dataclasses.replace(CYCLE, **change), BOTH)
    published.controller(dataclasses.replace(CYCLE, max_levels=12), BOTH)


def test_policies_are_not_taken_for_each_other():
    with pytest.raises(UserError, match="a published depth policy reads 128 and chooses among 2"):
        published.load(GOLDEN / "size.zip", None)
    with pytest.raises(UserError, match="a published size policy reads 1268 and chooses among 24"):
        published.load(None, GOLDEN / "depth.zip")
