"""Damages of a tiny pair's folder (fixture `root`): files that commands read, made wrong."""

import dataclasses
import functools

import jax
import numpy as np

from ltd_jax import files
from ltd_jax.config import GREEDY, PolicyConfig, describe_sampling
from ltd_jax.models import pair as pairs
from ltd_jax.policies import networks, saved
from ltd_jax.replay import latency
from ltd_jax.replay import trace as traces
from tests.replay import synthetic
from tests.system.tiny_pair import CYCLE

WIDTHS = PolicyConfig((4,), (4,), (4,), (4,))
ELSEWHERE = "another device"


def fingerprint(root):
    """Of the pair that the folder links to, which all tests share."""
    return _fingerprint((root / "target").resolve(), (root / "draft").resolve())


@functools.cache
def _fingerprint(target, draft):
    return pairs.load(target, draft, cycle=CYCLE).fingerprint


def table(root, sizes=CYCLE.sizes, levels=CYCLE.max_levels, **origin):
    """A latency table of the pair in root/out."""
    own = {
        "fingerprint": fingerprint(root),
        "dtype": "float32",
        "sampling": describe_sampling(GREEDY),
    }
    found = latency.additive(
        contexts=(16,),
        sizes=sizes,
        draft_seconds=np.ones((1, levels)),
        verify_seconds=np.ones((1, len(sizes))),
        plain_seconds=np.ones(1),
        decision_seconds=(0.0, 0.0),
        provenance=own | {"device": files.device_name()} | origin,
    )
    latency.save(found, root / "out" / "latency.json")
    return found


def edited(edit):
    """A damage of the table's file."""

    def damage(root):
        table(root)
        path = root / "out" / "latency.json"
        path.write_text(edit(path.read_text()))

    return damage


def policies(root, best=True, folder="out", **origin):
    """Policies of the pair in root/out/policy.safetensors, with the pair's table."""
    facts = {"best": {"levels": 1, "size": 2, "tokens_per_second": 1.0}, "learning": {}}
    own = {
        "fingerprint": fingerprint(root),
        "latency": latency.fingerprint(table(root)),
        "device": files.device_name(),
        "dtype": "float32",
    }
    shapes = jax.eval_shape(lambda: networks.init(jax.random.key(0), CYCLE, WIDTHS))
    policy = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    origin = own | (facts if best else {}) | origin
    saved.save(policy, root / folder / "policy.safetensors", CYCLE, origin)


def without_content(root):
    """An empty policy file."""
    policies(root)
    (root / "out" / "policy.safetensors").write_bytes(b"")


def trace(root, **origin):
    """A trace at the place where the pair's would lie."""
    found = synthetic.trace(CYCLE)
    traces.save(
        dataclasses.replace(found, provenance=found.provenance | origin),
        root / "out" / "traces" / "all.npz",
    )


def written(name, content):
    """A damage that writes a file."""

    def damage(root):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def question(*lines):
    """A damage that writes root/asked/mine.jsonl."""
    return written("asked/mine.jsonl", "\n".join(lines) + "\n")


def nothing(root):
    """No damage."""
