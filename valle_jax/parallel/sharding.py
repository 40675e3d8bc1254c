"""The one table from logical array axes to mesh axes, and what follows from it.

Model code names the axes of its arrays by meaning; nothing outside this file says on which mesh axis they lie.
"""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from valle_jax.errors import UserError

Axes = tuple[str | None, ...]  # the logical name of each dimension of an array; None: never sharded

# Vocabularies stay whole: their sizes (1025 codes with the end of speech, a symbol table) divide by nothing. Embeddings
# are sharded along their width instead.
MESH_AXES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "length": (),
    "layers": (),
    "vocab": (),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "codebook": (),
    "stage": (),
}

# Which configuration key holds the size of a sharded axis, for error messages.
_CONFIG_KEY = {"embed": "model.d_model", "heads": "model.n_heads", "mlp": "model.d_ff"}


def spec(axes: Axes) -> PartitionSpec:
    """The partition of an array with these logical axes.

    Raises:
      ValueError: an axis is not in the table, or two axes would lie on the same mesh axis.
    """
    used: dict[str, str | None] = {}
    parts: list[str | tuple[str, ...] | None] = []
    for axis in axes:
        if axis is not None and axis not in MESH_AXES:
            raise ValueError(f"logical axis {axis!r} of {axes} is not in the table; known: {', '.join(MESH_AXES)}")
        mesh_axes = () if axis is None else MESH_AXES[axis]
        for mesh_axis in mesh_axes:
            if mesh_axis in used:
                raise ValueError(f"{axes}: axes {used[mesh_axis]!r} and {axis!r} both lie on mesh axis {mesh_axis!r}")
            used[mesh_axis] = axis
        parts.append(mesh_axes[0] if len(mesh_axes) == 1 else mesh_axes or None)
    return PartitionSpec(*parts)


def named_sharding(mesh: Mesh, axes: Axes) -> NamedSharding:
    """How an array with these logical axes lies on `mesh`."""
    return NamedSharding(mesh, spec(axes))


def tree_shardings(mesh: Mesh, axes: Any) -> Any:
    """`named_sharding` of every leaf of a nested dict of axes, such as `Decoder.axes`."""
    return jax.tree.map(lambda leaf: named_sharding(mesh, leaf), axes, is_leaf=lambda x: isinstance(x, tuple))


def constrain(x: jax.Array, axes: Axes) -> jax.Array:
    """Holds `x` to its place in the mesh that `jax.set_mesh` has set; the identity where none is set."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes))


def parts(mesh: Mesh, axis: str) -> int:
    """Into how many parts the mesh cuts a logical axis."""
    return math.prod(mesh.shape[a] for a in MESH_AXES[axis])


def _split(mesh: Mesh, axis: str) -> tuple[int, str]:
    """`parts`, and how to call that: `data=2 x fsdp=4`."""
    return parts(mesh, axis), " x ".join(f"{a}={mesh.shape[a]}" for a in MESH_AXES[axis])


def check_divides(mesh: Mesh, axes: Any, abstract_params: Any, rows: int) -> None:
    """UserError unless the mesh cuts every parameter and a (micro)batch of `rows` rows into equal parts."""
    count, name = _split(mesh, "batch")
    if rows % count:
        raise UserError(
            f"{rows} rows per microbatch (train.rows / train.accumulate) are not divisible by mesh {name}; "
            f"use a multiple of {count}"
        )
    leaves = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
    for leaf_axes, leaf in zip(leaves, jax.tree.leaves(abstract_params), strict=True):
        for axis, size in zip(leaf_axes, leaf.shape, strict=True):
            if axis is None:
                continue
            count, name = _split(mesh, axis)
            if size % count:
                raise UserError(f"{_CONFIG_KEY.get(axis, axis)}={size} is not divisible by mesh {name}")
