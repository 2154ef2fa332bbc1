"""The published policies decide as their code does, and their zips are read without unpickling."""

import base64
import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import published
from ltd_jax.baselines.published import Layer, Network, PublishedPolicies
from ltd_jax.config import CycleConfig
from ltd_jax.files import UserError
from ltd_jax.policies.networks import Actor, Critic
from ltd_jax.policies.policy import LevelView, TreeView
from ltd_jax.replay import simulate
from tests import torch_writer
from tests.oracle import sb3 as oracle
from tests.replay import synthetic

GOLDEN = Path(__file__).parent / "golden"
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
    seen = {"log_prob": score, "levels": jnp.int32(levels), "length": jnp.int32(length)}
    return kind(**dict.fromkeys(kind.__dataclass_fields__) | seen)


def always(width: int, actions: int, action: int) -> Network:
    bias = np.zeros(actions, np.float32)
    bias[action] = 1
    return Network((Layer(np.zeros((width, actions), np.float32), bias),), "relu")


BOTH = PublishedPolicies(depth=always(128, 2, 1), size=always(1268, 24, 0))


def kept(policies: PublishedPolicies, levels: int) -> bool:
    return bool(policies.keep_drafting((), level_view(levels), CYCLE))


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


@pytest.mark.parametrize("shown", [10, 700])
def test_the_depth_policy_sees_the_newest_level(shown):
    for levels in (4, 7, 10):
        score = tree(levels)[levels - 1]
        seen = published.depth_observation(jnp.asarray(score), jnp.int32(levels), jnp.int32(shown))
        expected = oracle.depth_row(score.tolist(), shown, levels - 1)
        np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_it_is_asked_after_three_six_and_nine_rounds_only():
    for action, going in ((0, {1, 2, 3, 5, 6, 8, 9, 11, 12}), (1, set(range(1, 13)))):
        policies = BOTH.replace(depth=always(128, 2, action))
        assert {levels for levels in range(1, 14) if kept(policies, levels)} == going
    assert [published.levels_of(rounds) for rounds in (0, 3, 12)] == [1, 4, 13]


def test_sizes_are_tens_without_the_root():
    for action in (0, 5, 23):
        policies = BOTH.replace(size=always(1268, 24, action))
        index = policies.choose_size((), tree_view(4), CYCLE)
        assert CYCLE.sizes[int(index)] == 10 * (action + 1) and index.dtype == jnp.int32


def reads_the_length(limit: float) -> Network:
    """Goes on where the depth policy's length is above a limit."""
    kernel = np.zeros((128, 2), np.float32)
    kernel[100, 1] = published.LENGTH_SCALE
    return Network((Layer(kernel, np.asarray([limit, 0], np.float32)),), "relu")


def test_the_depth_policy_sees_a_constant_length_as_in_decoding():
    decoding = BOTH.replace(depth=reads_the_length(10.5))
    assert not kept(decoding, 4)
    assert kept(decoding.replace(constant_length=False), 4)  # sees 500
    assert kept(BOTH.replace(depth=reads_the_length(9.5)), 4)


def test_one_policy_alone_takes_the_published_constants_for_the_other():
    size_only = BOTH.replace(depth=None)
    assert [kept(size_only, levels) for levels in (8, 9)] == [True, False]  # 8 rounds
    config = dataclasses.replace(CYCLE, sizes=(0, 59))
    depth_only = BOTH.replace(size=None)
    assert config.sizes[int(depth_only.choose_size((), tree_view(4), config))] == 59


def test_files_become_a_policy_that_the_simulator_runs():
    policies = published.load(GOLDEN / "depth.zip", GOLDEN / "size.zip")
    assert (policies.depth.activation, policies.size.activation) == ("relu", "tanh")
    trace = synthetic.trace(CYCLE, text_tokens=(20, 30))
    simulator = simulate.build(trace, synthetic.table(CYCLE), CYCLE)
    totals = simulate.run(simulator, policies, charge_decisions=True)
    assert totals.committed.tolist() == [20, 30]
    mean_levels = np.asarray(totals.levels / totals.cycles)
    assert ((mean_levels >= 4) & (mean_levels <= 13)).all()


def test_choices_follow_the_networks_of_the_files():
    policies = published.load(GOLDEN / "depth.zip", GOLDEN / "size.zip", constant_length=False)
    answers = np.load(GOLDEN / "sb3.npz")
    seen = answers["depth/observation"]
    choices = jax.vmap(policies.depth)(seen).argmax(1)
    np.testing.assert_array_equal(choices, answers["depth/logits"].argmax(1))
    view = level_view(7)
    row = oracle.depth_row(np.asarray(view.log_prob).tolist(), 500, 6)
    expected = policies.depth(jnp.asarray(row, jnp.float32)).argmax() == 1
    assert kept(policies, 7) == bool(expected)


