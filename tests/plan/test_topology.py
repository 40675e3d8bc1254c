"""Topologies by name, and what is said of names that are none."""

import pytest

from valle_jax.errors import UserError
from valle_jax.plan import topology
from valle_jax.plan.topology import get_topology


@pytest.mark.parametrize(
    ("name", "slices", "chips", "chip"),
    [
        ("v4:2x2x1", 1, 4, "TPU v4"),  # two cores a chip, shown as one
        ("v5e:16x16", 1, 256, "TPU v5e"),
        ("v5p:4x4x4", 1, 64, "TPU v5p"),
        ("v6e:4x4", 1, 16, "TPU v6e"),
        ("v5e:2x2", 2, 8, "TPU v5e"),
    ],
)
def test_tpu_topologies_show_their_chips(tpu, name, slices, chips, chip):
    found = tpu(name, slices)
    assert (len(found.devices), found.chip.name, found.platform) == (chips, chip, "tpu")
    assert len({getattr(device, "slice_index", None) for device in found.devices}) == slices


def test_devices_of_this_machine(cpu8):
    assert len(cpu8.devices) == 8
    assert cpu8.chip is None
    assert len(get_topology("cpu:2").devices) == 2


@pytest.mark.parametrize(
    ("name", "slices", "message"),
    [
        ("v5e", 1, "such as v5e:16x16"),
        ("cpu:9", 1, "has 8 cpu devices"),
        ("cpu:x", 1, "not a number"),
        ("cpu:4", 2, "--slices is for TPU"),
        ("gpu:1", 1, "no gpu"),
    ],
)
def test_wrong_names(name, slices, message):
    with pytest.raises(UserError, match=message):
        get_topology(name, slices)


@pytest.mark.parametrize("name", ["v9:2x2", "v5e:3x7"])
def test_what_the_tpu_compiler_does_not_know(tpu, name):
    with pytest.raises(UserError, match="none that the TPU compiler knows"):
        tpu(name)


def test_without_the_tpu_compiler(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        get_topology("v5e:2x2")
