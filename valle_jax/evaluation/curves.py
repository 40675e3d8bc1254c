"""Reference curves: how the loss of a preset falls on a public corpus, so that a run can be told to be healthy.

A curve is recorded from runs that differ in their seed only, and is a small JSON file in `reference_curves/`.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from valle_jax.errors import UserError

VERSION = 2
POINTS = 40  # of a curve
REACH = 0.1  # of a step: a loss is averaged over the lines of metrics.jsonl so far before and behind it
MARGIN = 0.02  # of the loss: least distance of the range's ends from the runs
# How a run is watched and computed, not what it learns.
_FREE = (
    *("train.seed", "train.log_every", "train.checkpoint_every", "train.evaluate_every", "train.evaluate_rows"),
    *("model.dtype", "model.remat", "model.attention", "data.workers", "train.loss_chunk", "train.accumulation"),
)

Verdict = Literal["within", "above", "below"]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The range of the training loss.

    Attributes:
      name: of its file.
      description: preset, corpus, device, date and command, for people.
      config: resolved configuration of the runs, by dotted keys.
      codec: name and weight hash of the codec.
      datasets: fingerprints.
      steps: ascending.
      loss: mean of the runs at each step, nats per target, averaged over the lines within `REACH`.
      least: of the runs.
      most: of the runs.
      lines: that were averaged, of the run with the fewest.
      noise: standard deviation of the loss of one line.
    """

    name: str
    description: str
    config: dict[str, Any]
    codec: str
    datasets: list[str]
    steps: list[int]
    loss: list[float]
    least: list[float]
    most: list[float]
    lines: list[int]
    noise: float

    def bounds(self, steps: np.ndarray, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest healthy loss at each of some steps, where it is the mean of so many lines.

        As far as the runs' own, and on either side twice the deviation of two such means' difference, or `MARGIN` of
        the loss.
        """
        known = (self.loss, self.least, self.most, self.lines)
        loss, least, most, mine = (np.interp(steps, self.steps, values) for values in known)
        margin = np.maximum(MARGIN * loss, 2 * self.noise * np.sqrt(1 / lines + 1 / mine))
        return least - margin, most + margin

    def save(self, path: pathlib.Path) -> None:
        """Writes the file."""
        value = {"version": VERSION, **dataclasses.asdict(self)}
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Any) -> Curve:
        """Reads the file; UserError where it is none."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.pop("version") != VERSION:
                raise UserError(f"{path} is a reference curve of another version")
            return cls(**value)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no reference curve: {error}") from None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a work directory says.

    Attributes:
      workdir: of `valle train`.
      steps: of the lines of metrics.jsonl that have a loss.
      loss: at each of them.
      config: by dotted keys.
      codec: name and weight hash.
      datasets: fingerprints.
    """

    workdir: pathlib.Path
    steps: np.ndarray
    loss: np.ndarray
    config: dict[str, Any]
    codec: str
    datasets: list[str]

    @classmethod
    def load(cls, workdir: str | pathlib.Path) -> Run:
        """UserError where it is no work directory, or has no losses yet."""
        folder = pathlib.Path(workdir)
        try:
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            config, run, codec = (
                json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("config", "run", "codec")
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is not a work directory of `valle train`: {error}") from None
        points = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
        if not points:
            raise UserError(f"{folder}/metrics.jsonl has no losses yet")
        steps, loss = np.array(points, float).T
        dotted = {f"{part}.{key}": value for part, values in config.items() for key, value in values.items()}
        name = f"{codec['name']} {codec['weight_hash']}"
        return cls(folder, steps, loss, dotted, name, [dataset["fingerprint"] for dataset in run["datasets"]])

    def smooth(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean of the lines within `REACH` of each, as many before as behind it, and how many these are.

        Losses fall by the logarithm of the step: so what is averaged is alike, however often lines are written.
        """
        reach = np.minimum(REACH * self.steps, np.minimum(self.steps - self.steps[0], self.steps[-1] - self.steps))
        first = np.searchsorted(self.steps, self.steps - reach, "left")
        last = np.searchsorted(self.steps, self.steps + reach, "right")
        total = np.concatenate([[0.0], np.cumsum(self.loss)])
        return (total[last] - total[first]) / (last - first), last - first


def record(runs: Sequence[Run], name: str, description: str) -> Curve:
    """The curve of runs that differ in their seed, as far as lines of all of them lie on both sides of a step.

    Raises:
      UserError: the runs differ in more, are too short, or share no steps.
    """
    first, *others = runs
    for run in others:
        if found := differences(first.config, run.config):
            raise UserError(f"{run.workdir} and {first.workdir} differ in more than their seed: {found[0]}")
    low_step, high_step = max(run.steps[0] for run in runs), min(run.steps[-1] / (1 + REACH) for run in runs)
    shared = first.steps[(first.steps >= low_step) & (first.steps <= high_step)]
    if len(shared) < 2:
        raise UserError("the runs have too few steps in common")
    steps = shared[_spread(len(shared))]
    smooth = [[np.interp(steps, run.steps, values) for values in run.smooth()] for run in runs]
    losses, lines = np.array(smooth).swapaxes(0, 1)
    # In second differences the fall itself is hardly there; their variance is six times that of a line.
    noise = np.concatenate([np.diff(run.loss, 2) for run in runs]).std() / np.sqrt(6)
    mean, least, most = ([round(float(x), 4) for x in line] for line in (losses.mean(0), losses.min(0), losses.max(0)))
    return Curve(
        name,
        description,
        first.config,
        first.codec,
        first.datasets,
        [int(step) for step in steps],
        mean,
        least,
        most,
        lines=[int(count) for count in lines.min(0)],
        noise=round(float(noise), 4),
    )


def _spread(count: int) -> np.ndarray:
    """Indices of at most `POINTS` of `count` things, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))


def differences(reference: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """Settings that change what is learned, as `key=mine (reference: theirs)`."""
    keys = sorted((reference.keys() | mine.keys()) - set(_FREE))
    return [f"{k}={mine.get(k)} (reference: {reference.get(k)})" for k in keys if reference.get(k) != mine.get(k)]


@dataclasses.dataclass(frozen=True)
class Point:
    """A step of a run: its smoothed loss, and from where to where a healthy one is."""

    step: int
    loss: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Where the loss lies."""
        return "below" if self.loss < self.low else "above" if self.loss > self.high else "within"


def compare(curve: Curve, run: Run) -> list[Point]:
    """Steps of the run, at most `POINTS`, that the curve has too."""
    loss, lines = run.smooth()
    low, high = curve.bounds(run.steps, lines)
    both = np.flatnonzero((run.steps >= curve.steps[0]) & (run.steps <= curve.steps[-1]))
    return [Point(int(run.steps[i]), *(float(line[i]) for line in (loss, low, high))) for i in both[_spread(len(both))]]


def shipped() -> dict[str, Curve]:
    """The curves of this package, by name."""
    folder = importlib.resources.files("valle_jax.evaluation") / "reference_curves"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return {file.name.removesuffix(".json"): Curve.load(file) for file in files}


def nearest(run: Run, curves: Mapping[str, Curve]) -> Curve:
    """The curve of the run's stage with the fewest other settings; UserError where there is none of the stage."""
    stage = run.config["model.stage"]
    of_stage = [curve for curve in curves.values() if curve.config["model.stage"] == stage]
    if not of_stage:
        raise UserError(f"no reference curve of stage {stage} is shipped; give one with --reference FILE")
    return min(of_stage, key=lambda curve: (len(differences(curve.config, run.config)), curve.name))
