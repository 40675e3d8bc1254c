"""Devices to plan for: those of a named TPU topology, which need not exist, or those of this machine."""

from __future__ import annotations

import dataclasses
import importlib.util
import os

import jax

from valle_jax.errors import UserError
from valle_jax.parallel.chips import Chip, find_chip

# Of TPUs whose chip has two cores: how the compiler is told to show a chip as one device, as training sees it.
_MEGACORE = {"v4": "megacore"}

# Read when libtpu is loaded: no question to a cloud VM's metadata server, no lock against other processes; and any
# answer to what it would have asked, or it complains. Which topology is compiled for does not depend on that one.
_LIBTPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Where a program is to run.

    Attributes:
      name: as given, such as `v5e:16x16`.
      slices: how many of them, joined by a data centre's network.
      devices: of all slices.
      chip: None where it is not in the table, as a CPU.
    """

    name: str
    slices: int
    devices: tuple[jax.Device, ...]
    chip: Chip | None

    @property
    def platform(self) -> str:
        """`tpu`, `gpu` or `cpu`."""
        return self.devices[0].platform


def get_topology(name: str, slices: int = 1) -> Topology:
    """The devices of `v5e:16x16` (TPU generation and shape), or `cpu:8` or `gpu:4`, so many of this machine.

    Raises:
      UserError: nobody knows such a topology, this machine has fewer devices, or the TPU compiler is not installed.
    """
    generation, colon, shape = name.partition(":")
    if not colon or slices < 1:
        raise UserError(f"topology {name!r} x {slices} slices: give GENERATION:SHAPE such as v5e:16x16, or cpu:8")
    if generation in ("cpu", "gpu"):
        devices = _local_devices(name, generation, shape)
        if slices != 1:
            raise UserError(f"topology {name!r}: --slices is for TPU topologies")
    else:
        devices = _tpu_devices(name, generation, slices)
    return Topology(name, slices, devices, find_chip(devices[0].device_kind))


def _local_devices(name: str, platform: str, count: str) -> tuple[jax.Device, ...]:
    if not count.isdecimal() or int(count) < 1:
        raise UserError(f"topology {name!r}: {count!r} is not a number of devices")
    try:
        devices = jax.devices(platform)
    except RuntimeError:
        raise UserError(f"topology {name!r}: this machine shows JAX no {platform}; TPU topologies need none") from None
    if len(devices) < int(count):
        more = f"; XLA_FLAGS=--xla_force_host_platform_device_count={count} makes more" if platform == "cpu" else ""
        raise UserError(f"topology {name!r}: this machine has {len(devices)} {platform} devices{more}")
    return tuple(devices[: int(count)])


def _tpu_devices(name: str, generation: str, slices: int) -> tuple[jax.Device, ...]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"topology {name!r} needs the TPU compiler: pip install 'valle-jax[plan]' (or libtpu)")
    for variable, value in _LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    options: dict[str, object] = {"num_slices": slices} if slices > 1 else {}
    if generation in _MEGACORE:
        options["chip_config_name"] = _MEGACORE[generation]
    try:
        return tuple(topologies.get_topology_desc(name, platform="tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"topology {name!r} is none that the TPU compiler knows, such as v5e:16x16: {reason}") from None
