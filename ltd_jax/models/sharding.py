"""Tensor-parallel sharding: one pair over several devices of a host, or such groups side by side.

    linear maps        by outputs (q, k, v, gate, up, fuse, heads) or by inputs (o, down)
    caches             by key-value heads, so that a device attends with the heads it has made
    everything else    a copy on every device, also an embedding that is the head, too

A device works on its part of a pass; XLA's partitioner adds the sums between them, two in a layer.
Where there are fewer key-value heads than devices, those in a group share heads, and each has its
part of their queries. What the devices do not divide is copied. Draft training puts replicas of
such devices side by side, each with a share of every batch. All of this is a matter of where arrays
lie: what is computed is written for one device.
"""

import functools
import math
from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ltd_jax.config import AnyDraftConfig, PairConfig, TargetConfig
from ltd_jax.files import UserError
from ltd_jax.models.kv_cache import KVCache

AXES = ("kv_head", "group")  # of devices; those in a group share key-value heads
REPLICA = "replica"  # the axis in front of them, where there are replicas
Tree = TypeVar("Tree")


def parts(devices: int, kv_heads: int, count: int) -> int:
    """The number of devices that `count` things are split over: all, one of each group, or one.

    Args:
      kv_heads: of the target; as many groups as these and the devices have in common.
    """
    groups = math.gcd(kv_heads, devices)
    return next(number for number in (devices, groups, 1) if count % number == 0)


def uneven(pair: PairConfig) -> tuple[str, ...]:
    """A sentence where a target is not split over all devices, else none."""
    counts = {"heads": pair.target.head_count, "rows of `down`": pair.target.intermediate_size}
    shared = (pair.devices, pair.target.kv_head_count)
    copied = [f"{n} {name}" for name, n in counts.items() if parts(*shared, n) < pair.devices]
    if not copied:
        return ()
    return (f"{pair.devices} devices do not divide {' and '.join(copied)}: these maps are copied.",)


@functools.cache
def mesh_of(devices: int, kv_heads: int, replicas: int = 1) -> Mesh | None:
    """The first devices of this host in groups; None = one device, which needs no mesh.

    Args:
      replicas: so many times these devices side by side, of all hosts.

    Raises:
      UserError: there are no such devices.
    """
    for name, count in (("devices", devices), ("replicas", replicas)):
        if count < 1:
            raise UserError(f"`{name}` is {count} but must be at least 1.")
    groups = math.gcd(kv_heads, devices)
    shape, auto = (groups, devices // groups), (AxisType.Auto,) * 2  # XLA decides what is between
    if replicas > 1:
        known, count = jax.devices(), replicas * devices
        if count > len(known):
            each = "" if devices == 1 else f" of {devices} `devices` each"
            raise UserError(
                f"`replicas` is {replicas}{each}, but there is 1 to {len(known)} to choose from."
            )
        names, types = (REPLICA, *AXES), (AxisType.Auto, *auto)
        return jax.make_mesh((replicas, *shape), names, axis_types=types, devices=known[:count])
    if devices == 1:
        return None
    local = jax.local_devices()
    if devices > len(local):
        kinds = f"{len(local)} ({local[0].device_kind})"
        raise UserError(f"`devices` is {devices}, but this host has {kinds}; split over fewer.")
    return jax.make_mesh(shape, AXES, axis_types=auto, devices=local[:devices])


def sharding(mesh: Mesh, axis: int | None = None, count: int = 1) -> NamedSharding:
    """The sharding of an array that is split along an axis of `count` things; None = copied."""
    groups = mesh.shape[AXES[0]]
    devices = groups * mesh.shape[AXES[1]]
    number = parts(devices, groups, count)
    if axis is None or number == 1:
        return NamedSharding(mesh, PartitionSpec())
    over = AXES if number == devices else AXES[:1]
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, over))


def batch_sharding(mesh: Mesh, heads: int | None = None) -> NamedSharding:
    """The sharding of arrays [B, ...] whose rows the replicas share.

    Args:
      heads: of arrays [B, heads, ...] that are split by key-value heads, too.
    """
    rows = REPLICA if REPLICA in mesh.axis_names else None
    over = () if heads is None else sharding(mesh, 0, heads).spec
    return NamedSharding(mesh, PartitionSpec(rows, *over))


def put(tree: Tree, mesh: Mesh | None) -> Tree:
    """Arrays on every device of a mesh, but for those that lie on it already."""
    if mesh is None:
        return tree
    copied = sharding(mesh)
    is_there = lambda leaf: getattr(getattr(leaf, "sharding", None), "mesh", None) == mesh
    return jax.tree.map(lambda leaf: leaf if is_there(leaf) else jax.device_put(leaf, copied), tree)


def of_one_replica(tree: Tree, mesh: Mesh | None) -> Tree:
    """The same arrays on the devices of a mesh without replicas, split as they are.

    Args:
      mesh: None = the first device of this host.
    """

    def put_leaf(leaf: jax.Array) -> jax.Array:
        if mesh is None:
            return jax.device_put(leaf, jax.local_devices()[0])
        is_split = isinstance(leaf.sharding, NamedSharding)
        return jax.device_put(
            leaf, NamedSharding(mesh, leaf.sharding.spec if is_split else PartitionSpec())
        )

    return jax.tree.map(put_leaf, tree)


def cache_sharding(pair: PairConfig, model: TargetConfig | AnyDraftConfig) -> NamedSharding | None:
    """The sharding of keys and values of one of a pair's models; None = one device."""
    mesh = mesh_of(pair.devices, pair.target.kv_head_count)
    return None if mesh is None else sharding(mesh, 0, model.kv_head_count)


def shard(tree: Tree, pair: PairConfig) -> Tree:
    """The same values where they belong: caches split by heads, all other arrays on every device.

    Inside of a compiled function this says how results are to lie, so that the next call finds its
    arguments as the first one did, and no program is compiled twice.
    """
    mesh = mesh_of(pair.devices, pair.target.kv_head_count)
    if mesh is None:
        return tree
    copied = sharding(mesh)

    def put(part):
        if not isinstance(part, KVCache):
            return jax.lax.with_sharding_constraint(part, copied)
        heads = sharding(mesh, 0, part.keys[0].shape[0]) if part.keys else copied
        layers = (heads,) * len(part.keys)
        return jax.lax.with_sharding_constraint(part, KVCache(layers, layers, copied))

    return jax.tree.map(put, tree, is_leaf=lambda part: isinstance(part, KVCache))
