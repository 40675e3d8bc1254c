"""The outcome of an evaluation: values of every sample, figures with intervals, differences from baselines."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from valle_jax.errors import UserError
from valle_jax.evaluation.bootstrap import Estimate
from valle_jax.evaluation.paired import paired_difference
from valle_jax.evaluation.sample import Figure, Measure, Values

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Measured:
    """A sample and its values.

    Attributes:
      trial: id of the trial.
      seed: which run it is of.
      audio: file, as seen from the results' folder; None where there is none, as of empty speech.
      values: by measure.
    """

    trial: str
    seed: int
    audio: str | None
    values: dict[str, Values]


@dataclasses.dataclass(frozen=True)
class Row:
    """One system in one setting.

    Attributes:
      system: name in `SYSTEMS`.
      setting: name of the setting.
      label: in tables.
      baseline: key of the row that it is compared with, or None.
      samples: of all trials and seeds.
      failed: trials that the system could not be asked for, with the reason.
    """

    system: str
    setting: str
    label: str
    baseline: str | None
    samples: tuple[Measured, ...]
    failed: tuple[tuple[str, str], ...] = ()

    def column(self, measure: str) -> tuple[list[Values], list[str]]:
        """What a measure yielded for each sample, and the samples' trials."""
        return [s.values.get(measure, {}) for s in self.samples], [s.trial for s in self.samples]


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure of a measure; its key in results is `measure:figure`."""

    measure: str
    figure: Figure

    @property
    def key(self) -> str:
        """Names it in results."""
        return f"{self.measure}:{self.figure.name}"


def columns_of(measures: Sequence[Measure]) -> tuple[Column, ...]:
    """All figures of the measures."""
    return tuple(Column(measure.name, figure) for measure in measures for figure in measure.figures)


@dataclasses.dataclass(frozen=True)
class Results:
    """An evaluation.

    Attributes:
      facts: protocol, model, corpus, options and versions, as JSON.
      columns: the figures.
      rows: by key: the system's name, with the setting in brackets where the protocol has several.
    """

    facts: dict[str, Any]
    columns: tuple[Column, ...]
    rows: dict[str, Row]

    def estimate(self, row: str, column: str) -> Estimate | None:
        """A row's figure with its interval; None where nothing has the figure."""
        chosen = self._column(column)
        return chosen.figure.estimate(*self.rows[row].column(chosen.measure))

    def difference(self, row: str, column: str, baseline: str | None = None, of: Results | None = None):
        """A row's figure less the baseline's: see `paired_difference`.

        `baseline` is a row, by default the row's own baseline, of these results or of others (`of`).
        """
        chosen, base = self._column(column), baseline or self.rows[row].baseline
        others = (of or self).rows
        if base is None or base not in others:
            return None
        return paired_difference(
            chosen.figure, *self.rows[row].column(chosen.measure), *others[base].column(chosen.measure)
        )

    def _column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)

    def to_json(self) -> dict[str, Any]:
        """All but the samples."""

        def figures(row: str) -> dict[str, Any]:
            made = {}
            for column in self.columns:
                estimate, difference = self.estimate(row, column.key), self.difference(row, column.key)
                if estimate is not None:
                    made[column.key] = estimate.to_json()
                    if difference is not None:
                        made[column.key]["difference"] = difference.to_json()
            return made

        return {
            "version": VERSION,
            **self.facts,
            "columns": [{"measure": c.measure, "figure": dataclasses.asdict(c.figure)} for c in self.columns],
            "rows": {
                key: {
                    "system": row.system,
                    "setting": row.setting,
                    "label": row.label,
                    "baseline": row.baseline,
                    "failed": [list(failure) for failure in row.failed],
                    "figures": figures(key),
                }
                for key, row in self.rows.items()
            },
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes results.json, and values.jsonl with the samples."""
        folder = pathlib.Path(folder)
        with open(folder / "values.jsonl", "w", encoding="utf-8") as file:
            for key, row in self.rows.items():
                file.writelines(json.dumps({"row": key, **dataclasses.asdict(s)}) + "\n" for s in row.samples)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Results:
        """Reads what `save` wrote; UserError where it is not there or of another version."""
        folder = pathlib.Path(folder)
        try:
            value = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            lines = (folder / "values.jsonl").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no results of `valle evaluate`: {error}") from None
        if value.pop("version", None) != VERSION:
            raise UserError(f"{folder}/results.json is of another version; evaluate again")
        samples: dict[str, list[Measured]] = {}
        for line in map(json.loads, lines):
            samples.setdefault(line.pop("row"), []).append(Measured(**line))
        columns = tuple(Column(c["measure"], Figure(**c["figure"])) for c in value.pop("columns"))
        rows = {key: _row(row, samples.get(key, [])) for key, row in value.pop("rows").items()}
        return cls(value, columns, rows)


def _row(value: Mapping[str, Any], samples: Sequence[Measured]) -> Row:
    failed = tuple((trial, reason) for trial, reason in value["failed"])
    fields = {name: value[name] for name in ("system", "setting", "label", "baseline")}
    return Row(**fields, samples=tuple(samples), failed=failed)
