"""Which rows of a batch each host loads, and how they become one global array."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from valle_jax.parallel.sharding import named_sharding

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class HostRows:
    """The rows of every global batch that this process's devices hold.

    They follow from the mesh: hosts that share a shard (tensor parallelism between hosts) load the same rows, and the
    rows of a host need not be contiguous where the mesh follows the wiring of a pod.

    Attributes:
      mesh: of the batches.
      total: rows of the global batch.
      local: int64 [n], ascending row numbers in [0, total).
    """

    mesh: Mesh
    total: int
    local: np.ndarray

    @classmethod
    def of(cls, mesh: Mesh, total: int) -> HostRows:
        """For batches of `total` rows, which the mesh divides."""
        indices = named_sharding(mesh, ("batch",)).addressable_devices_indices_map((total,))
        parts = {index[0].indices(total)[:2] for index in indices.values() if index is not None}
        return cls(mesh, total, np.concatenate([np.arange(*part) for part in sorted(parts)]))

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """The local rows [n, ...] of a batch as global arrays [total, ...], sharded by row."""
        sharding = named_sharding(self.mesh, ("batch",))

        def part(value: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(self.total)
            first = np.searchsorted(self.local, start)
            return value[first : first + stop - start]

        return {
            name: jax.make_array_from_callback((self.total, *value.shape[1:]), sharding, functools.partial(part, value))
            for name, value in batch.items()
        }


def gather(tree: T, mesh: Mesh) -> T:
    """The arrays of a pytree, whole on every process: for work that one process does alone. All must call it."""
    if jax.process_count() == 1:
        return tree
    whole = jax.jit(lambda x: x, out_shardings=named_sharding(mesh, ()))(tree)
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), whole)