@pytest.mark.parametrize(
    "change", [{"beam_width": 8}, {"max_levels": 11}, {"sizes": tuple(range(0, 241, 20))}]
)
def test_other_cycles_are_refused(change):
    with pytest.raises(
        UserError, match=r"beam width 10, at least 12 levels and sizes 10, 20 \.\.\. 240"
    ):
        BOTH.check(dataclasses.replace(CYCLE, **change))
    BOTH.check(dataclasses.replace(CYCLE, max_levels=12))


def test_the_smallest_cycle_is_what_the_policies_choose_among():
    config = BOTH.smallest_cycle(CycleConfig())
    BOTH.check(config)
    assert config.max_levels == 13 and config.sizes[0] == 10 and config.sizes[-1] == 240


def test_policies_are_not_taken_for_each_other():
    with pytest.raises(UserError, match="a published depth policy reads 128 and chooses among 2"):
        published.load(GOLDEN / "size.zip", None)
    with pytest.raises(UserError, match="a published size policy reads 1268 and chooses among 24"):
        published.load(None, GOLDEN / "depth.zip")


ANSWERS = np.load(GOLDEN / "sb3.npz")
KINDS = ("size", "depth")


def rewritten(path: Path, name: str, content: bytes) -> None:
    """Puts another member into a zip."""
    with zipfile.ZipFile(path) as file:
        files = {each: file.read(each) for each in file.namelist()} | {name: content}
    path.write_bytes(torch_writer.archive(files))


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copy(GOLDEN / "depth.zip", tmp_path / "depth.zip"))


@pytest.mark.parametrize("kind", KINDS)
def test_networks_say_what_the_library_says(kind):
    policy = published.read_zip(GOLDEN / f"{kind}.zip")
    assert policy.activation == {"size": "tanh", "depth": "relu"}[kind]
    seen = jnp.asarray(ANSWERS[f"{kind}/observation"])
    said = jax.vmap(policy)(seen)
    expected = ANSWERS[f"{kind}/logits"]
    np.testing.assert_allclose(jax.nn.log_softmax(said), expected, atol=1e-5)
    np.testing.assert_array_equal(said.argmax(1), expected.argmax(1))


def test_a_relu_policy_is_our_network():
    both = oracle.actor_critic(GOLDEN / "depth.zip")
    seen = jnp.asarray(ANSWERS["depth/observation"])
    logits = jax.nn.log_softmax(Actor((8,), 2).apply(both.actor, seen))
    np.testing.assert_allclose(logits, ANSWERS["depth/logits"], atol=1e-5)
    value = Critic((4, 3)).apply(both.critic, seen)
    np.testing.assert_allclose(value, ANSWERS["depth/value"], atol=1e-5)


def test_nothing_pickled_is_run(copy):
    """Whatever the serialized objects of `data` are, they are text to us."""
    with zipfile.ZipFile(copy) as file:
        settings = json.loads(file.read("data"))
    bomb = torch_writer.instructions(
        torch_writer.Call(torch_writer.Global("builtins", "exit"), (7,))
    )
    settings["policy_class"][":serialized:"] = base64.b64encode(bomb).decode()
    settings["policy_kwargs"][":serialized:"] = base64.b64encode(bomb).decode()
    rewritten(copy, "data", json.dumps(settings).encode())
    assert published.read_zip(copy).activation == "relu"
    rewritten(copy, "policy.pth", torch_writer.archive({"archive/data.pkl": bomb}))
    with pytest.raises(UserError, match="builtins.exit"):
        published.read_zip(copy)


def test_bad_files_get_one_sentence(copy, tmp_path):
    with pytest.raises(UserError, match=r"none\.zip cannot be read as a policy"):
        published.read_zip(tmp_path / "none.zip")
    content = copy.read_bytes()
    copy.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read as a policy"):
        published.read_zip(copy)
    copy.write_bytes(torch_writer.archive({"data": b"[1]", "policy.pth": b""}))
    with pytest.raises(UserError, match="cannot be read as a policy"):
        published.read_zip(copy)
    copy.write_bytes(content)
    rewritten(copy, "data", b'{"policy_kwargs": {"activation_fn": "<class \'torch.nn.ELU\'>"}}')
    with pytest.raises(UserError, match="activation <class 'torch.nn.ELU'>; only Tanh and ReLU"):
        published.read_zip(copy)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"log_std": np.zeros(2, np.float32)}, "has log_std, which no MLP policy"),
        ({"action_net.weight": np.zeros((2, 3), np.float32)}, "lacks 'action_net.bias'"),
        (
            {
                "action_net.weight": np.zeros((2, 3), np.float32),
                "action_net.bias": np.zeros(4, np.float32),
            },
            "action_net has shapes",
        ),
        (
            {
                "action_net.weight": np.full((2, 3), np.nan, np.float32),
                "action_net.bias": np.zeros(2, np.float32),
            },
            "not finite",
        ),
    ],
)
def test_other_contents_get_one_sentence(copy, state, words):
    rewritten(copy, "policy.pth", torch_writer.tensors(state))
    with pytest.raises(UserError, match=words):
        published.read_zip(copy)
