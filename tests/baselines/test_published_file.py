"""Zips of Stable-Baselines3: what the real library wrote is read."""

import base64
import json
import shutil
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.baselines import published
from ltd_jax.files import UserError
from ltd_jax.policies.networks import Actor, Critic
from tests import torch_writer

GOLDEN = Path(__file__).parent / "golden"
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
    assert policy.actor.activation == {"size": "tanh", "depth": "relu"}[kind]
    seen = jnp.asarray(ANSWERS[f"{kind}/observation"])
    said = jax.vmap(policy.actor)(seen)
    expected = ANSWERS[f"{kind}/logits"]
    np.testing.assert_allclose(jax.nn.log_softmax(said), expected, atol=1e-5)
    np.testing.assert_array_equal(said.argmax(1), expected.argmax(1))
    value = jax.vmap(policy.critic)(seen)
    np.testing.assert_allclose(value[:, 0], ANSWERS[f"{kind}/value"], atol=1e-5)


def test_a_relu_policy_is_our_network():
    policy = published.read_zip(GOLDEN / "depth.zip")
    seen, both = jnp.asarray(ANSWERS["depth/observation"]), policy.variables
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
    assert published.read_zip(copy).actor.activation == "relu"
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
