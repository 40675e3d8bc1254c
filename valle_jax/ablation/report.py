"""report.md, report.html, results.json and the pictures of a suite."""

from __future__ import annotations

import html
import json
import os
import pathlib
import platform
from collections.abc import Sequence

import numpy as np

from valle_jax.ablation.comparison import Cell, Comparison, Fit, is_decisive
from valle_jax.ablation.training_record import TrainingRecord
from valle_jax.errors import UserError
from valle_jax.evaluation.paired import NO_DIFFERENCE
from valle_jax.plan.report import quantity


def write_report(out: pathlib.Path, results: Comparison) -> None:
    """Writes everything into `out`."""
    pictures = _draw(out / "pictures", results)
    (out / "results.json").write_text(json.dumps(results.to_json(), indent=1) + "\n", encoding="utf-8")
    zero = _zero(results)
    parts = [("Figures", *_figures(results, zero)), ("Trainings", *_trainings(results))]
    if results.fits:
        parts.append(("Power laws: loss = a N^-b + c", *_fits(results.fits)))
    notes = _notes(results, zero)
    (out / "report.md").write_text(_markdown(results, parts, notes, pictures), encoding="utf-8")
    (out / "report.html").write_text(_html(results, parts, notes, pictures), encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3f}"


def _cell(cell: Cell | None) -> str:
    """Such as `0.31 [0.28, 0.34]; +0.05 [0.02, 0.08] worse`."""
    if cell is None:
        return ""
    value, difference = cell.value, cell.difference
    text = _number(value.value)
    if value.low != value.high:
        text += f" [{_number(value.low)}, {_number(value.high)}]"
    if cell.verdict == NO_DIFFERENCE:
        return f"{text}; {NO_DIFFERENCE}"
    if difference is not None:
        sign = "+" if difference.value > 0 else ""
        text += f"; {sign}{_number(difference.value)} [{_number(difference.low)}, {_number(difference.high)}]"
    return f"{text} {cell.verdict}".strip()


