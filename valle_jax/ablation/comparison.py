"""The table of a suite: each member's figures, how far they are from the baseline's, and whether the controls hold."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from valle_jax.ablation.evaluation import Evaluation
from valle_jax.ablation.plan import Plan
from valle_jax.ablation.power_law import PowerLaw, fit_power_law
from valle_jax.ablation.suite import Suite
from valle_jax.ablation.training_record import TrainingRecord
from valle_jax.evaluation.bootstrap import Estimate
from valle_jax.evaluation.paired import NO_DIFFERENCE, verdict
from valle_jax.evaluation.results import Results
from valle_jax.version import __version__


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure of a member.

    Attributes:
      value: with its interval, which for a loss is the value alone.
      difference: from the baseline's, over the trials of both; None for the baseline and for losses.
      verdict: better, worse or different; where the difference's interval holds zero, 'no difference shown'.
    """

    value: Estimate
    difference: Estimate | None = None
    verdict: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """A member and a row of its evaluation.

    Attributes:
      member: its name.
      row: of the evaluation: a system, and a setting where there are several; "" where only losses were measured.
      cells: by figure.
      trainings: that it used.
      folder: of its evaluation, relative to the report; "" where there is none.
      control: whether a control came out as it must; None for what is none.
    """

    member: str
    row: str
    cells: Mapping[str, Cell]
    trainings: tuple[str, ...]
    folder: str = ""
    control: bool | None = None


@dataclasses.dataclass(frozen=True)
class Fit:
    """A power law of a line of points.

    Attributes:
      over: what grows: "parameters" or "hours".
      fixed: what does not, in words.
      sizes, losses: the points.
      law: fitted to them.
    """

    over: str
    fixed: str
    sizes: tuple[float, ...]
    losses: tuple[float, ...]
    law: PowerLaw


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All of a suite.

    Attributes:
      suite: that was run.
      lines: members in the suite's order, the rows of each.
      trainings: by name.
      fits: of a suite that scales.
      facts: dataset, protocol, seeds and so on.
    """

    suite: Suite
    lines: tuple[Line, ...]
    trainings: Mapping[str, TrainingRecord]
    fits: tuple[Fit, ...]
    facts: Mapping[str, Any]

    @property
    def figures(self) -> list[str]:
        """Names of all figures: the decisive ones first, losses last."""
        names = dict.fromkeys(name for line in self.lines for name in line.cells)
        return sorted(names, key=lambda name: (name.endswith(" loss"), not is_decisive(self.suite, name)))

    def to_json(self) -> dict[str, Any]:
        """A dict that `json.dumps` takes."""
        return {
            "suite": self.suite.name,
            "question": self.suite.question,
            "baseline": self.suite.baseline,
            "version": __version__,
            "date": datetime.date.today().isoformat(),
            "facts": dict(self.facts),
            "lines": [dataclasses.asdict(line) for line in self.lines],
            "trainings": {name: record.to_json() for name, record in self.trainings.items()},
            "fits": [dataclasses.asdict(fit) for fit in self.fits],
        }


def compare(
    plan: Plan,
    trainings: Mapping[str, TrainingRecord],
    evaluations: Mapping[str, Evaluation],
    out: pathlib.Path,
    hours: float,
    facts: Mapping[str, Any],
) -> Comparison:
    """Puts together what is done.

    Args:
      plan: of the suite.
      trainings: by name.
      evaluations: by member; {} where no speech was made.
      out: folder of the report.
      hours: of speech in the dataset.
      facts: for the report.

    Raises:
      UserError: an evaluation is not done.
    """
    records = {
        run.member.name: [trainings[stage_run.name] for stage_run in run.stages.values()] for run in plan.members
    }
    done = {name: Results.load(evaluation.folder) for name, evaluation in evaluations.items()}
    lines: list[Line] = []
    for run in plan.members:
        name = run.member.name
        losses = _loss_cells(records[name], records[plan.suite.baseline])
        names = tuple(stage_run.name for stage_run in run.stages.values())
        if name not in done:
            lines.append(Line(name, "", losses, names, "", _control(plan.suite, name, losses)))
            continue
        folder = evaluations[name].folder.relative_to(out).as_posix()
        for row in done[name].rows:
            cells = _cells(done[name], row, None if name == plan.suite.baseline else done[plan.suite.baseline])
            lines.append(Line(name, row, {**cells, **losses}, names, folder, _control(plan.suite, name, cells)))
    fits = _fits(plan, trainings, hours) if plan.suite.scales else ()
    return Comparison(plan.suite, tuple(lines), trainings, fits, facts)


def is_decisive(suite: Suite, figure: str) -> bool:
    """Whether a figure, `measure:figure` or `ar loss`, answers the suite's question."""
    return figure.rpartition(":")[2].startswith(suite.decisive)


def _cells(results: Results, row: str, baseline: Results | None) -> dict[str, Cell]:
    """The figures of a row, beside those of the baseline's row of the same name or, without one, of its first."""
    cells = {}
    for column in results.columns:
        estimate = results.estimate(row, column.key)
        if estimate is None:
            continue
        if baseline is None:
            cells[column.key] = Cell(estimate)
            continue
        other = row if row in baseline.rows else next(iter(baseline.rows))
        difference = results.difference(row, column.key, other, baseline)
        word = verdict(column.figure, difference) if difference is not None else ""
        cells[column.key] = Cell(estimate, difference, word)
    return cells


def _loss_cells(records: Sequence[TrainingRecord], baseline: Sequence[TrainingRecord]) -> dict[str, Cell]:
    """The held-out losses of a member's trainings; where they are not the baseline's, beside those."""
    cells = {}
    theirs = {record.stage: record for record in baseline}
    for record in records:
        if record.loss is None:
            continue
        other, word = theirs[record.stage], ""
        if other.name != record.name and other.loss is not None:
            word = "better" if record.loss < other.loss else "worse"
        cells[f"{record.stage} loss"] = Cell(Estimate(record.loss, record.loss, record.loss, 1), None, word)
    return cells


def _control(suite: Suite, name: str, cells: Mapping[str, Cell]) -> bool | None:
    """Whether the decisive figures of a control came out as it expects; None for what is no control."""
    expect = suite.member(name).expect
    verdicts = [cell.verdict for figure, cell in cells.items() if is_decisive(suite, figure)]
    if expect == "worse":
        return "worse" in verdicts
    return all(word == NO_DIFFERENCE for word in verdicts) if expect else None


def _fits(plan: Plan, trainings: Mapping[str, TrainingRecord], hours: float) -> tuple[Fit, ...]:
    """Power laws over the parameters at each share of the data, and over the data at each size."""
    stage = plan.suite.stages[0]
    used = {run.stages[stage].name for run in plan.members if not run.member.expect}
    points = [
        (float(record.parameters), record.data_share * hours, record.loss)
        for name, record in trainings.items()
        if name in used and record.loss is not None
    ]
    fits = []
    for over, mine, other, unit in (("parameters", 0, 1, "{:.3g} h of speech"), ("hours", 1, 0, "{:.3g} parameters")):
        for value in sorted({point[other] for point in points}):
            pairs = sorted((point[mine], point[2]) for point in points if point[other] == value)
            sizes, losses = zip(*pairs, strict=True)
            law = fit_power_law(sizes, losses)
            if law is not None:
                fits.append(Fit(over, unit.format(value), sizes, losses, law))
    return tuple(fits)
