"""The verb `valle train`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from valle_jax.config import Stage, parse_settings
from valle_jax.configs import get_preset
from valle_jax.errors import UserError


def parse_data(text: str) -> tuple[str, float]:
    """`DIR:WEIGHT` or `DIR`, whose weight is 1; UserError for a weight that is not positive."""
    path, colon, weight = text.rpartition(":")
    try:
        value = float(weight) if colon else 1.0
    except ValueError:  # a colon in the path
        return text, 1.0
    if not 0 < value < float("inf"):
        raise UserError(f"--data {text}: the weight must be positive and finite")
    return (path, value) if colon else (text, value)


@dataclasses.dataclass(frozen=True)
class Train:
    """Train one stage; the same command again goes on from the newest checkpoint in the work directory.

    Example: valle train --preset tiny --stage ar --data DATASET --workdir runs/ar --steps 2000 --set model.n_layers=6
    """

    preset: str
    """Configuration to start from: tiny, small or base."""
    stage: Stage
    """ar: the first codebook; nar: the others."""
    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Dataset directory, or DIR:WEIGHT; give it again to mix several."""
    workdir: str
    """Where checkpoints, metrics and the run's description go."""
    steps: int | None = None
    """Steps to train, and where the learning rate reaches zero; default: the preset's."""
    mesh: str | None = None
    """Devices along each axis, such as data=4,fsdp=2,tensor=1; default: all devices on data."""
    init_from: str | None = None
    """Model directory whose parameters a new run starts from."""
    codec_weights: str | None = None
    """File of the codec's weights, where they are not to be fetched: for audio previews and model.code_init=codec."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Configuration override key=value, such as model.dropout=0; give it again for more."""

    def run(self) -> None:
        """Trains and says where the run stands."""
        if not self.data:
            raise UserError("--data DIR is missing; `valle prepare` makes a dataset")
        datasets = [parse_data(text) for text in self.data]
        settings = parse_settings(self.set)
        if self.steps is not None:
            settings["train.steps"] = str(self.steps)
        config = get_preset(self.preset, self.stage).override(settings)

        # Only now, so that mistakes in the arguments are answered at once.
        from valle_jax.inference.previews import make_previews
        from valle_jax.parallel.mesh import parse_mesh
        from valle_jax.train.loop import train

        mesh = parse_mesh(self.mesh) if self.mesh else None
        summary = train(
            config,
            datasets,
            self.workdir,
            mesh=mesh,
            init_from=self.init_from,
            codec_weights=self.codec_weights,
            make_sampler=make_previews(datasets[0][0], self.codec_weights),
        )
        print(f"{self.workdir}: {'stopped by SIGTERM at' if summary.terminated else 'trained to'} step {summary.step}")
