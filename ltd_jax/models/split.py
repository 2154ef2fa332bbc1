"""One pair over several devices of a host: what is split, what every device has.

    linear maps        by outputs (q, k, v, gate, up, heads) or by inputs (o, down): loader.py
    caches             by key-value heads, so that a device attends with the heads it has made
    everything else    a copy on every device

A device works on its part of a pass; XLA's partitioner adds the sums between them, two in a layer.
What a number does not divide is copied. All of it is a matter of where arrays lie: the programs are
those of one device.
"""

import functools
from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ltd_jax.errors import UserError
from ltd_jax.models.kv_cache import KVCache

AXIS = "model"
Tree = TypeVar("Tree")


@functools.cache
def mesh_of(devices: int) -> Mesh | None:
    """The first devices of this host in a row, on one axis; None = one device, which needs no mesh.

    Raises:
      UserError: this host has fewer.
    """
    if devices == 1:
        return None
    here = jax.local_devices()
    if devices > len(here):
        kinds = f"{len(here)} ({here[0].device_kind})"
        raise UserError(f"--devices is {devices}, but this host has {kinds}; split over fewer.")
    auto = (AxisType.Auto,)  # XLA's partitioner decides what lies between
    return jax.make_mesh((devices,), (AXIS,), axis_types=auto, devices=here[:devices])


def placed(tree: Tree, devices: int) -> Tree:
    """The same values where they belong: caches split by heads, all other arrays on every device.

    Inside of a compiled function this says how results are to lie, so that the next call finds its
    arguments as the first one did, and no program is compiled twice.
    """
    mesh = mesh_of(devices)
    if mesh is None:
        return tree
    copied = NamedSharding(mesh, PartitionSpec())

    def put(part):
        if not isinstance(part, KVCache):
            return jax.lax.with_sharding_constraint(part, copied)
        whole = part.keys[0].shape[0] % devices != 0
        heads = copied if whole else NamedSharding(mesh, PartitionSpec(AXIS))
        where = KVCache((heads,) * len(part.keys), (heads,) * len(part.values), copied)
        return jax.lax.with_sharding_constraint(part, where)

    return jax.tree.map(put, tree, is_leaf=lambda part: isinstance(part, KVCache))
