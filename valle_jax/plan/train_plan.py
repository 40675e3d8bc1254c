"""The plan of a training step: what it costs on each chip, and what that means for the run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from valle_jax.config import Config
from valle_jax.model import build
from valle_jax.parallel.mesh import AXES, make_mesh
from valle_jax.plan.advice import paper_rows
from valle_jax.plan.collectives import Collective, find_collectives
from valle_jax.plan.flops import Flops, Speech, train_flops
from valle_jax.plan.hlo import parse_module
from valle_jax.plan.program import (
    Memory,
    OutOfMemory,
    attention_backend,
    compile_for,
    memory_of,
    program_text,
    trace_train_step,
)
from valle_jax.plan.roofline import Roofline, roofline
from valle_jax.plan.topology import Topology
from valle_jax.plan.traffic import hbm_bytes


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """A compiled training step and what follows from it.

    Attributes:
      config: resolved.
      topology: its name.
      slices: how many of it.
      chip: name of the chip.
      mesh: devices along each axis.
      chips: devices of the mesh; `chips_idle` are those of the topology that it leaves out.
      chips_idle: see above.
      attention: name of the back end.
      parameters: numbers that the parameters hold.
      flops: of all chips together.
      memory: of one chip; None where the compiler found no room.
      out_of_memory: the compiler's refusal, or None.
      hbm_capacity: bytes of one chip; None where the chip is not in the table.
      hbm_bytes: moved by one chip per step; 0 where nothing was compiled.
      collectives: of one chip per step.
      roofline: None where the chip is not in the table or nothing was compiled.
      compile_seconds: tracing and compiling.
      speech: what rows are assumed to hold.
    """

    config: Config
    topology: str
    slices: int
    chip: str
    mesh: dict[str, int]
    chips: int
    chips_idle: int
    attention: str
    parameters: int
    flops: Flops
    memory: Memory | None
    out_of_memory: OutOfMemory | None
    hbm_capacity: float | None
    hbm_bytes: float
    collectives: tuple[Collective, ...]
    roofline: Roofline | None
    compile_seconds: float
    speech: Speech

    @property
    def fits(self) -> bool:
        """Whether the program has room on the chip."""
        return self.memory is not None and (self.hbm_capacity is None or self.memory.peak <= self.hbm_capacity)

    @property
    def tokens(self) -> int:
        """Of a global batch, padding included."""
        return self.config.train.rows * self.config.data.row_length

    @property
    def frames(self) -> float:
        """Acoustic frames of a global batch."""
        return self.tokens * self.speech.frame_share

    @property
    def intensity(self) -> float | None:
        """Arithmetic intensity: FLOPs computed per byte of main memory moved."""
        return self.flops.computed / self.chips / self.hbm_bytes if self.hbm_bytes else None

    def mfu(self, seconds: float, peak_flops: float) -> float:
        """What `metrics.jsonl` would call `mfu` with steps of that length."""
        return self.flops.model / self.chips / peak_flops / seconds

    def to_json(self) -> dict[str, Any]:
        """Everything, and what is derived from it, in units of one byte, FLOP, second."""
        values = dataclasses.asdict(self)
        values["config"] = self.config.to_json()
        values |= {"fits": self.fits, "tokens_per_step": self.tokens, "frames_per_step": self.frames}
        values["flops"]["computed"] = self.flops.computed
        values["intensity_flops_per_byte"] = self.intensity
        if self.memory is not None:
            values["memory"]["peak"] = self.memory.peak
        for row, collective in zip(values["collectives"], self.collectives, strict=True):
            row |= {"sent_bytes": collective.sent_bytes, "network_bytes": collective.network_bytes}
        if self.roofline is not None:
            seconds, serial = self.roofline.seconds, self.roofline.seconds_without_overlap
            values["roofline"] |= {
                "bound_by": self.roofline.bound_by,
                "seconds": seconds,
                "seconds_without_overlap": serial,
                "mfu": self.mfu_bound(seconds),
                "mfu_without_overlap": self.mfu_bound(serial),
                "frames_per_second": self.frames / seconds,
                "frames_per_second_without_overlap": self.frames / serial,
            }
        return values

    def mfu_bound(self, seconds: float) -> float:
        """`mfu` with steps of that length on this plan's chip."""
        assert self.roofline is not None
        peak = self.flops.computed / self.chips / self.roofline.compute
        return self.mfu(seconds, peak)


def plan_training(
    config: Config, topology: Topology, mesh_sizes: Mapping[str, int] | None, speech: Speech
) -> TrainPlan:
    """Compiles the training step for the topology and reads from it what it costs.

    Args:
      config: with the model's sizes and `train.rows` set.
      topology: see `get_topology`.
      mesh_sizes: devices along each axis; None: all on `data`.
      speech: what the rows hold.

    Raises:
      UserError: the mesh does not fit the topology, the model or the rows.
    """
    start = time.perf_counter()
    mesh = make_mesh(mesh_sizes, topology.devices)
    compiled = compile_for(trace_train_step(config, mesh), mesh)
    common = describe(config, topology, mesh, speech)
    if isinstance(compiled, OutOfMemory):
        return TrainPlan(
            **common,
            memory=None,
            out_of_memory=compiled,
            hbm_bytes=0.0,
            collectives=(),
            roofline=None,
            compile_seconds=time.perf_counter() - start,
        )
    module = parse_module(program_text(compiled))
    moved, collectives = hbm_bytes(module), tuple(find_collectives(module, mesh))
    flops = common["flops"].computed / mesh.size
    limits = roofline(topology.chip, flops=flops, hbm_bytes=moved, collectives=collectives) if topology.chip else None
    return TrainPlan(
        **common,
        memory=memory_of(compiled),
        out_of_memory=None,
        hbm_bytes=moved,
        collectives=collectives,
        roofline=limits,
        compile_seconds=time.perf_counter() - start,
    )


def describe(config: Config, topology: Topology, mesh: Mesh, speech: Speech) -> dict[str, Any]:
    """What of a plan is known without compiling, by the names of `TrainPlan`'s fields."""
    decoder = build(config.model)
    attention = attention_backend(config, mesh)
    tile = 1 if topology.platform == "cpu" else 128
    return {
        "config": config,
        "topology": topology.name,
        "slices": topology.slices,
        "chip": topology.chip.name if topology.chip else topology.devices[0].device_kind,
        "mesh": {axis: mesh.shape[axis] for axis in AXES},
        "chips": mesh.size,
        "chips_idle": len(topology.devices) - mesh.size,
        "attention": attention,
        "parameters": decoder.n_parameters,
        "flops": train_flops(config, decoder, attention, speech, tile=tile),
        "hbm_capacity": topology.chip.hbm_bytes if topology.chip else None,
        "speech": speech,
    }


def with_rows(config: Config, topology: Topology, mesh_sizes: Mapping[str, int] | None, speech: Speech) -> Config:
    """The configuration with `train.rows`: where it has none, the paper's batch, as near as the mesh divides."""
    if config.train.rows:
        return config
    sizes = mesh_sizes or {"data": len(topology.devices)}
    multiple = config.train.accumulate * sizes.get("data", 1) * sizes.get("fsdp", 1)
    rows = max(1, round(paper_rows(config, speech) / multiple)) * multiple
    return dataclasses.replace(config, train=dataclasses.replace(config.train, rows=rows))
