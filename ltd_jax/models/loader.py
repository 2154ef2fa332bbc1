"""From a weights folder to device arrays, tensor by tensor, in one dtype.

Linear maps are stored [out, in] and used [in, out] (see layers.py). A map is turned, cast and put
block by block of its rows, so the host never holds much more than one tensor beside what it has
already put on the device. With a mesh, maps are split over its devices (split.py).
"""

import warnings
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ltd_jax.errors import UserError
from ltd_jax.models import split
from ltd_jax.models.tensor_files import TensorFolder

BLOCK_BYTES = 16 * 2**20
ALIGNMENT = 64  # bytes; XLA copies host arrays that start elsewhere
Split = Literal["in", "out", "none"]


class Loader:
    """Reads the tensors of one folder; `finish` tells what was wrong with them."""

    def __init__(self, files: TensorFolder, dtype: jnp.dtype, mesh: Mesh | None = None) -> None:
        self.files, self.dtype, self.mesh = files, np.dtype(dtype), mesh
        self.finite: dict[str, jax.Array] = {}  # by tensor, bool []

    def linear(
        self, name: str, out: int, into: int, by: Split = "none", heads: int | None = None
    ) -> jax.Array:
        """A linear map [in, out].

        Args:
          by: which axis is split between devices.
          heads: along that axis, none of which is cut; None = there are none.
        """
        turned = _aligned((into, out), self.dtype)
        for start, block in self._blocks(name, out, into):
            turned[:, start : start + len(block)] = block.T
        axis = {"in": 0, "out": 1}.get(by)
        count = 1 if axis is None else heads or turned.shape[axis]
        return self._put(name, turned, axis, count)

    def vector(self, name: str, size: int) -> jax.Array:
        """A norm's weight or a bias [size]."""
        stored = self.files.read(name, (size,))
        self._check_kind(name, stored)
        return self._put(name, stored.astype(self.dtype))

    def table(self, name: str, rows: int, columns: int) -> jax.Array:
        """An embedding [rows, columns], as it is stored."""
        found = _aligned((rows, columns), self.dtype)
        for start, block in self._blocks(name, rows, columns):
            found[start : start + len(block)] = block
        return self._put(name, found)

    def ids(self, token: np.ndarray) -> jax.Array:
        """Whole numbers as i32 where the weights are."""
        return jax.device_put(token.astype(np.int32), self._where())

    def finish(self, ignored: frozenset[str] = frozenset()) -> None:
        """Warns of tensors that nothing read; UserError for one that holds no finite numbers."""
        for name, finite in self.finite.items():
            if not finite:
                raise UserError(
                    f"Tensor {name} in {self.files.folder} holds NaN or infinity in "
                    f"{self.dtype.name}; the weights are damaged, or need another --dtype."
                )
        unused = [name for name in self.files.unused() if name not in ignored]
        if unused:
            warnings.warn(
                f"{self.files.folder}: {len(unused)} tensors are not used: "
                f"{', '.join(unused[:5])}.",
                stacklevel=3,
            )

    def _blocks(self, name: str, rows: int, columns: int) -> Iterator[tuple[int, np.ndarray]]:
        for start, block in self.files.blocks(name, (rows, columns), BLOCK_BYTES):
            self._check_kind(name, block)
            yield start, block

    def _check_kind(self, name: str, stored: np.ndarray) -> None:
        if not jnp.issubdtype(stored.dtype, jnp.floating):
            raise UserError(
                f"Tensor {name} in {self.files.folder} holds {stored.dtype.name}, no floating "
                "point numbers; quantised weights cannot be read."
            )

    def _put(
        self, name: str, tensor: np.ndarray, axis: int | None = None, count: int = 1
    ) -> jax.Array:
        array = jax.device_put(tensor, self._where(axis, count))
        self.finite[name] = _all_finite(array)
        return array

    def _where(self, axis: int | None = None, count: int = 1) -> NamedSharding | None:
        return None if self.mesh is None else split.sharding(self.mesh, axis, count)


def _aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An empty array at an address that a processor's device array takes over without a copy."""
    count = shape[0] * shape[1] * dtype.itemsize
    room = np.empty(count + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + count].view(dtype).reshape(shape)


@jax.jit
def _all_finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(jnp.sum(array * 0, dtype=jnp.float32))  # one pass, no array of booleans
