"""The verb `valle compare-run`."""

from __future__ import annotations

import dataclasses
import pathlib

import tyro

from valle_jax.errors import UserError
from valle_jax.evaluation.curves import Curve, Run, compare, differences, nearest, record, shipped


@dataclasses.dataclass(frozen=True)
class CompareRun:
    """Is a training run healthy? Its loss over a reference curve: a picture, and for each step whether it is in range.

    A reference curve is the loss of a shipped preset on a public corpus. With --record, one is made from runs that
    differ in their seed.

    Example: valle compare-run runs/ar

    Example: valle compare-run runs/ar-0 runs/ar-1 --record tiny-ar.json --description "tiny, LibriSpeech, CPU"
    """

    workdirs: tyro.conf.Positional[tuple[str, ...]]
    """Work directory of `valle train`; with --record several."""
    reference: str | None = None
    """Name of a shipped curve, or a file; default: the shipped one of the stage whose settings are nearest."""
    out: str | None = None
    """Picture to write; default: WORKDIR/compare_run.png."""
    record: str | None = None
    """File of the reference curve to write instead."""
    description: str = ""
    """With --record: preset, corpus, device, date and command."""

    def run(self) -> None:
        """Prints the verdicts, or where the curve is."""
        if not self.workdirs:
            raise UserError("name a work directory of `valle train`")
        runs = [Run.load(workdir) for workdir in self.workdirs]
        if self.record:
            path = pathlib.Path(self.record)
            record(runs, path.stem, self.description).save(path)
            print(f"reference curve {path}")
            return
        if len(runs) != 1:
            raise UserError("compare one run at a time; several make a reference curve with --record FILE")
        curve = _curve(self.reference, runs[0])
        print("\n".join(report(curve, runs[0])))
        path = pathlib.Path(self.out or runs[0].workdir / "compare_run.png")
        draw(curve, runs[0], path)
        print(f"picture {path}")


def _curve(name: str | None, run: Run) -> Curve:
    curves = shipped()
    if name is None:
        return nearest(run, curves)
    if name in curves:
        return curves[name]
    if pathlib.Path(name).is_file():
        return Curve.load(pathlib.Path(name))
    raise UserError(f"no reference curve {name!r}; shipped: {', '.join(curves) or 'none'}; or name a file")


def report(curve: Curve, run: Run) -> list[str]:
    """Lines: the reference, what differs from it, each step, and a summary."""
    lines = [f"reference {curve.name}: {curve.description}"]
    lines += [f"differs: {difference}" for difference in differences(curve.config, run.config)]
    if run.codec != curve.codec:
        lines.append(f"differs: codec {run.codec} (reference: {curve.codec}): losses do not compare")
    if run.datasets != curve.datasets:
        lines.append("differs: another dataset: the level may differ, the shape should not")
    points = compare(curve, run)
    if not points:
        first, last = int(run.steps[0]), int(run.steps[-1])
        reference = f"the reference those from {curve.steps[0]} to {curve.steps[-1]}"
        return [*lines, f"the run has losses of steps {first} to {last}, {reference}: nothing to compare"]
    for p in points:
        where = "within range" if p.verdict == "within" else f"{p.verdict} the range"
        lines.append(f"step {p.step}: loss {p.loss:.3f}, reference {p.low:.3f} to {p.high:.3f}: {where}")
    within = sum(p.verdict == "within" for p in points)
    summary = f"within range at {within} of {len(points)} steps"
    if points[-1].verdict != "within":
        summary += f"; {points[-1].verdict} the range at the last, {points[-1].step}"
    return [*lines, summary]


def draw(curve: Curve, run: Run, path: pathlib.Path) -> None:
    """The picture; UserError where matplotlib is not installed or the file cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("the picture needs matplotlib: pip install 'valle-jax[eval]'") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    points = compare(curve, run)
    low, high = [p.low for p in points], [p.high for p in points]
    axis.fill_between([p.step for p in points], low, high, alpha=0.3, label=f"range of {curve.name}")
    axis.plot(curve.steps, curve.loss, label=curve.name)
    axis.plot(run.steps, run.loss, linewidth=0.5, color="gray", label="this run")
    axis.plot(run.steps, run.smooth()[0], color="black", label="this run, smoothed")
    axis.set(xlabel="step", ylabel="loss, nats per target")
    axis.legend()
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
