"""The device mesh: parsing, defaults, refusals."""

import dataclasses

import jax
import pytest
from jax.sharding import AxisType

from valle_jax.errors import UserError
from valle_jax.parallel.mesh import make_mesh, parse_mesh


def test_parse():
    assert parse_mesh("data=4, fsdp=2,tensor=1") == {"data": 4, "fsdp": 2, "tensor": 1}


@pytest.mark.parametrize(
    "text, message",
    [
        ("dat=4", "unknown axis 'dat'; the axes are data, fsdp, tensor"),
        ("data", "'data' is not of the form axis=N"),
        ("data=0", "'data=0' is not of the form"),
        ("data=x", "'data=x' is not of the form"),
        ("data=2,data=2", "axis 'data' stands there twice"),
        ("", "unknown axis ''"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(UserError, match=message):
        parse_mesh(text)


def test_default_is_all_devices_on_data():
    mesh = make_mesh()
    assert dict(mesh.shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert mesh.axis_types == (AxisType.Auto,) * 3


def test_smaller_mesh_uses_the_first_devices():
    mesh = make_mesh({"fsdp": 2, "tensor": 3})
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "tensor": 3}
    assert sorted(d.id for d in mesh.devices.flat) == sorted(d.id for d in jax.devices()[:6])


@dataclasses.dataclass(frozen=True)
class AbsentDevice:
    """What `make_mesh` asks of a device before it refuses."""

    process_index: int
    slice_index: int


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"data": 4}, "data=4 x fsdp=1 x tensor=1 has 4 devices, all processes together 8; use all of them"),
        ({"data": 1, "fsdp": 8}, "data=1 x fsdp=8 x tensor=1: data must be a multiple of the 2 slices"),
    ],
)
def test_meshes_over_processes_and_slices_that_are_refused(sizes, message):
    devices = [AbsentDevice(process_index=i // 4, slice_index=i // 4) for i in range(8)]
    with pytest.raises(UserError, match=message):
        make_mesh(sizes, devices)


def test_too_many_devices():
    with pytest.raises(UserError, match="data=4 x fsdp=3 x tensor=1 needs 12 devices, there are 8"):
        make_mesh({"data": 4, "fsdp": 3})
