"""What accelerator chips can do: the one table behind `mfu` in the metrics and behind `valle plan`."""

from __future__ import annotations

import dataclasses

GB, GIB = 1e9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip as JAX shows it as one device.

    Attributes:
      name: for people.
      kind: part of JAX's `device_kind`.
      peak_flops: dense bfloat16 FLOP/s.
      hbm_bytes: memory.
      hbm_bandwidth: bytes/s.
      link_bandwidth: bytes/s in one direction of one link to a neighbour (TPU), or of all links to the switch (GPU).
      network_bandwidth: bytes/s in one direction between slices (TPU) or nodes (GPU), a chip's share of its host's.
    """

    name: str
    kind: str
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float


# Sources, read 2026-11: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e} ("bidirectional ICI bandwidth per chip" over
# twice the number of ports; v5e and v6e network: that of a pod over its chips); jax-ml.github.io/scaling-book/tpus for
# the network of v4 and v5p; the A100, H100 and H200 data sheets (no sparsity; NVLink total over two directions) with
# one 200 or 400 Gbit/s adapter per GPU. The first match counts.
CHIPS = (
    Chip("TPU v4", "TPU v4", 275e12, 32 * GIB, 1228 * GB, 50 * GB, 6.25 * GB),
    Chip("TPU v5e", "TPU v5 lite", 197e12, 16 * GIB, 819 * GB, 50 * GB, 3.125 * GB),
    Chip("TPU v5e", "TPU v5e", 197e12, 16 * GIB, 819 * GB, 50 * GB, 3.125 * GB),
    Chip("TPU v5p", "TPU v5", 459e12, 95 * GIB, 2765 * GB, 100 * GB, 6.25 * GB),  # it calls itself "TPU v5"
    Chip("TPU v6e", "TPU v6", 918e12, 32 * GIB, 1640 * GB, 100 * GB, 12.5 * GB),
    Chip("NVIDIA A100 40 GB", "A100-SXM4-40GB", 312e12, 40 * GIB, 1555 * GB, 300 * GB, 25 * GB),
    Chip("NVIDIA A100", "A100", 312e12, 80 * GIB, 2039 * GB, 300 * GB, 25 * GB),
    Chip("NVIDIA H100 PCIe", "H100 PCIe", 756e12, 80 * GIB, 2000 * GB, 300 * GB, 25 * GB),
    Chip("NVIDIA H100", "H100", 989e12, 80 * GIB, 3350 * GB, 450 * GB, 50 * GB),
    Chip("NVIDIA H200", "H200", 989e12, 141 * GB, 4800 * GB, 450 * GB, 50 * GB),
)


def find_chip(device_kind: str) -> Chip | None:
    """The chip that JAX calls so, or None where it is not in the table."""
    return next((chip for chip in CHIPS if chip.kind in device_kind), None)


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of a chip, or None where it is not in the table."""
    chip = find_chip(device_kind)
    return None if chip is None else chip.peak_flops