def _figures(results: Comparison, zero: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without the figures that are 0 everywhere."""
    names = [name for name in results.figures if name not in zero]
    shows_systems = len({line.row for line in results.lines}) > 1
    rows = []
    for line in results.lines:
        name = f"{line.member} (baseline)" if line.member == results.suite.baseline else line.member
        if line.control is not None:
            name += ": holds" if line.control else ": FAILS"
        system = [line.row] if shows_systems else []
        rows.append([name, *system, *(_cell(line.cells.get(figure)) for figure in names)])
    return ["", *(["system"] if shows_systems else []), *names], rows


def _zero(results: Comparison) -> list[str]:
    """Figures that decide nothing and are 0 in every row, such as the share of bad takes of a kind that none is."""
    names = [name for name in results.figures if not is_decisive(results.suite, name)]
    found = {name: [line.cells[name].value for line in results.lines if name in line.cells] for name in names}
    return [name for name, values in found.items() if all(value.low == value.high == 0 for value in values)]


def _trainings(results: Comparison) -> tuple[list[str], list[list[str]]]:
    rows = []
    for record in results.trainings.values():
        users = dict.fromkeys(line.member for line in results.lines if record.name in line.trainings)
        loss = "" if record.loss is None else f"{record.loss:.3f}"
        rows.append(
            [
                record.name,
                ", ".join(users),
                f"{record.parameters / 1e6:.2f} M",
                f"{record.steps:,}",
                loss,
                quantity(record.flops, "FLOP"),
                f"{record.seconds / 60:.1f} min on {record.device}",
            ]
        )
    return ["training", "of", "parameters", "steps", "best held-out loss", "work", "time"], rows


def _fits(fits: Sequence[Fit]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for fit in fits:
        law = fit.law
        triples = zip((law.a, law.b, law.c), law.low, law.high, strict=True)
        cells = [f"{value:.3g} [{low:.3g}, {high:.3g}]" for value, low, high in triples]
        rows.append([fit.over, fit.fixed, str(len(fit.sizes)), *cells, f"{law.error:.4f}"])
    return ["N", "at", "points", "a", "b", "c", "residual, nats"], rows


def _notes(results: Comparison, zero: Sequence[str]) -> list[str]:
    facts = "; ".join(f"{name}: {value}" for name, value in results.facts.items())
    notes = [
        f"Baseline: {results.suite.baseline}. Brackets are 95 % bootstrap intervals over the trials. Behind the "
        "semicolon stands the difference from the baseline on the same trials, or "
        f"'{NO_DIFFERENCE}' where its interval holds zero. Losses, in nats per code, are of one training each and have "
        "no interval.",
        f"{facts}. {platform.machine()}, {os.cpu_count()} CPUs.",
    ]
    if zero:
        notes.append(f"0 in every row: {', '.join(zero)}.")
    if results.fits:
        notes.append("Intervals of the power laws: 95 % by the jackknife over the points.")
    return notes


def _markdown(results: Comparison, parts, notes: Sequence[str], pictures: Sequence[str]) -> str:
    lines = [f"# {results.suite.name}", "", results.suite.question, ""]
    for title, header, rows in parts:
        lines += [f"## {title}", "", *(_pipes(row) for row in (header, ["---"] * len(header), *rows)), ""]
    lines += [f"![{name}](pictures/{name}.png)" for name in pictures]
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes)])


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _html(results: Comparison, parts, notes: Sequence[str], pictures: Sequence[str]) -> str:
    def row(cells: Sequence[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    tables = "".join(
        f"<h2>{html.escape(title)}</h2>\n<table>{row(header, 'th')}{''.join(map(row, rows))}</table>\n"
        for title, header, rows in parts
    )
    pages = dict.fromkeys((line.member, line.folder) for line in results.lines if line.folder)
    listen = "".join(f'<li><a href="{folder}/index.html">{html.escape(member)}</a></li>' for member, folder in pages)
    drawn = "".join(f'<img src="pictures/{name}.png" alt="{name}">\n' for name in pictures)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{results.suite.name}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em }}
table {{ border-collapse: collapse }} td, th {{ padding: .3em .6em; border-bottom: 1px solid #ccc; text-align: left }}
img {{ max-width: 100% }}
</style>
<h1>{html.escape(results.suite.name)}</h1>
<p>{html.escape(results.suite.question)}</p>
{"".join(f"<p>{html.escape(note)}</p>" for note in notes)}
{tables}
{f"<h2>Listen</h2><ul>{listen}</ul>" if listen else ""}
{drawn}</html>
"""


def _draw(folder: pathlib.Path, results: Comparison) -> list[str]:
    """Names of the pictures drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for stage in results.suite.stages:
        records = [record for record in results.trainings.values() if record.stage == stage and record.steps > 1]
        if records:
            names.append(f"{stage}_loss")
            _draw_curves(folder / f"{stage}_loss.png", results, records)
    if results.fits:
        names.append("power_laws")
        _draw_fits(folder / "power_laws.png", results.fits)
    return names


def _axes(columns: int):
    """A matplotlib figure that needs no display, and its axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("matplotlib draws the report: pip install 'valle-jax[eval]'") from None
    figure = Figure(figsize=(6 * columns, 4), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _draw_curves(path: pathlib.Path, results: Comparison, records: Sequence[TrainingRecord]) -> None:
    figure, axes = _axes(2)
    for record in records:
        users = dict.fromkeys(line.member for line in results.lines if record.name in line.trainings)
        label = next(iter(users)) + (f" and {len(users) - 1} more" if len(users) > 1 else "")
        for axis, curve, marker in zip(axes, (record.curve, record.held_out), ("", "."), strict=True):
            if curve:
                axis.plot(*zip(*curve, strict=True), label=label, linewidth=1, marker=marker)
    for axis, title in zip(axes, ("training", "held-out"), strict=True):
        axis.set_title(f"{records[0].stage.upper()}: {title} loss, nats per code")
        axis.set_xlabel("step")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _draw_fits(path: pathlib.Path, fits: Sequence[Fit]) -> None:
    kinds = list(dict.fromkeys(fit.over for fit in fits))
    figure, axes = _axes(len(kinds))
    for axis, over in zip(axes, kinds, strict=True):
        for fit in (fit for fit in fits if fit.over == over):
            (points,) = axis.plot(fit.sizes, fit.losses, "o", label=f"{fit.fixed}: b = {fit.law.b:.2f}")
            grid = np.geomspace(min(fit.sizes), max(fit.sizes), 100)
            axis.plot(grid, fit.law(grid), color=points.get_color(), linewidth=1)
        axis.set_xscale("log")
        axis.set_xlabel(over)
        axis.set_ylabel("held-out loss, nats per code")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
