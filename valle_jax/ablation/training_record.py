"""What a training came to: losses, curves and cost, read from its work directory."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from valle_jax.ablation.plan import StageRun
from valle_jax.config import Config
from valle_jax.data.info import DatasetInfo
from valle_jax.model import build
from valle_jax.plan.flops import Speech, train_flops
from valle_jax.train.evaluate import selection_loss

_IDLE = "down"  # phase of goodput.json in which no process ran


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """A finished training.

    Attributes:
      name: of its folder.
      stage: which decoder.
      steps: of the optimizer.
      parameters: of the decoder.
      data_share: of the training utterances that it saw.
      loss: held-out loss of its best checkpoint, nats per code; None where nothing is held out.
      curve: (step, training loss) of every line of its metrics.
      held_out: (step, held-out loss).
      flops: products of matrices in all steps, counted from the configuration.
      seconds: in which a process ran.
      device: it ran on.
    """

    name: str
    stage: str
    steps: int
    parameters: int
    data_share: float
    loss: float | None
    curve: list[tuple[int, float]]
    held_out: list[tuple[int, float]]
    flops: float
    seconds: float
    device: str

    def to_json(self) -> dict[str, Any]:
        """A dict that `json.dumps` takes."""
        return dataclasses.asdict(self)


def read_training(run: StageRun, datasets: Sequence[DatasetInfo]) -> TrainingRecord:
    """Of a finished training on these datasets."""
    description = json.loads((run.workdir / "run.json").read_text(encoding="utf-8"))
    config = Config.from_json(description["config"])
    lines = _read_lines(run.workdir / "metrics.jsonl")
    held_out = [(line["step"], loss) for line in lines if (loss := selection_loss(line)) is not None]
    fills = [line["fill"] for line in lines if "fill" in line]
    decoder = build(config.model)
    speech = _speech(datasets, sum(fills) / len(fills))
    flops = train_flops(config, decoder, config.model.attention, speech, tile=1)
    seconds = json.loads((run.workdir / "goodput.json").read_text(encoding="utf-8"))["seconds"]
    return TrainingRecord(
        name=run.name,
        stage=run.stage,
        steps=config.train.steps,
        parameters=decoder.n_parameters,
        data_share=config.data.share,
        loss=min((loss for _, loss in held_out), default=None),
        curve=[(line["step"], line["loss"]) for line in lines if line.get("loss") is not None],
        held_out=held_out,
        flops=config.train.steps * (flops.forward + flops.backward + flops.attention_useful),
        seconds=sum(spent for phase, spent in seconds.items() if phase != _IDLE),
        device=f"{description['device']} x {math.prod(description['mesh'].values())}",
    )


def _speech(datasets: Sequence[DatasetInfo], fill: float) -> Speech:
    """The utterances of the datasets, all as long as they are on average."""
    utterances, frames, phonemes = (
        sum(info.totals[name] for info in datasets) for name in ("utterances", "frames", "phonemes")
    )
    frames_per_second = datasets[0].codec.frames_per_second
    seconds = frames / frames_per_second
    return Speech(seconds / utterances, frames_per_second, phonemes / seconds, fill)


def _read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
