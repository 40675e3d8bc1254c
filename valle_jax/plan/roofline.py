"""How long a step takes at least: work over what the chip can do, for each thing that may hold it up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from valle_jax.parallel.chips import Chip
from valle_jax.plan.collectives import Collective


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that one step takes by each limit, at the chip's peak rates.

    Attributes:
      compute: matrix products.
      memory: reads and writes of main memory.
      links: collectives between the chips of a slice.
      network: collectives between slices.
    """

    compute: float
    memory: float
    links: float
    network: float

    @property
    def limits(self) -> dict[str, float]:
        """All of them by name."""
        return dataclasses.asdict(self)

    @property
    def bound_by(self) -> str:
        """The limit that holds the step up."""
        return max(self.limits, key=lambda name: self.limits[name])

    @property
    def seconds(self) -> float:
        """Of a step in which everything else hides behind the slowest: no step is faster."""
        return max(self.limits.values())

    @property
    def seconds_without_overlap(self) -> float:
        """Of a step in which one waits for the other: at the chip's peak rates, no step is slower."""
        return sum(self.limits.values())


def roofline(chip: Chip, *, flops: float, hbm_bytes: float, collectives: Sequence[Collective]) -> Roofline:
    """The limits of one chip's share of a step.

    A collective runs in a ring. On a TPU that is one axis of the torus in both directions, two of the chip's links,
    although large groups may use more and short lines of the torus have no way round; on a GPU all links to the switch.
    """
    rings = 2 if "TPU" in chip.name else 1
    return Roofline(
        compute=flops / chip.peak_flops,
        memory=hbm_bytes / chip.hbm_bandwidth,
        links=sum(c.sent_bytes - c.network_bytes for c in collectives) / (rings * chip.link_bandwidth),
        network=sum(c.network_bytes for c in collectives) / chip.network_bandwidth,
    )
