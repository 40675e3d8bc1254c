"""The plan of a sampler on one chip."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from valle_jax.config import Config
from valle_jax.model import build
from valle_jax.parallel.mesh import make_mesh
from valle_jax.plan.hlo import parse_module
from valle_jax.plan.program import Memory, OutOfMemory, compile_for, memory_of, program_text, trace_sampler
from valle_jax.plan.report import gibibytes, milliseconds, quantity, table
from valle_jax.plan.topology import Topology
from valle_jax.plan.traffic import hbm_bytes


@dataclasses.dataclass(frozen=True)
class SamplePlan:
    """A compiled sampler of one stage and what follows from it.

    Attributes:
      config: resolved.
      chip: name of the chip.
      rows: utterances side by side.
      prompt_tokens: text and prompt of each.
      frames: that each gets.
      parameters: numbers that the parameters hold.
      memory: None where the compiler found no room.
      out_of_memory: the compiler's refusal, or None.
      hbm_capacity: bytes; None where the chip is not in the table.
      hbm_bytes: moved for all frames.
      memory_seconds: that takes at the peak rate, which bounds the AR's steps of one token; None for unknown chips.
      compile_seconds: tracing and compiling.
    """

    config: Config
    chip: str
    rows: int
    prompt_tokens: int
    frames: int
    parameters: int
    memory: Memory | None
    out_of_memory: OutOfMemory | None
    hbm_capacity: float | None
    hbm_bytes: float
    memory_seconds: float | None
    compile_seconds: float

    @property
    def fits(self) -> bool:
        """Whether the program has room on the chip."""
        return self.memory is not None and (self.hbm_capacity is None or self.memory.peak <= self.hbm_capacity)

    def to_json(self) -> dict[str, Any]:
        """Everything, in bytes and seconds."""
        return dataclasses.asdict(self) | {"config": self.config.to_json(), "fits": self.fits}


def plan_sampling(config: Config, topology: Topology, *, rows: int, prompt_tokens: int, frames: int) -> SamplePlan:
    """Compiles `generate_ar` or `generate_nar` for the first chip of the topology.

    The loop of the AR ends where all rows have ended; it is taken to give all `frames`.
    """
    start = time.perf_counter()
    mesh = make_mesh({"data": 1}, topology.devices[:1])
    compiled = compile_for(trace_sampler(config.model, mesh, rows=rows, prefix=prompt_tokens, frames=frames), mesh)
    refused = compiled if isinstance(compiled, OutOfMemory) else None
    steps = -(-frames // config.model.codes_per_step)
    moved = 0.0 if refused else hbm_bytes(parse_module(program_text(compiled), unknown_trips=steps))
    chip = topology.chip
    return SamplePlan(
        config=config,
        chip=chip.name if chip else topology.devices[0].device_kind,
        rows=rows,
        prompt_tokens=prompt_tokens,
        frames=frames,
        parameters=build(config.model).n_parameters,
        memory=None if refused else memory_of(compiled),
        out_of_memory=refused,
        hbm_capacity=chip.hbm_bytes if chip else None,
        hbm_bytes=moved,
        memory_seconds=moved / chip.hbm_bandwidth if chip else None,
        compile_seconds=time.perf_counter() - start,
    )


def sample_report(plan: SamplePlan) -> str:
    """The plan for people."""
    head = (
        f"valle plan: {plan.config.model.stage} sampler on one {plan.chip}, {plan.rows} utterances of "
        f"{plan.prompt_tokens} tokens of text and prompt and {plan.frames} frames to generate\n"
        f"  {plan.parameters / 1e6:.1f}M parameters; compiled in {plan.compile_seconds:.0f} s"
    )
    if plan.memory is None:
        assert plan.out_of_memory is not None
        needed, available = map(gibibytes, (plan.out_of_memory.needed, plan.out_of_memory.available))
        return f"{head}\n\nDOES NOT FIT: the compiler needs {needed}, the chip has {available}. Fewer rows or frames."
    lines = [
        ("parameters and prompts", gibibytes(plan.memory.arguments)),
        ("results", gibibytes(plan.memory.outputs)),
        ("temporaries, with the cache", gibibytes(plan.memory.temporaries)),
        ("program", gibibytes(plan.memory.code)),
        ("together", gibibytes(plan.memory.peak)),
        ("moved to and from main memory", quantity(plan.hbm_bytes, "B")),
    ]
    if plan.memory_seconds is not None:
        speed = quantity(plan.rows * plan.frames / plan.memory_seconds, "frames/s")
        lines.append(("time for that at the peak rate", f"{milliseconds(plan.memory_seconds)}: {speed} at most"))
    return f"{head}\n\n{table(lines)}"
