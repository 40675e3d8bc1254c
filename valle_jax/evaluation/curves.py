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

VERSION = 1
POINTS = 40  # of a curve
WINDOW = 5  # lines of metrics.jsonl over which a loss is averaged
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
      loss: mean of the runs at each step, nats per target, averaged over `WINDOW` lines of metrics.
      low: lower end of the range at each step.
      high: upper end.
    """

    name: str
    description: str
    config: dict[str, Any]
    codec: str
    datasets: list[str]
    steps: list[int]
    loss: list[float]
    low: list[float]
    high: list[float]

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

    @property
    def smooth(self) -> np.ndarray:
        """The mean of `WINDOW` lines around each loss, fewer at the ends."""
        half = WINDOW // 2
        total = np.concatenate([[0.0], np.cumsum(self.loss)])
        place = np.arange(len(self.loss))
        first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(self.loss))
        return (total[last] - total[first]) / (last - first)


def record(runs: Sequence[Run], name: str, description: str) -> Curve:
    """The curve of runs that differ in their seed.

    The range holds the smoothed losses of all runs, and at least twice the deviation of what smoothing took away and
    `MARGIN` of the loss on either side.

    Raises:
      UserError: the runs differ in more, or share no steps.
    """
    first, *others = runs
    for run in others:
        if found := differences(first.config, run.config):
            raise UserError(f"{run.workdir} and {first.workdir} differ in more than their seed: {found[0]}")
    low_step, high_step = max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs)
    shared = first.steps[(first.steps >= low_step) & (first.steps <= high_step)]
    if not len(shared):
        raise UserError("the runs have no steps in common")
    chosen = np.unique(np.linspace(0, len(shared) - 1, POINTS).round().astype(int))
    steps = shared[chosen]
    losses = np.array([np.interp(steps, run.steps, run.smooth) for run in runs])
    noise = np.mean([np.std(run.loss - run.smooth) for run in runs])
    mean = losses.mean(axis=0)
    margin = np.maximum(MARGIN * mean, 2 * noise / np.sqrt(WINDOW))
    return Curve(
        name,
        description,
        first.config,
        first.codec,
        first.datasets,
        [int(step) for step in steps],
        *([round(float(x), 4) for x in line] for line in (mean, losses.min(0) - margin, losses.max(0) + margin)),
    )


def differences(reference: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """Settings that change what is learned, as `key=mine (reference: theirs)`."""
    keys = sorted((reference.keys() | mine.keys()) - set(_FREE))
    return [f"{k}={mine.get(k)} (reference: {reference.get(k)})" for k in keys if reference.get(k) != mine.get(k)]


def compare(curve: Curve, run: Run) -> list[tuple[int, float, Verdict]]:
    """For each step of the curve that the run has reached: step, the run's smoothed loss, where that lies."""
    verdicts: list[tuple[int, float, Verdict]] = []
    for step, low, high in zip(curve.steps, curve.low, curve.high, strict=True):
        if run.steps[0] <= step <= run.steps[-1]:
            loss = float(np.interp(step, run.steps, run.smooth))
            verdicts.append((step, loss, "below" if loss < low else "above" if loss > high else "within"))
    return verdicts


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
