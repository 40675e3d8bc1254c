"""Which rows a process loads and how they become global arrays. Several processes: tests/train/test_many_hosts.py."""

import jax
import numpy as np
import pytest

from valle_jax.parallel.hosts import HostRows, gather
from valle_jax.parallel.mesh import make_mesh
from valle_jax.parallel.sharding import named_sharding


@pytest.mark.parametrize("sizes", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"tensor": 4}])
def test_one_process_has_all_rows(sizes):
    rows = HostRows.of(make_mesh(sizes), 16)
    assert rows.local.tolist() == list(range(16))
    values = np.arange(16 * 3, dtype=np.int32).reshape(16, 3)
    placed = rows.place({"token": values})["token"]
    np.testing.assert_array_equal(placed, values)
    assert placed.sharding == named_sharding(rows.mesh, ("batch",))


def test_gather_alone_changes_nothing():
    mesh = make_mesh({"fsdp": 4})
    x = jax.device_put(np.arange(8.0), named_sharding(mesh, ("embed",)))
    assert gather({"x": x}, mesh)["x"] is x
