"""Pictures of an evaluation: error rate by duration, similarity by prompt length, accuracy by codebook."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from valle_jax.errors import UserError
from valle_jax.evaluation.results import Column, Results
from valle_jax.evaluation.trials import Trial

_BINS = 6
# Figures that are drawn by codebook.
CODEBOOK = re.compile(r"(accuracy.*)_codebook_(\d+)")


def draw_plots(results: Results, trials: Sequence[Trial], out: pathlib.Path) -> dict[str, str]:
    """Writes OUT/plots/*.png; the titles and paths, relative to OUT, of those that there are values for.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("plots need matplotlib: pip install 'valle-jax[eval]'") from None
    (out / "plots").mkdir(exist_ok=True)
    drawn: dict[str, str] = {}

    def plot(title: str, name: str, x_label: str, draw: Callable) -> None:
        figure = Figure(figsize=(7, 4), layout="constrained")
        axis = figure.subplots()
        if draw(axis):
            axis.set(xlabel=x_label, ylabel=title.partition(" by ")[0].rpartition(":")[2])
            axis.legend(fontsize=7)
            drawn[title] = f"plots/{name}.png"
            figure.savefig(out / drawn[title], dpi=110)

    seconds = {trial.id: trial.seconds for trial in trials}
    prompts = {trial.id: trial.prompt_seconds for trial in trials}
    for column in results.columns:
        name = column.figure.name
        if name == "wer" or name.startswith("similarity"):
            word, place = ("duration", seconds) if name == "wer" else ("prompt length", prompts)
            title = f"{column.key} by {word}"
            file = f"{name}_{column.measure}".replace("/", "-")
            plot(title, file, "seconds", lambda axis, c=column, p=place: _binned(axis, results, c, p))
    plot("accuracy by codebook", "accuracy_by_codebook", "codebook", lambda axis: _codebooks(axis, results))
    return drawn


def _binned(axis, results: Results, column: Column, place: dict[str, float]) -> bool:
    """The figure in bins of equal numbers of trials, with intervals, a line per row."""
    edges = np.unique(np.quantile(list(place.values()), np.linspace(0, 1, _BINS + 1)))
    if len(edges) == 1:
        edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
    for key, row in results.rows.items():
        values, names = row.column(column.measure)
        bins = np.clip(np.searchsorted(edges, [place[name] for name in names], side="right") - 1, 0, len(edges) - 2)
        points = []
        for number in np.unique(bins):
            inside = np.flatnonzero(bins == number)
            estimate = column.figure.estimate([values[i] for i in inside], [names[i] for i in inside])
            if estimate is not None:
                points.append((np.mean([place[names[i]] for i in inside]), estimate))
        if points:
            middle = np.array([e.value for _, e in points])
            bars = np.abs(np.array([[e.low, e.high] for _, e in points]).T - middle)
            axis.errorbar([x for x, _ in points], middle, bars, marker="o", markersize=3, capsize=2, label=key)
    return bool(axis.lines)


def _codebooks(axis, results: Results) -> bool:
    """Figures named `accuracy…_codebook_K`, a line per row and kind; teacher-forced top-10 accuracies of each split."""
    found = [(c, m) for c in results.columns if (m := CODEBOOK.fullmatch(c.figure.name))]
    for kind in sorted({match[1] for _, match in found}):
        for key in results.rows:
            points = [(int(m[2]), results.estimate(key, c.key)) for c, m in found if m[1] == kind]
            known = [(k, e.value) for k, e in points if e is not None]
            if known:
                axis.plot(*zip(*sorted(known), strict=True), marker="o", label=f"{key}: {kind}")
    for split, kinds in results.facts.get("teacher_forced", {}).items():
        known = [(k, value) for k, value in enumerate(kinds["accuracy_top10"], start=1) if value is not None]
        axis.plot(*zip(*known, strict=True), marker="s", label=f"{split}: teacher-forced top 10")
    return bool(axis.lines)
