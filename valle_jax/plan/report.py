"""A plan as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from valle_jax.plan.advice import batch_advice
from valle_jax.plan.train_plan import TrainPlan

_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(value: float, unit: str) -> str:
    """With a decimal prefix: `1.50 GB`."""
    for scale, prefix in _SI:
        if abs(value) >= scale:
            return f"{value / scale:.2f} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def gibibytes(value: float) -> str:
    """Memory, in the units in which chips are sold."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"


def milliseconds(seconds: float) -> str:
    """A time of a step."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Columns, the first and those that are no numbers to the left."""
    lines = [list(header), *map(list, rows)] if header else [list(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def mesh_text(mesh: dict[str, int]) -> str:
    """`data=64,fsdp=4`, axes of size 1 left out."""
    return ",".join(f"{axis}={size}" for axis, size in mesh.items() if size > 1) or "data=1"


def train_report(plan: TrainPlan) -> str:
    """The whole plan for people."""
    config = plan.config
    slices = f" x {plan.slices} slices" if plan.slices > 1 else ""
    head = [
        f"valle plan: {config.model.stage} training step on {plan.topology}{slices} ({plan.chip}), "
        f"mesh {mesh_text(plan.mesh)}, {config.train.rows} rows of {config.data.row_length}",
        f"  {config.model.n_layers} layers, {config.model.d_model} wide, {plan.parameters / 1e6:.1f}M parameters; "
        f"remat={config.model.remat}, attention={plan.attention}, accumulate={config.train.accumulate}, "
        f"loss_chunk={config.train.loss_chunk}; compiled in {plan.compile_seconds:.0f} s",
    ]
    if plan.chips_idle:
        head.append(f"  {plan.chips} chips; {plan.chips_idle} of the topology are left out of the mesh")
    parts = ["\n".join(head), _memory(plan), _flops(plan)]
    if plan.memory is not None:
        parts.append(_collectives(plan))
    if plan.roofline is not None:
        parts.append(_roofline(plan))
    advice = batch_advice(config, plan.chips, plan.mesh["data"] * plan.mesh["fsdp"], plan.speech)
    parts.append("Batch and learning rate\n" + "\n".join(f"  {line}" for line in advice))
    return "\n\n".join(parts)


def _memory(plan: TrainPlan) -> str:
    title = "Memory of a chip"
    if plan.memory is None:
        assert plan.out_of_memory is not None
        needed, available = map(gibibytes, (plan.out_of_memory.needed, plan.out_of_memory.available))
        return (
            f"{title}\n  DOES NOT FIT: the compiler needs {needed}, the chip has {available}. "
            "Fewer rows per chip, model.remat=full, train.loss_chunk or more fsdp."
        )
    memory = plan.memory
    lines = [
        ("state and batch", gibibytes(memory.arguments)),
        ("results", gibibytes(memory.outputs)),
        ("temporaries", gibibytes(memory.temporaries)),
        ("program", gibibytes(memory.code)),
        ("together", gibibytes(memory.peak) + _share(plan)),
    ]
    return f"{title}\n{table(lines)}"


def _share(plan: TrainPlan) -> str:
    if plan.hbm_capacity is None or plan.memory is None:
        return ""
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return f", {plan.memory.peak / plan.hbm_capacity:.0%} of {gibibytes(plan.hbm_capacity)}: {verdict}"


def _flops(plan: TrainPlan) -> str:
    flops, speech = plan.flops, plan.speech
    lines = [
        ("forward", quantity(flops.forward, "FLOP")),
        ("backward", quantity(flops.backward, "FLOP")),
        ("attention, as computed", quantity(flops.attention, "FLOP")),
        (f"recomputed (remat={plan.config.model.remat})", quantity(flops.recompute, "FLOP")),
        (
            "computed, all",
            f"{quantity(flops.computed, 'FLOP')}; {quantity(flops.computed / plan.chips, 'FLOP')} a chip",
        ),
        ("of the model (6 x parameters x tokens)", quantity(flops.model, "FLOP")),
        ("attention within utterances", quantity(flops.attention_useful, "FLOP")),
    ]
    return (
        f"Work of a step, all chips (utterances of {speech.seconds:g} s, {speech.segment_tokens:.0f} tokens, "
        f"rows {speech.fill:.0%} full)\n{table(lines)}"
    )


def _collectives(plan: TrainPlan) -> str:
    if not plan.collectives:
        return "Sent between chips: nothing"
    merged: dict[tuple[str, str, int], list[float]] = {}
    for c in plan.collectives:
        total = merged.setdefault((c.kind, c.axes, c.group), [0.0, 0.0, 0.0])
        for i, value in enumerate((c.runs, c.sent_bytes, c.network_bytes)):
            total[i] += value
    lines = [
        (kind, axes, str(group), f"{runs:g}", quantity(sent, "B"), quantity(network, "B"))
        for (kind, axes, group), (runs, sent, network) in sorted(merged.items(), key=lambda item: -item[1][1])
    ]
    header = ("collective", "over", "chips", "runs", "sent by a chip", "of it between slices")
    columns = len(header) if plan.slices > 1 else len(header) - 1
    return "Sent between chips in a step\n" + table([line[:columns] for line in lines], header[:columns])


def _roofline(plan: TrainPlan) -> str:
    assert plan.roofline is not None
    limits, times = plan.roofline, (plan.roofline.seconds, plan.roofline.seconds_without_overlap)
    lines = [
        ("matrix products", milliseconds(limits.compute)),
        ("main memory", f"{milliseconds(limits.memory)}, {quantity(plan.hbm_bytes, 'B')}; {plan.intensity:.0f} FLOP/B"),
        ("links", milliseconds(limits.links)),
        *([("network", milliseconds(limits.network))] if plan.slices > 1 else []),
    ]
    best, worst = (
        f"{milliseconds(seconds)}, MFU {plan.mfu_bound(seconds):.0%}, {quantity(plan.frames / seconds, 'frames/s')}"
        for seconds in times
    )
    return (
        f"Roofline of a step at the chip's peak rates: bound by {limits.bound_by}\n{table(lines)}\n"
        f"  all overlapping: {best} (no step is faster)\n  nothing overlapping: {worst}"
    )
