"""The device mesh: data parallel, fully sharded data parallel, tensor parallel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import mesh_utils
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


def make_mesh(sizes: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes (data, fsdp, tensor); axes that are not named have size 1.

    Over several TPU slices, or several NVLink domains where the platform tells them apart, the data axis crosses the
    network between them, and fsdp and tensor stay inside.

    Args:
      sizes: devices along each axis; None puts all devices on `data`. A mesh that is smaller than the machine uses its
        first devices.
      devices: in place of those of this run, such as those of a topology to plan for.

    Raises:
      UserError: the mesh needs more devices than there are, leaves out devices of a run of several processes, or its
        data axis is not a multiple of the number of slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": len(devices)} if sizes is None else sizes
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    count = math.prod(shape)
    named = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, shape, strict=True))
    if count > len(devices):
        raise UserError(f"mesh {named} needs {count} devices, there are {len(devices)}; use a smaller mesh")
    if count < len(devices) and len({device.process_index for device in devices}) > 1:
        raise UserError(f"mesh {named} has {count} devices, all processes together {len(devices)}; use all of them")
    # Auto: the compiler places what is not constrained; `make_mesh` alone would make the axes Explicit.
    axis_types = (AxisType.Auto,) * len(AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices[:count]})
    if slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=axis_types, devices=devices[:count])
    if shape[0] % slices:
        raise UserError(f"mesh {named}: data must be a multiple of the {slices} slices, which only data spans")
    inside = (shape[0] // slices, *shape[1:])
    grid = mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1), devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=axis_types)


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: of the mesh in force, which a plan may have made of absent devices, else of this machine.

    What depends on it is decided while a function is traced.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.abstract_device is None:
        return jax.default_backend()
    return mesh.abstract_device.platform
