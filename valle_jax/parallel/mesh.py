"""The device mesh: data parallel, fully sharded data parallel, tensor parallel."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
from jax.sharding import AxisType, Mesh

from valle_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")


def parse_mesh(text: str) -> dict[str, int]:
    """`"data=4,fsdp=2"` as `{"data": 4, "fsdp": 2}`; UserError for anything else."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, equals, size = (piece.strip() for piece in part.partition("="))
        if axis not in AXES:
            raise UserError(f"mesh {text!r}: unknown axis {axis!r}; the axes are {', '.join(AXES)}")
        if not equals or not size.isdecimal() or int(size) < 1:
            raise UserError(f"mesh {text!r}: {part.strip()!r} is not of the form axis=N with N >= 1")
        if axis in sizes:
            raise UserError(f"mesh {text!r}: axis {axis!r} stands there twice")
        sizes[axis] = int(size)
    return sizes


def make_mesh(sizes: Mapping[str, int] | None = None) -> Mesh:
    """A mesh with axes (data, fsdp, tensor); axes that are not named have size 1.

    Args:
      sizes: devices along each axis; None puts all devices on `data`. A mesh that is smaller than the machine uses its
        first devices.

    Raises:
      UserError: the mesh needs more devices than there are.
    """
    devices = jax.devices()
    sizes = {"data": len(devices)} if sizes is None else sizes
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    count = math.prod(shape)
    if count > len(devices):
        named = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, shape, strict=True))
        raise UserError(f"mesh {named} needs {count} devices, this machine has {len(devices)}; use a smaller mesh")
    # Auto: the compiler places what is not constrained; `make_mesh` alone would make the axes Explicit.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:count])
